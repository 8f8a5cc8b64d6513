-- Adds counters to the log of resets.
--
-- KEYS    the log: a sorted set of counters' keys by the microsecond of their last reset, each later than the one before
-- ARGV    entries that are kept, milliseconds for which the log is kept, then the counters' keys
-- Returns nothing

local last = redis.call("ZREVRANGE", KEYS[1], 0, 0, "WITHSCORES")
local time = redis.call("TIME")
local at = time[1] * 1000000 + time[2]
-- Also after a failover to a server whose clock is behind: readers ask for what is later than what they know.
if #last > 0 and tonumber(last[2]) >= at then
  at = last[2] + 1
end
for index = 3, #ARGV do
  redis.call("ZADD", KEYS[1], string.format("%.0f", at), ARGV[index])
  at = at + 1
end
redis.call("ZREMRANGEBYRANK", KEYS[1], 0, -1 - ARGV[1])
redis.call("PEXPIRE", KEYS[1], ARGV[2])
