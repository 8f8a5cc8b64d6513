-- held: the same as step.rs, under the same names. Stands after the scripts of sliding_window and of the counter's own
-- algorithm.
--
-- KEYS    a counter, as its algorithm keeps it; its ring (the sum of its open holds, as sliding_window keeps one); and for
--         each hold that the call is about its record: a string <I6 slice, I6 hits; 0 = settled>
-- ARGV    parameters: those of the counter's algorithm, and slice_us of the ring
-- Returns a table of functions for check.lua

local HOLD_SLICES, RETRY_US, MOST_HELD = 32, 1000000, 4294967295
local ring_of = algorithms[0]
held = {}

-- Hits that open holds keep.
function held.open(state, now)
  if state.ring.sum == 0 then
    return 0
  end
  local _, left = ring_of.decide(state.ring, now, 0, MOST_HELD, state.slice_us, HOLD_SLICES)
  return MOST_HELD - left
end

-- Lets holds go whose time is over.
local function advance_ring(state, now)
  local before = state.ring.sum
  ring_of.apply(state.ring, now, 0, MOST_HELD, state.slice_us, HOLD_SLICES)
  state.expired = state.expired + before - state.ring.sum
  state.ring_changed = true
end

-- Takes a record's hits out of the sum; what they were.
local function leave(state, now, record)
  advance_ring(state, now)
  local before = state.ring.sum
  ring_of.return_to(state.ring, now, record.slice, record.hits, MOST_HELD, state.slice_us, HOLD_SLICES)
  return before - state.ring.sum
end

-- Whether a hold is known and has not ended.
local function is_known(state, now, record)
  return record.slice and (record.slice + HOLD_SLICES + 1) * state.slice_us > now
end

-- Reads a record; nothing is written yet.
function held.record(key)
  local value = call("GET", key)
  if not value then
    return {}
  end
  if #value ~= 12 then
    foreign(key)
  end
  local slice, hits = struct.unpack("<I6I6", value)
  return { slice = slice, hits = hits }
end

function held.load(key, now, p1, p2, ring_key, main, slice_us)
  return {
    counter = main.load(key, now, p1, p2), ring = ring_of.load(ring_key), main = main, slice_us = slice_us, expired = 0,
  }
end

-- A denial of hits that come to `allowed` where there are no holds.
local function denied(allowed, retry_after)
  return allowed == 1 and RETRY_US or retry_after
end

function held.decide(state, now, hits, p1, p2, p3, p4)
  local main = state.main
  local allowed, remaining, retry_after, reset_after, delay = main.decide(state.counter, now, hits, p1, p2, p3, p4)
  state.adopted = state.counter.adopted
  local open = held.open(state, now)
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

-- What would become of a hold, `before` being the hits that count before it; and what it would keep.
function held.judge(state, now, hits, before, p1, p2, p3, p4)
  local main = state.main
  local open = held.open(state, now) + before
  local _, left, _, reset_after = main.decide(state.counter, now, 0, p1, p2, p3, p4)
  state.adopted = state.counter.adopted
  left = left > open and left - open or 0
  if hits <= left then
    return 1, left - hits, 0, reset_after, hits
  end
  local allowed, _, retry_after = main.decide(state.counter, now, hits, p1, p2, p3, p4)
  if retry_after ~= -1 then
    return 0, left, denied(allowed, retry_after), reset_after, 0
  end
  -- More than the limit could ever admit.
  if open == 0 and left > 0 then
    return 1, 0, 0, reset_after, left
  end
  allowed, _, retry_after = main.decide(state.counter, now, 1, p1, p2, p3, p4)
  return 0, left, denied(allowed, retry_after), reset_after, 0
end

-- What is left and until when, where open holds are worth `mean` each.
function held.stands(state, now, mean, p1, p2, p3, p4)
  local _, left, _, reset_after = state.main.decide(state.counter, now, 0, p1, p2, p3, p4)
  state.adopted = state.counter.adopted
  local open = held.open(state, now) * mean
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

-- Counts a hold that was allowed.
function held.hold_mean(state, now)
  advance_ring(state, now)
  ring_of.apply(state.ring, now, 1, MOST_HELD, state.slice_us, HOLD_SLICES)
end

-- Ends the oldest hold, if there is any, and counts hits; how many holds have ended.
function held.settle_oldest(state, now, hits, p1, p2, p3, p4)
  advance_ring(state, now)
  local before = state.ring.sum
  ring_of.refund(state.ring, now, 1, MOST_HELD, state.slice_us, HOLD_SLICES)
  if hits > 0 then
    held.debit(state, now, hits, p1, p2, p3, p4)
  end
  return before - state.ring.sum
end

-- Makes a hold of hits that were allowed.
function held.hold(state, now, record, hits)
  advance_ring(state, now)
  ring_of.apply(state.ring, now, hits, MOST_HELD, state.slice_us, HOLD_SLICES)
  if is_known(state, now, record) then
    -- The same counter for the second time in one request.
    record.hits = record.hits > 0 and record.hits + hits or 0
  else
    record.slice, record.hits = state.ring.newest, hits
  end
  record.changed = true
end

-- Ends a hold and counts hits; what the hold had kept, and whether it had been settled before.
function held.settle(state, now, record, hits, p1, p2, p3, p4)
  local own = 0
  if is_known(state, now, record) then
    if record.hits == 0 then
      return 0, 1
    end
    own = leave(state, now, record)
    record.hits, record.changed = 0, true
  end
  if hits > 0 then
    held.debit(state, now, hits, p1, p2, p3, p4)
  end
  return own, 0
end

-- Ends a hold that nobody knows of, and forgets it.
function held.release(state, now, record)
  if is_known(state, now, record) and record.hits > 0 then
    leave(state, now, record)
    record.slice, record.changed = nil, true
  end
end

function held.apply(state, ...)
  state.counter_changed = true
  return state.main.apply(state.counter, ...)
end

function held.debit(state, ...)
  state.counter_changed = true
  return state.main.debit(state.counter, ...)
end

function held.refund(state, ...)
  state.counter_changed = true
  return state.main.refund(state.counter, ...)
end

function held.return_to(state, ...)
  state.counter_changed = true
  return state.main.return_to(state.counter, ...)
end

function held.save(state, key, now, spare_ms, p1, p2, p3, ring_key)
  if state.counter_changed or state.counter.adopted then
    state.main.save(state.counter, key, now, spare_ms, p1, p2, p3)
  end
  if state.ring_changed then
    -- For another ttl, so that the next request still hears of holds that nobody has settled.
    local ttl_us = state.slice_us * HOLD_SLICES
    local ttl_ms = (ttl_us + -ttl_us % 1000) / 1000
    ring_of.save(state.ring, ring_key, now, spare_ms + ttl_ms, MOST_HELD, state.slice_us, HOLD_SLICES)
  end
end

function held.save_record(record, key, now, spare_ms, slice_us)
  if not record.slice then
    call("DEL", key)
    return
  end
  local ms = expiry_ms((record.slice + HOLD_SLICES + 1) * slice_us, now, spare_ms)
  call("SET", key, struct.pack("<I6I6", record.slice, record.hits), "PX", ms)
end

-- Decides a hold, or a settlement, that is alone in its call. Returns the reply that check.lua describes.
function held.alone(is_hold, now, spare_ms, hits, key, ring_key, record_key, main, slice_us, p1, p2, p3, p4)
  local state = held.load(key, now, p1, p2, ring_key, main, slice_us)
  local record = is_hold and {} or held.record(record_key)
  local allowed, remaining, retry_after, reset_after, room, own, again, _
  if is_hold then
    allowed, remaining, retry_after, reset_after, own = held.judge(state, now, hits, 0, p1, p2, p3, p4)
    again = 0
    if own > 0 then
      held.hold(state, now, record, own)
    end
  else
    allowed, room, retry_after = main.decide(state.counter, now, hits, p1, p2, p3, p4)
    own, again = held.settle(state, now, record, hits, p1, p2, p3, p4)
    if hits == 0 or again == 1 then
      allowed, retry_after = 1, 0
    end
    _, remaining, _, reset_after = held.decide(state, now, 0, p1, p2, p3, p4)
  end
  local open = held.open(state, now)
  held.save(state, key, now, spare_ms, p1, p2, p3, ring_key)
  if record.changed then
    held.save_record(record, record_key, now, spare_ms, slice_us)
  end
  if is_hold then
    return struct.pack("<dddddddddd",
      now, allowed, remaining, retry_after, reset_after, 0, open, own, state.expired, again)
  end
  return struct.pack("<ddddddddddd",
    now, allowed, remaining, retry_after, reset_after, 0, allowed == 0 and room or 0, open, own, state.expired, again)
end
