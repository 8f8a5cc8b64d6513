-- Stands before everything else of a script: see check.lua.
--
-- KEYS, ARGV, Returns: none of its own.

-- Every number is a whole one below 2^53, up to which doubles are exact. Division is written as Rust means it:
-- (a - a % b) / b rounds down, (a + -a % b) / b rounds up.

-- By position in AlgorithmKind::ALL, from 0; filled in by each algorithm's script.lua.
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
  error({ err = "WRONGTYPE the value of " .. key .. " is not a counter of sluicegate" })
end
