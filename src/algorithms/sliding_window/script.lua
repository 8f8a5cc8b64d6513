-- sliding_window: the same as step.rs, under the same names.
--
-- KEYS    one counter: a string of header <I6 newest, I4 sum, I4 head, I7 slice_us, I2 slices>, then <I4> for each older
--         slice that is known, newest first (slices beyond its end are empty)
-- ARGV    parameters: limit, slice_us, slices (see call.lua)
-- Returns a table of functions for check.lua
--
-- As long as the slice stays the same, a commit rewrites the header's counts in place, which keeps the expiry.

local HEADER = 23

-- Hits of the slice `age` slices before the newest one.
local function older(state, age)
  return (struct.unpack("<I4", state.older, state.skip + age * 4 - 3))
end

-- How many older slices are known and still count when `passed` new ones have begun.
local function known(state, passed, slices)
  local ages = (#state.older - state.skip) / 4
  if ages > slices - passed then
    return slices - passed
  end
  return ages
end

-- Hits that count when the slice is `passed` slices after the newest one.
local function counted(state, passed, slices)
  if passed > slices then
    return 0
  end
  local sum = state.sum
  for age = known(state, passed, slices) + 1, (#state.older - state.skip) / 4 do
    sum = sum - older(state, age)
  end
  return sum
end

-- When the quota is whole again; 0 if it is.
local function full_at_us(state, passed, slice_us, slices)
  if passed > slices then
    return 0
  end
  if state.head > 0 then
    return (state.newest + slices + 1) * slice_us
  end
  for age = 1, known(state, passed, slices) do
    if older(state, age) > 0 then
      return (state.newest - age + slices + 1) * slice_us
    end
  end
  return 0
end

-- When `excess` of the counted hits will have left.
local function freed_at_us(state, passed, excess, slice_us, slices)
  local freed = 0
  for age = known(state, passed, slices), 1, -1 do
    freed = freed + older(state, age)
    if freed >= excess then
      return (state.newest - age + slices + 1) * slice_us
    end
  end
  return (state.newest + slices + 1) * slice_us
end

-- Makes the slice of `now` the newest one.
local function advance(state, now, slice_us, slices)
  local slice = (now - now % slice_us) / slice_us
  local passed = slice - state.newest
  if state.sum == 0 then
    state.slice_us, state.slices = slice_us, slices
  end
  if passed <= 0 then
    return
  end
  if passed > slices or state.sum == 0 then
    state.sum, state.older = 0, ""
  else
    local first = state.skip + 1
    local kept = string.sub(state.older, first, state.skip + known(state, passed, slices) * 4)
    state.sum = counted(state, passed, slices)
    state.older = string.rep("\0", passed * 4 - 4) .. struct.pack("<I4", state.head) .. kept
  end
  state.newest, state.head, state.skip, state.in_place = slice, 0, 0, false
end

-- Makes the state an unused one.
local function clear(state)
  state.newest, state.sum, state.head, state.older, state.skip, state.in_place = 0, 0, 0, "", 0, false
end

-- Cuts the slices of a state anew that was written under other parameters: hits that still count go into the last slice
-- in which they can have been counted.
local function adopt(state, now, slice_us, slices)
  local had_us, had = state.slice_us, state.slices
  if state.sum == 0 or (had_us == slice_us and had == slices) then
    return
  end
  state.adopted = true
  local passed = (now - now % had_us) / had_us - state.newest
  if passed < 0 then
    passed = 0
  elseif passed > had then
    return clear(state)
  end
  local function latest(slice)
    local start = slice * had_us
    local at = start + had_us - 1
    if at > now then
      at = now > start and now or start
    end
    return (at - at % slice_us) / slice_us
  end
  local newest, sum, head, counts, last = latest(state.newest), state.head, state.head, {}, 0
  for age = 1, known(state, passed, had) do
    local count = older(state, age)
    local aged = count > 0 and newest - latest(state.newest - age) or 0
    if count > 0 and aged <= slices then
      sum = sum + count
      if aged == 0 then
        head = head + count
      else
        counts[aged], last = (counts[aged] or 0) + count, aged
      end
    end
  end
  if sum == 0 then
    return clear(state)
  end
  for age = 1, last do
    counts[age] = struct.pack("<I4", counts[age] or 0)
  end
  state.newest, state.sum, state.head, state.older, state.skip = newest, sum, head, table.concat(counts, "", 1, last), 0
  state.slice_us, state.slices, state.in_place = slice_us, slices, false
end

algorithms[0] = {
  read = function(value, key)
    if not value then
      -- skip: bytes of `older` before the first older slice; in_place: only the header has to be written
      return { newest = 0, sum = 0, head = 0, older = "", skip = 0, in_place = false }
    end
    if #value < HEADER or #value % 4 ~= HEADER % 4 then
      foreign(key)
    end
    local newest, sum, head, slice_us, slices = struct.unpack("<I6I4I4I7I2", value)
    return {
      newest = newest, sum = sum, head = head, slice_us = slice_us, slices = slices, older = value, skip = HEADER,
      in_place = true,
    }
  end,

  decide = function(state, now, hits, limit, slice_us, slices)
    adopt(state, now, slice_us, slices)
    local slice = (now - now % slice_us) / slice_us
    local passed = slice - state.newest
    local sum = state.sum
    if passed > 0 then
      sum = counted(state, passed, slices)
    elseif passed < 0 then
      slice, passed = state.newest, 0
    end
    local left = limit - sum
    if left < 0 then
      left = 0
    end
    if hits > 0 and hits <= left then
      return 1, left - hits, 0, (slice + slices + 1) * slice_us - now, 0
    end
    local reset_after = full_at_us(state, passed, slice_us, slices) - now
    if reset_after < 0 then
      reset_after = 0
    end
    local wanted = hits > 0 and hits or 1
    if wanted <= left then
      return 1, left, 0, reset_after, 0
    end
    if wanted > limit then
      return 0, left, -1, reset_after, 0
    end
    return 0, left, freed_at_us(state, passed, sum + wanted - limit, slice_us, slices) - now, reset_after, 0
  end,

  apply = function(state, now, hits, _, slice_us, slices)
    adopt(state, now, slice_us, slices)
    advance(state, now, slice_us, slices)
    state.sum = state.sum + hits
    state.head = state.head + hits
  end,

  debit = function(state, now, hits, limit, slice_us, slices)
    adopt(state, now, slice_us, slices)
    advance(state, now, slice_us, slices)
    local room = 4294967295 - state.sum
    algorithms[0].apply(state, now, hits < room and hits or room, limit, slice_us, slices)
  end,

  refund = function(state, now, hits, _, slice_us, slices)
    adopt(state, now, slice_us, slices)
    advance(state, now, slice_us, slices)
    local left = hits < state.sum and hits or state.sum
    state.sum, state.in_place = state.sum - left, false
    if state.sum == 0 then
      clear(state)
      return
    end
    local counts = {}
    for age = (#state.older - state.skip) / 4, 1, -1 do
      local count = older(state, age)
      local taken = left < count and left or count
      left = left - taken
      counts[age] = struct.pack("<I4", count - taken)
    end
    state.older, state.skip = table.concat(counts), 0
    state.head = state.head - left
  end,

  return_to = function(state, now, slice, hits, _, slice_us, slices)
    adopt(state, now, slice_us, slices)
    advance(state, now, slice_us, slices)
    local age = state.newest - slice
    if age == 0 then
      local given = hits < state.head and hits or state.head
      state.head, state.sum = state.head - given, state.sum - given
    elseif age > 0 and age <= known(state, 0, slices) then
      local count = older(state, age)
      local given = hits < count and hits or count
      local before = state.skip + age * 4 - 4
      local changed = struct.pack("<I4", count - given)
      state.older = string.sub(state.older, 1, before) .. changed .. string.sub(state.older, before + 5)
      state.sum, state.in_place = state.sum - given, false
    end
    if state.sum == 0 then
      clear(state)
    end
  end,

  leases = true,

  write = function(state, whole)
    if state.sum == 0 then
      return nil
    end
    if state.in_place and not whole then
      return struct.pack("<I6I4I4", state.newest, state.sum, state.head), 0, true
    end
    local header = struct.pack("<I6I4I4I7I2", state.newest, state.sum, state.head, state.slice_us, state.slices)
    return header .. string.sub(state.older, state.skip + 1), (state.newest + state.slices + 1) * state.slice_us
  end,
}
