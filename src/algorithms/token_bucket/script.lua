-- token_bucket: the same as step.rs, under the same names.
--
-- KEYS    one counter: a string <I7 theoretical arrival time in microseconds, I4 pace, and 2^31 if overdrawn>, then <I4>
--         units where there is a rest
-- ARGV    parameters: capacity, hit_units, unit_rate, pace and hold (2 * pace + 0 or 1)
-- Returns a table of functions for check.lua

-- So many hits, with 20 binary digits, are more than any bucket holds.
local MOST = 9007199254740992

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

local function set(state, now, units, capacity, unit_rate, pace)
  if units <= 0 then
    state.tat, state.frac, state.pace, state.overdrawn = 0, 0, 0, false
    return
  end
  state.frac = units % unit_rate
  state.tat = now + (units - state.frac) / unit_rate
  state.pace, state.overdrawn = pace, units > capacity
end

-- The hits that this time is worth, rounded up, with 20 binary digits.
local function hits_in(wait, pace)
  local mantissa = pace % 16777216
  local digits = 20 - ((pace - mantissa) / 16777216 - 64)
  if mantissa == 0 then
    mantissa = 1
  end
  local rest = wait % mantissa
  local hits = (wait - rest) / mantissa
  for _ = 1, digits do
    hits, rest = hits * 2, rest * 2
    if rest >= mantissa then
      hits, rest = hits + 1, rest - mantissa
    end
    if hits >= MOST then
      return MOST
    end
  end
  for _ = digits, -1 do
    rest = rest + hits % 2
    hits = (hits - hits % 2) / 2
  end
  return rest > 0 and hits + 1 or hits
end

-- The units of so many hits, rounded up; no more than the bucket holds.
local function units_of(hits, capacity, hit_units)
  local part = hits % 1048576
  local whole = (hits - part) / 1048576
  if whole > (capacity - capacity % hit_units) / hit_units then
    return capacity
  end
  local low = hit_units % 1048576
  local units = part * low
  units = (units + -units % 1048576) / 1048576 + part * ((hit_units - low) / 1048576) + whole * hit_units
  return units < capacity and units or capacity
end

-- Brings the state to these numbers, and returns what is missing then.
local function adopt(state, now, capacity, hit_units, unit_rate, pace_and_hold)
  local wait, frac = missing(state, now, unit_rate)
  local full_after = state.frac > 0 and state.tat + 1 - now or state.tat - now
  if full_after <= 0 or capacity == 0 then
    return wait, frac
  end
  local pace, units = (pace_and_hold - pace_and_hold % 2) / 2, nil
  if state.pace ~= pace then
    units = units_of(hits_in(full_after, state.pace), capacity, hit_units)
  else
    local most = state.overdrawn and 2 * capacity or capacity
    if wait <= (most - most % unit_rate) / unit_rate and wait * unit_rate + frac <= most then
      return wait, frac
    end
    units = most
  end
  set(state, now, units, capacity, unit_rate, pace)
  state.adopted = true
  return missing(state, now, unit_rate)
end

algorithms[2] = {
  read = function(value, key)
    if not value then
      return { tat = 0, frac = 0, pace = 0, overdrawn = false }
    end
    if #value ~= 11 and #value ~= 15 then
      foreign(key)
    end
    local tat, pace = struct.unpack("<I7I4", value)
    local overdrawn = pace >= 2147483648
    return {
      tat = tat, frac = #value == 15 and struct.unpack("<I4", value, 12) or 0,
      pace = overdrawn and pace - 2147483648 or pace, overdrawn = overdrawn,
    }
  end,

  decide = function(state, now, hits, capacity, hit_units, unit_rate, pace_and_hold)
    local wait, frac = adopt(state, now, capacity, hit_units, unit_rate, pace_and_hold)
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
      if pace_and_hold % 2 == 1 then
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

  apply = function(state, now, hits, capacity, hit_units, unit_rate, pace_and_hold)
    local wait, frac = adopt(state, now, capacity, hit_units, unit_rate, pace_and_hold)
    local units = wait * unit_rate + frac + hits * hit_units
    set(state, now, units, capacity, unit_rate, (pace_and_hold - pace_and_hold % 2) / 2)
  end,

  debit = function(state, now, hits, capacity, hit_units, unit_rate, pace_and_hold)
    if capacity == 0 then
      return
    end
    local wait, frac = adopt(state, now, capacity, hit_units, unit_rate, pace_and_hold)
    local room = 2 * capacity - wait * unit_rate - frac
    room = (room - room % hit_units) / hit_units
    if room > 0 then
      algorithms[2].apply(
        state, now, hits < room and hits or room, capacity, hit_units, unit_rate, pace_and_hold)
    end
  end,

  refund = function(state, now, hits, capacity, hit_units, unit_rate, pace_and_hold)
    if capacity == 0 then
      return
    end
    local wait, frac = adopt(state, now, capacity, hit_units, unit_rate, pace_and_hold)
    local units = wait * unit_rate + frac
    units = (units < capacity and units or capacity) - hits * hit_units
    set(state, now, units, capacity, unit_rate, (pace_and_hold - pace_and_hold % 2) / 2)
  end,

  -- Before it was to be full again, the bucket has not been full (unless others' refunds have filled it).
  return_to = function(state, now, full_at, hits, capacity, hit_units, unit_rate, pace_and_hold)
    if now < full_at then
      algorithms[2].refund(state, now, hits, capacity, hit_units, unit_rate, pace_and_hold)
    end
  end,

  leases = true,

  write = function(state)
    if state.tat == 0 then
      return nil
    end
    local pace = state.overdrawn and state.pace + 2147483648 or state.pace
    local value = struct.pack("<I7I4", state.tat, pace)
    if state.frac > 0 then
      value = value .. struct.pack("<I4", state.frac)
    end
    return value, state.tat + 1
  end,
}
