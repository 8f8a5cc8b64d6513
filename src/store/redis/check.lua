-- Reads what a call asks for, and decides a check that is alone in it; transaction.lua decides all others.
--
-- A script is prelude.lua, then script.lua of each algorithm that the call needs (sliding_window's before concurrency's,
-- token_bucket's before leaky_bucket's), this file, and transaction.lua. Where a limit has holds, held/script.lua stands before
-- this file, held/more.lua behind it, and held/quick.lua before everything. By hand, one hit on a sliding window of 10 in 60 s
-- (the numbers as words; the reply is then a list of integers):
--   cat src/store/redis/prelude.lua src/algorithms/sliding_window/script.lua src/store/redis/{check,transaction}.lua > /tmp/c.lua
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

local now, limit_count, at = struct.unpack("<dd", data)
-- Virtual time may stand still while Redis' own does not, so its counters are kept longer.
local spare_ms = 3600000
if now == 0 then
  local time = call("TIME")
  now, spare_ms = time[1] * 1000000 + time[2], 0
end

local ACQUIRE, REFUND, LEASE, RETURN, DEBIT, RESET, HOLD, SETTLE, RELEASE, FORCE_HOLD = 0, 1, 2, 3, 4, 5, 6, 7, 8, 9
local SETTLE_ONCE, HOLD_MEAN, SETTLE_OLDEST = 10, 11, 12
local ENFORCE, FIRST_QUOTA = 0, 2

-- Decides an acquisition or peek that is alone in its transaction, so that there is nothing to be weighed against it.
-- Returns its numbers, and whether the state has to be saved.
local function acquire(algorithm, state, hits, p1, p2, p3, p4)
  local allowed, remaining, retry_after, reset_after, delay = algorithm.decide(state, now, hits, p1, p2, p3, p4)
  local counts = hits > 0 and allowed == 1
  if counts then
    algorithm.apply(state, now, hits, p1, p2, p3, p4)
  end
  return allowed, remaining, retry_after, reset_after, delay, counts or state.adopted
end

-- The commonest call is one such check.
if #data == 120 then
  local number, p1, p2, p3, p4, hold_us, _, _, _, kind, _, hits, slice = struct.unpack("<ddddddddddddd", data, at)
  if (kind == HOLD or kind == SETTLE) and not in_words then
    return held.alone(kind == HOLD, now, spare_ms, hits, KEYS[1], KEYS[2], KEYS[slice], algorithms[number], hold_us,
      p1, p2, p3, p4)
  end
  if kind == ACQUIRE and hold_us == 0 then
    local algorithm, key = algorithms[number], KEYS[1]
    local state = load_counter(algorithm, key, now, p1, p2)
    local allowed, remaining, retry_after, reset_after, delay, changed =
      acquire(algorithm, state, hits, p1, p2, p3, p4)
    if changed then
      save_counter(algorithm, state, key, now, spare_ms, p1, p2, p3)
    end
    if in_words then
      return { now, allowed, remaining, retry_after, reset_after, delay }
    end
    return struct.pack("<dddddd", now, allowed, remaining, retry_after, reset_after, delay)
  end
end

