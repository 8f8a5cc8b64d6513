-- Decides transactions over counters: loads each counter once, decides in order, saves what has changed once.
-- The rules are those of algorithms/transaction.rs, under the same names.
--
-- A script is prelude.lua, then script.lua of each algorithm that the call needs (sliding_window's before
-- concurrency's, token_bucket's before leaky_bucket's), then this file. By hand, one hit on a sliding window of 10 in
-- 60 s (the numbers as words; the reply is then a list of integers):
--   cat src/store/redis/prelude.lua src/algorithms/sliding_window/script.lua src/store/redis/check.lua > /tmp/c.lua
--   redis-cli --eval /tmp/c.lua my-key , 0 1  0 10 1875000 32 0  1  1 1 0 0 1 0
--
-- KEYS    the counters, each once; of one slot under Redis Cluster
-- ARGV    one string of little-endian doubles (or several words), in this order:
--           now_us    virtual time in microseconds, for tests; 0 = this server's clock
--           limits    how many limits follow; for each:
--             number of its algorithm, and its four parameters (0 where it has fewer)
--           then to the end, for each transaction: how many checks, and for each check:
--             key     position in KEYS, from 1
--             limit   position in the limits, from 1
--             kind    0 take, 1 give, 2 lease, 3 return, 4 charge
--             gate    0 enforce, 1 quota, 2 observe
--             hits    a take of 0 is a peek
--             slice   of a return; else 0
-- Returns one string of little-endian doubles (or a list of integers), for each check in order:
--           allowed 0 or 1, remaining, retry_after_us (0 now, -1 never), reset_after_us, delay_us,
--           and of a lease also: hits granted, slice, microseconds left in it (-1 no end);
--           of a charge also: its hits that would have been admitted, if not all would (0 if so)

local data, in_words = ARGV[1], #ARGV > 1
if in_words then
  data = struct.pack("<" .. string.rep("d", #ARGV), unpack(ARGV))
end

local now, limit_count, at = struct.unpack("<dd", data)
-- Virtual time may stand still while Redis' own does not, so its counters are kept longer.
local spare_ms = 3600000
if now == 0 then
  local time = call("TIME")
  now, spare_ms = time[1] * 1000000 + time[2], 0
end

-- The common case: one take or peek. There is nothing to be weighed against it.
if #data == 112 then
  local number, p1, p2, p3, p4, _, _, _, kind, _, hits = struct.unpack("<ddddddddddd", data, at)
  if kind == 0 then
    local algorithm, key = algorithms[number], KEYS[1]
    local state = algorithm.load(key, now, p1, p2)
    local allowed, remaining, retry_after, reset_after, delay = algorithm.decide(state, now, hits, p1, p2, p3, p4)
    if hits > 0 and allowed == 1 then
      algorithm.apply(state, now, hits, p1, p2, p3)
      algorithm.save(state, key, now, spare_ms, p1, p2, p3)
    end
    if in_words then
      return { allowed, remaining, retry_after, reset_after, delay }
    end
    return struct.pack("<ddddd", allowed, remaining, retry_after, reset_after, delay)
  end
end

local TAKE, GIVE, LEASE, CHARGE = 0, 1, 2, 4
local ENFORCE, QUOTA = 0, 1

-- By position in the limits and in KEYS.
local limits, states, changed, prior = {}, {}, {}, {}

for index = 1, limit_count do
  local number, p1, p2, p3, p4, next_at = struct.unpack("<ddddd", data, at)
  limits[index], at = { number = number, p1, p2, p3, p4, algorithm = algorithms[number] }, next_at
end

local function state_of(check)
  local state = states[check.key]
  if not state then
    state = check.limit.algorithm.load(KEYS[check.key], now, check.limit[1], check.limit[2])
    states[check.key] = state
  end
  return state
end

local function decide(check, hits)
  local limit = check.limit
  return limit.algorithm.decide(state_of(check), now, hits, limit[1], limit[2], limit[3], limit[4])
end

-- The numbers as they stand after `hits`, in place of the check's own.
local function with_stand_of(check, hits)
  local _
  _, check.remaining, _, check.reset_after = decide(check, hits)
  check.delay, check.granted = 0, 0
end

local function judge_lease(check, before)
  local limit = check.limit
  with_stand_of(check, before)
  if not limit.algorithm.lease then
    check.allowed, check.retry_after = 0, -1
    return
  end
  local hits = check.hits < check.remaining and check.hits or check.remaining
  if hits == 0 then
    local _
    check.allowed, _, check.retry_after = decide(check, before + 1)
    return
  end
  check.allowed, check.remaining, check.retry_after, check.reset_after, check.delay = decide(check, before + hits)
  check.granted = hits
  check.slice, check.left = limit.algorithm.lease(state_of(check), now, limit[1], limit[2])
end

-- What a check comes to if its transaction passes, `before` being the hits that count before it.
local function judge(check, before)
  if check.kind == LEASE then
    return judge_lease(check, before)
  end
  if check.kind ~= TAKE then
    with_stand_of(check, 0)
    check.allowed, check.retry_after = 1, 0
    return
  end
  local hits = check.hits
  if before > 0 then
    hits = before + (hits > 0 and hits or 1)
  end
  check.allowed, check.remaining, check.retry_after, check.reset_after, check.delay = decide(check, hits)
  if before > 0 and not (check.hits > 0 and check.allowed == 1) then
    with_stand_of(check, before)
  end
end

-- Hits that a check adds to its counter.
local function counted(check, passes)
  if check.kind == TAKE and passes and check.allowed == 1 then
    return check.hits
  end
  if check.kind == LEASE and passes then
    return check.granted
  end
  return 0
end

local function commit(check, passes)
  local limit, state = check.limit, state_of(check)
  if check.kind == TAKE or check.kind == LEASE then
    limit.algorithm.apply(state, now, counted(check, passes), limit[1], limit[2], limit[3])
  elseif check.kind == GIVE then
    limit.algorithm.give(state, now, check.hits, limit[1], limit[2], limit[3])
  elseif limit.algorithm.give_to then
    limit.algorithm.give_to(state, now, check.slice, check.hits, limit[1], limit[2], limit[3])
  end
  if check.kind ~= TAKE and check.kind ~= LEASE then
    with_stand_of(check, 0)
  end
  changed[check.key] = limit
end

-- Counts what has happened, whatever becomes of the rest.
local function charge(check)
  local limit, state = check.limit, state_of(check)
  check.allowed, check.room, check.retry_after = decide(check, check.hits)
  limit.algorithm.charge(state, now, check.hits, limit[1], limit[2], limit[3])
  with_stand_of(check, 0)
  changed[check.key] = limit
end

local function passes_all(checks)
  local quota, quota_over = 0, 0
  for _, check in ipairs(checks) do
    if check.gate == ENFORCE and check.allowed == 0 then
      return false
    end
    if check.gate == QUOTA then
      quota = quota + 1
      quota_over = quota_over + 1 - check.allowed
    end
  end
  return quota == 0 or quota_over < quota
end

local outcomes = {}

local function tell(check)
  local numbers = { check.allowed, check.remaining, check.retry_after, check.reset_after, check.delay }
  if check.kind == LEASE then
    local granted = check.granted > 0
    numbers[6], numbers[7], numbers[8] = check.granted, granted and check.slice or 0, granted and check.left or 0
  end
  if check.kind == CHARGE then
    numbers[6] = check.allowed == 0 and check.room or 0
  end
  if not in_words then
    numbers = struct.pack("<" .. string.rep("d", #numbers), unpack(numbers))
  end
  outcomes[#outcomes + 1] = numbers
end

local function run(checks)
  for key in pairs(prior) do
    prior[key] = nil
  end
  for _, check in ipairs(checks) do
    if check.kind == CHARGE then
      charge(check)
    end
  end
  for _, check in ipairs(checks) do
    if check.kind ~= CHARGE then
      check.before = prior[check.key] or 0
      judge(check, check.before)
      prior[check.key] = check.before + counted(check, true)
    end
  end
  local passes = passes_all(checks)
  for _, check in ipairs(checks) do
    if check.kind ~= CHARGE then
      local counts = counted(check, passes) > 0
      if counts or passes and check.kind ~= TAKE and check.kind ~= LEASE then
        commit(check, passes)
      elseif not passes and (check.before > 0 or check.allowed == 1) then
        with_stand_of(check, 0)
      end
    end
    tell(check)
  end
end

while at <= #data do
  local count
  count, at = struct.unpack("<d", data, at)
  local checks = {}
  for index = 1, count do
    local key, limit, kind, gate, hits, slice, next_at = struct.unpack("<dddddd", data, at)
    checks[index] = { key = key, limit = limits[limit], kind = kind, gate = gate, hits = hits, slice = slice, granted = 0 }
    at = next_at
  end
  run(checks)
end

for key, limit in pairs(changed) do
  limit.algorithm.save(states[key], KEYS[key], now, spare_ms, limit[1], limit[2], limit[3])
end

if in_words then
  return outcomes
end
return table.concat(outcomes)
