-- fixed_window: the same as step.rs, under the same names.
--
-- KEYS    one counter: a string <I6 window, I4 count>
-- ARGV    parameters: limit, window_us
-- Returns a table of functions for check.lua

-- The largest count that is kept; not below any limit.
local MOST = 4294967295

-- The window that is counted now, and the hits in it.
local function current(state, now, window_us)
  local window = (now - now % window_us) / window_us
  if window > state.window then
    return window, 0
  end
  return state.window, state.count
end

algorithms[4] = {
  load = function(key)
    local value = call("GET", key)
    if not value then
      return { window = 0, count = 0 }
    end
    if #value ~= 10 then
      foreign(key)
    end
    local window, count = struct.unpack("<I6I4", value)
    return { window = window, count = count }
  end,

  decide = function(state, now, hits, limit, window_us)
    local window, count = current(state, now, window_us)
    local end_after = (window + 1) * window_us - now
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

  apply = function(state, now, hits, _, window_us)
    local window, count = current(state, now, window_us)
    count = count + hits
    state.window, state.count = window, count < MOST and count or MOST
  end,

  -- The count stops by itself.
  debit = function(state, now, hits, limit, window_us)
    algorithms[4].apply(state, now, hits, limit, window_us)
  end,

  refund = function(state, now, hits, _, window_us)
    local window, count = current(state, now, window_us)
    if count > hits then
      state.window, state.count = window, count - hits
    else
      state.window, state.count = 0, 0
    end
  end,

  return_to = function(state, now, slice, hits, limit, window_us)
    if slice == current(state, now, window_us) then
      algorithms[4].refund(state, now, hits, limit, window_us)
    end
  end,

  leases = true,

  save = function(state, key, now, spare_ms, _, window_us)
    if state.count == 0 then
      call("DEL", key)
      return
    end
    local ms = expiry_ms((state.window + 1) * window_us, now, spare_ms)
    call("SET", key, struct.pack("<I6I4", state.window, state.count), "PX", ms)
  end,
}
