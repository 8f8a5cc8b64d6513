-- Reads what a call asks for. Stands before everything else of a script.
--
-- A script is this file, prelude.lua, script.lua of each algorithm that the call needs (sliding_window's before concurrency's,
-- token_bucket's before leaky_bucket's), check.lua, and transaction.lua. Where a limit has holds, held/quick.lua stands behind this
-- file, held/script.lua before check.lua, and held/more.lua behind it. By hand, one hit on a sliding window of 10 in 60 s (the
-- numbers as words; the reply is then a list of integers):
--   (cd src/store/redis; cat call.lua prelude.lua ../../algorithms/sliding_window/script.lua check.lua transaction.lua) > /tmp/c.lua
--   redis-cli --eval /tmp/c.lua my-key , 0 1  0 10 1875000 32 0 0  1  1 1 0 0 1 0
--
-- KEYS    the counters, each once, behind a log with holds the key of these; and records of holds. Under Redis Cluster they are of
--         one slot; a call to several slots of a node declares none, since the node would refuse it
-- ARGV    ARGV[2] and the following: the keys, where KEYS is empty
--         ARGV[1]: one string of little-endian doubles (or several words), in this order:
--           now_us    virtual time in microseconds, for tests; 0 = this server's clock
--           limits    how many limits follow; for each:
--             number of its algorithm, its four parameters (0 where it has fewer), and slice_us of its holds (0 = none)
--           then to the end, for each transaction: how many checks (negative where all of them are acquisitions or peeks of
--           different counters, without holds and quotas), and for each check:
--             key     position in KEYS, from 1
--             limit   position in the limits, from 1
--             kind    0 acquire, 1 refund, 2 lease, 3 return, 4 debit, 5 reset, 6 hold, 7 settle, 8 release, 9 force hold,
--                     10 settle once, 11 hold mean, 12 settle oldest
--             enforcement    0 enforce, 1 shadow, 2 + n quota of the scope n
--             hits    an acquisition of 0 is a peek
--             slice   of a return; of what names a hold the position of its record in KEYS; of the last two kinds
--                     what a hold is worth; else 0
-- Returns one string of little-endian doubles (or a list of integers): now_us, then for each check in order
--           allowed 0 or 1, remaining, retry_after_us (0 now, -1 never), reset_after_us, delay_us,
--           and of a lease also: hits granted;
--           of a debit, settlement or forced hold also: its hits that would have been admitted, if not all would (0 if so),
--           where the limit has holds also: hits of open holds, own hits (which a hold keeps, or had kept when it was
--           settled), hits of holds that have expired, and whether it had been settled before

local KEYS, data, in_words = KEYS, ARGV[1], #ARGV > 1
if in_words and #KEYS == 0 then
  KEYS, in_words = { unpack(ARGV, 2) }, false
elseif in_words then
  data = struct.pack("<" .. string.rep("d", #ARGV), unpack(ARGV))
end

local now, limit_count, LIMITS_AT = struct.unpack("<dd", data)
-- Virtual time may stand still while Redis' own does not, so its counters are kept longer.
local spare_ms = 3600000
if now == 0 then
  local time = redis.call("TIME")
  now, spare_ms = time[1] * 1000000 + time[2], 0
end
-- The replies to what held/quick.lua has decided, and where what is still to be decided begins.
local replies, at = nil, LIMITS_AT + limit_count * 48
