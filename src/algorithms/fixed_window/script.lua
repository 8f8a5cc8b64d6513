-- fixed_window: the same as step.rs, under the same names.
--
-- KEYS    one counter: a string <I5 end_s, I4 count, I3 mark>: windows are whole seconds, and twelve bytes cost
--         16 less than thirteen
-- ARGV    parameters: limit, window_us, 0, 0. Of a calendar, which is not known here: limit, and when three windows end: the
--         one before the caller's present one, that one, and the next. This server's clock says which of them it is in; the
--         caller's may be off by a day
-- Returns a table of functions for check.lua

-- The largest count that is kept; not below any limit.
local MOST = 4294967295

-- The largest prime below 2^24: lengths of windows leave different rests.
local MARKS = 16777213

-- Windows of a calendar have counters of their own.
local function mark_of(window_us, own_end)
  return own_end > 0 and 0 or window_us / 1000000 % MARKS
end

-- When the window of a time ends.
local function end_of(now, window_us, own_end, next_end)
  if own_end == 0 then
    return now - now % window_us + window_us
  end
  if now < window_us then
    return window_us
  end
  if now < own_end then
    return own_end
  end
  if now < next_end then
    return next_end
  end
  -- The caller's clock is more than a window behind: as if the others were as long as the last that it knows.
  local length = next_end - own_end
  return now - (now - next_end) % length + length
end

-- Hits of a window of another length that has not ended count in the present one.
local function adopt(state, now, window_us, own_end, next_end)
  if state.count == 0 or state.mark == mark_of(window_us, own_end) then
    return
  end
  if state.end_us > now then
    state.end_us = end_of(now, window_us, own_end, next_end)
  else
    state.end_us, state.count = 0, 0
  end
  state.mark, state.adopted = mark_of(window_us, own_end), true
end

-- When the window that is counted now ends, and the hits in it.
local function current(state, now, window_us, own_end, next_end)
  adopt(state, now, window_us, own_end, next_end)
  local end_us = end_of(now, window_us, own_end, next_end)
  if end_us > state.end_us then
    return end_us, 0
  end
  return state.end_us, state.count
end

algorithms[4] = {
  read = function(value, key)
    if not value then
      return { end_us = 0, count = 0, mark = 0 }
    end
    if #value ~= 12 then
      foreign(key)
    end
    local end_s, count, mark = struct.unpack("<I5I4I3", value)
    return { end_us = end_s * 1000000, count = count, mark = mark }
  end,

  decide = function(state, now, hits, limit, window_us, own_end, next_end)
    local end_us, count = current(state, now, window_us, own_end, next_end)
    local end_after = end_us - now
    local left = limit - count
    if left < 0 then
      left = 0
    end
    local wanted = hits > 0 and hits or 1
    if wanted <= left then
      return 1, left - hits, 0, count + hits > 0 and end_after or 0, 0
    end
    return 0, left, wanted > limit and -1 or end_after, count > 0 and end_after or 0, 0
  end,

  apply = function(state, now, hits, _, window_us, own_end, next_end)
    local end_us, count = current(state, now, window_us, own_end, next_end)
    count = count + hits
    state.end_us, state.count, state.mark = end_us, count < MOST and count or MOST, mark_of(window_us, own_end)
  end,

  -- The count stops by itself.
  debit = function(state, now, hits, limit, window_us, own_end, next_end)
    algorithms[4].apply(state, now, hits, limit, window_us, own_end, next_end)
  end,

  refund = function(state, now, hits, _, window_us, own_end, next_end)
    local end_us, count = current(state, now, window_us, own_end, next_end)
    if count > hits then
      state.end_us, state.count = end_us, count - hits
    else
      state.end_us, state.count = 0, 0
    end
  end,

  return_to = function(state, now, slice, hits, limit, window_us, own_end, next_end)
    local number_us = own_end > 0 and 1000000 or window_us
    if (slice + 1) * number_us == current(state, now, window_us, own_end, next_end) then
      algorithms[4].refund(state, now, hits, limit, window_us, own_end, next_end)
    end
  end,

  leases = true,

  write = function(state)
    if state.count == 0 then
      return nil
    end
    return struct.pack("<I5I4I3", state.end_us / 1000000, state.count, state.mark), state.end_us
  end,
}
