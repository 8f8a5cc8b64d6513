-- What the scripts of all algorithms use: see call.lua.
--
-- KEYS, ARGV, Returns: none of its own.

-- Every number is a whole one below 2^53, up to which doubles are exact. Division is written as Rust means it:
-- (a - a % b) / b rounds down, (a + -a % b) / b rounds up.

-- By position in AlgorithmKind::ALL, from 0; filled in by each algorithm's script.lua. One that is kept as a string has
-- `read` (from the string, or false) and `write` (the string, nil where it says nothing; when that ends; and whether it is
-- only what the stored one begins with); any other has `load` and `save`.
local algorithms = {}
-- Filled in by held/script.lua, where a limit has holds.
local held
local call = redis.call

-- Milliseconds until `at_us`, rounded up, as an expiry: garbage collection only, so a little too long is fine.
local function expiry_ms(at_us, now_us, spare_ms)
  local left_us = at_us - now_us
  if left_us < 0 then
    left_us = 0
  end
  return (left_us + -left_us % 1000) / 1000 + 1 + spare_ms
end

-- A value that no script of ours has written. Nothing has been written by this call yet.
local function foreign(key)
  local text = "WRONGTYPE the value of " .. key .. " is not a counter of sluicegate"
  -- Redis 6.2 and before take no tables.
  error(redis.REDIS_VERSION_NUM and { err = text } or text, 0)
end

-- What stands behind p2 and p3 is for counters with holds.
local function load_counter(main, key, now, p1, p2, own_key, inner, slice_us)
  if main.load then
    return main.load(key, now, p1, p2, own_key, inner, slice_us)
  end
  return main.read(call("GET", key), key)
end

local function save_counter(main, state, key, now, spare_ms, p1, p2, p3, own_key)
  if main.save then
    return main.save(state, key, now, spare_ms, p1, p2, p3, own_key)
  end
  local value, ends_us, in_place = main.write(state)
  if not value then
    call("DEL", key)
  elseif in_place then
    call("SETRANGE", key, 0, value)
  else
    call("SET", key, value, "PX", expiry_ms(ends_us, now, spare_ms))
  end
end
