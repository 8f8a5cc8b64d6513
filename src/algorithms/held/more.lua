-- held: what calls of more than one hold or settlement need beside script.lua, after which it stands.
--
-- KEYS, ARGV    as in script.lua
-- Returns more functions in the same table

function held.decide(state, now, hits, p1, p2, p3, p4)
  local main = state.main
  local allowed, remaining, retry_after, reset_after, delay = main.decide(state.counter, now, hits, p1, p2, p3, p4)
  state.adopted = state.counter.adopted
  local open = open_holds(state, now)
  if open == 0 then
    return allowed, remaining, retry_after, reset_after, delay
  end
  local _, left, _, stands_reset = main.decide(state.counter, now, 0, p1, p2, p3, p4)
  left = left > open and left - open or 0
  if (hits > 0 and hits or 1) <= left then
    return allowed, left - hits, retry_after, reset_after, delay
  end
  return 0, left, denied(allowed, retry_after), stands_reset, 0
end

-- What is left and until when, where open holds are worth `mean` each.
function held.stands(state, now, mean, p1, p2, p3, p4)
  local _, left, _, reset_after = state.main.decide(state.counter, now, 0, p1, p2, p3, p4)
  state.adopted = state.counter.adopted
  local open = open_holds(state, now) * mean
  return left > open and left - open or 0, reset_after
end

-- What would become of a hold of a mean cost, and what it would keep: all that is left, if that is less.
function held.judge_mean(state, now, mean, before, p1, p2, p3, p4)
  local left, reset_after = held.stands(state, now, mean, p1, p2, p3, p4)
  left = left > before and left - before or 0
  if left > 0 then
    local own = mean < left and mean or left
    return 1, left - own, 0, reset_after, own
  end
  local allowed, _, retry_after = state.main.decide(state.counter, now, 1, p1, p2, p3, p4)
  return 0, left, denied(allowed, retry_after), reset_after, 0
end

-- Makes a hold that was granted elsewhere, unless its id is known; what it keeps.
function held.force_hold(state, now, record, hits)
  local room = MOST_HELD - open_holds(state, now)
  hits = hits < room and hits or room
  if not record.slice and hits > 0 then
    held.hold(state, now, record, hits)
  end
  return record.hits or 0
end

-- Counts a hold that was allowed.
function held.hold_mean(state, now)
  advance_holds(state, now)
  state.sum, state.head = state.sum + 1, state.head + 1
end

-- Ends the oldest hold, if there is any, and counts hits; how many holds have ended.
function held.settle_oldest(state, now, hits, p1, p2, p3, p4)
  advance_holds(state, now)
  local ended = 0
  if state.sum > 0 then
    ended = 1
    local slice = state.newest
    for age = #state.older / 4, 1, -1 do
      if struct.unpack("<I4", state.older, age * 4 - 3) > 0 then
        slice = state.newest - age
        break
      end
    end
    leave(state, now, { slice = slice, hits = 1 })
  else
    state.newest, state.head, state.older = 0, 0, ""
  end
  if hits > 0 then
    state.main.debit(state.counter, now, hits, p1, p2, p3, p4)
  end
  return ended
end

-- Ends a hold that nobody knows of, and forgets it.
function held.release(state, now, record)
  if string.sub(record.key, -32, -19) == "00000000000000" then
    -- Where holds have no names, this is the oldest one's.
    held.settle_oldest(state, now, 0)
    return
  end
  if record.slice and record.hits > 0 then
    leave(state, now, record)
    forget_record(state, record)
  end
end

-- Changes of the counter itself.
for _, name in ipairs({ "apply", "debit", "refund", "return_to" }) do
  held[name] = function(state, ...)
    state.changed = true
    return state.main[name](state.counter, ...)
  end
end
