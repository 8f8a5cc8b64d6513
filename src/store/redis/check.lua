-- Decides a check that is alone in its call; transaction.lua decides all others.
--
-- KEYS, ARGV, Returns    as in call.lua

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
  local number, p1, p2, p3, p4, hold_us, _, _, _, kind, _, hits, slice =
    struct.unpack("<ddddddddddddd", data, LIMITS_AT)
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

