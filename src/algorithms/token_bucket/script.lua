-- token_bucket: the same as step.rs, under the same names.
--
-- KEYS    one counter: a string, the theoretical arrival time as a decimal number of microseconds (which Redis keeps
--         as an integer), or "f" and <I7 microseconds, I4 units> where there is a rest
-- ARGV    parameters: capacity, hit_units, unit_rate, hold (0 or 1)
-- Returns a table of functions for check.lua

-- What is missing: worth so many microseconds, and so many units.
local function missing(state, now, unit_rate)
  local wait = state.tat - now
  if wait < 0 then
    return 0, 0
  end
  if state.frac >= unit_rate then
    return wait, unit_rate - 1
  end
  return wait, state.frac
end

local function set(state, now, units, unit_rate)
  if units <= 0 then
    state.tat, state.frac = 0, 0
    return
  end
  state.frac = units % unit_rate
  state.tat = now + (units - state.frac) / unit_rate
end

algorithms[2] = {
  load = function(key)
    local value = call("GET", key)
    if not value then
      return { tat = 0, frac = 0 }
    end
    local tat, frac = tonumber(value), 0
    if not tat then
      if #value ~= 12 or string.sub(value, 1, 1) ~= "f" then
        foreign(key)
      end
      tat, frac = struct.unpack("<I7I4", value, 2)
    end
    return { tat = tat, frac = frac }
  end,

  decide = function(state, now, hits, capacity, hit_units, unit_rate, hold)
    local wait, frac = missing(state, now, unit_rate)
    local units = capacity
    if wait <= (capacity - capacity % unit_rate) / unit_rate and wait * unit_rate + frac < capacity then
      units = wait * unit_rate + frac
    end
    local left = capacity - units
    local room = capacity - hit_units
    if hits > 0 then
      room = capacity - hits * hit_units
    end
    -- The hits pass while no more than `room` is missing.
    local most = room - frac
    most = (most - most % unit_rate) / unit_rate
    if hits > 0 and room >= 0 and wait <= most then
      local after = units + hits * hit_units
      left = capacity - after
      local delay = 0
      if hold == 1 then
        delay = after - hit_units
        delay = (delay + -delay % unit_rate) / unit_rate
      end
      return 1, (left - left % hit_units) / hit_units, 0, (after + -after % unit_rate) / unit_rate, delay
    end
    left = (left - left % hit_units) / hit_units
    local reset_after = frac > 0 and wait + 1 or wait
    if room < 0 then
      return 0, left, -1, reset_after, 0
    end
    if wait <= most then
      return 1, left, 0, reset_after, 0
    end
    return 0, left, wait - most, reset_after, 0
  end,

  apply = function(state, now, hits, _, hit_units, unit_rate)
    local wait, frac = missing(state, now, unit_rate)
    set(state, now, wait * unit_rate + frac + hits * hit_units, unit_rate)
  end,

  debit = function(state, now, hits, capacity, hit_units, unit_rate)
    local most = 2 * capacity
    local wait, frac = missing(state, now, unit_rate)
    if wait >= (most - most % unit_rate) / unit_rate then
      return
    end
    local room = most - wait * unit_rate - frac
    room = (room - room % hit_units) / hit_units
    if room > 0 then
      algorithms[2].apply(state, now, hits < room and hits or room, capacity, hit_units, unit_rate)
    end
  end,

  refund = function(state, now, hits, capacity, hit_units, unit_rate)
    local wait, frac = missing(state, now, unit_rate)
    local most = (capacity - capacity % unit_rate) / unit_rate
    if wait > most then
      wait = most
    end
    set(state, now, wait * unit_rate + frac - hits * hit_units, unit_rate)
  end,

  -- Before it was to be full again, the bucket has not been full (unless others' refunds have filled it).
  return_to = function(state, now, full_at, hits, capacity, hit_units, unit_rate)
    if now < full_at then
      algorithms[2].refund(state, now, hits, capacity, hit_units, unit_rate)
    end
  end,

  leases = true,

  save = function(state, key, now, spare_ms)
    local value = state.tat
    if value == 0 then
      call("DEL", key)
      return
    end
    if state.frac > 0 then
      value = struct.pack("<c1I7I4", "f", state.tat, state.frac)
    end
    call("SET", key, value, "PX", expiry_ms(state.tat + 1, now, spare_ms))
  end,
}
