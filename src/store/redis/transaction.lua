-- Decides transactions over counters: loads each counter once, decides in order, saves what has changed once. The rules are
-- those of algorithms/transaction/, under the same names. Stands after everything else.
--
-- KEYS, ARGV, Returns    as in call.lua

-- By position in the limits and in KEYS.
local limits, states, changed, records = {}, {}, {}, {}

for index = 1, limit_count do
  local number, p1, p2, p3, p4, hold_us = struct.unpack("<dddddd", data, LIMITS_AT + (index - 1) * 48)
  local main = algorithms[number]
  limits[index] = { p1, p2, p3, p4, main = main, algorithm = hold_us > 0 and held or main, hold_us = hold_us }
end

local function load(key, limit)
  if not states[key] then
    states[key] =
      load_counter(limit.algorithm, KEYS[key], now, limit[1], limit[2], KEYS[key + 1], limit.main, limit.hold_us)
  end
end

local function decide(check, hits)
  local limit = check.limit
  return limit.algorithm.decide(states[check.key], now, hits, limit[1], limit[2], limit[3], limit[4])
end

-- The numbers as they stand after `hits`, in place of the check's own.
local function with_stand_of(check, hits)
  local _
  if check.kind >= HOLD_MEAN then
    local limit = check.limit
    check.remaining, check.reset_after =
      held.stands(states[check.key], now, check.slice, limit[1], limit[2], limit[3], limit[4])
    check.delay = 0
    return
  end
  _, check.remaining, _, check.reset_after = decide(check, hits)
  check.delay, check.granted = 0, 0
end

local function judge_lease(check, before)
  local _
  with_stand_of(check, before)
  if not check.limit.algorithm.leases then
    check.allowed, check.retry_after = 0, -1
    return
  end
  local hits = check.hits < check.remaining and check.hits or check.remaining
  if hits == 0 then
    check.allowed, _, check.retry_after = decide(check, before + 1)
    return
  end
  check.allowed, check.remaining, check.retry_after, check.reset_after, check.delay = decide(check, before + hits)
  check.granted = hits
end

local function judge_hold(check, before)
  local limit, state = check.limit, states[check.key]
  check.delay = 0
  if check.kind == HOLD_MEAN then
    check.allowed, check.remaining, check.retry_after, check.reset_after, check.own =
      held.judge_mean(state, now, check.slice, before, limit[1], limit[2], limit[3], limit[4])
    return
  end
  check.allowed, check.remaining, check.retry_after, check.reset_after, check.own =
    held.judge(state, now, check.record, check.hits, before, limit[1], limit[2], limit[3], limit[4])
end

-- What a check comes to if its transaction passes, `before` being the hits that count before it.
local function judge(check, before)
  if check.kind == LEASE then
    return judge_lease(check, before)
  end
  if check.kind == HOLD or check.kind == HOLD_MEAN then
    return judge_hold(check, before)
  end
  if check.kind ~= ACQUIRE then
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
  if check.kind == ACQUIRE and passes and check.allowed == 1 then
    return check.hits
  end
  if check.kind == LEASE and passes then
    return check.granted
  end
  return 0
end

-- Whether it has happened already.
local function happened(check)
  local kind = check.kind
  return kind == DEBIT or kind == SETTLE or kind == FORCE_HOLD or kind == SETTLE_ONCE or kind == SETTLE_OLDEST
end

-- Ends a hold and counts what has happened in its place.
local function settle(check)
  local limit, state = check.limit, states[check.key]
  local p1, p2, p3, p4 = limit[1], limit[2], limit[3], limit[4]
  changed[check.key] = limit
  if check.kind ~= SETTLE_OLDEST then
    check.allowed, check.remaining, check.retry_after, check.reset_after, check.own, check.again, check.room =
      held.settle(state, now, check.record, check.hits, p1, p2, p3, p4, check.kind == SETTLE_ONCE)
    check.delay = 0
    return
  end
  check.allowed, check.room, check.retry_after = state.main.decide(state.counter, now, check.hits, p1, p2, p3, p4)
  check.own = held.settle_oldest(state, now, check.hits, p1, p2, p3, p4) * check.slice
  if check.hits == 0 then
    check.allowed, check.retry_after = 1, 0
  end
  with_stand_of(check, 0)
end

-- Makes a hold that was granted elsewhere.
local function force_hold(check)
  check.own = held.force_hold(states[check.key], now, check.record, check.hits)
  check.allowed, check.retry_after, check.room = 1, 0, 0
  changed[check.key] = check.limit
  with_stand_of(check, 0)
end

-- Counts what has happened, whatever becomes of the rest.
local function debit(check)
  local limit = check.limit
  check.allowed, check.room, check.retry_after = decide(check, check.hits)
  limit.algorithm.debit(states[check.key], now, check.hits, limit[1], limit[2], limit[3], limit[4])
  changed[check.key] = limit
  with_stand_of(check, 0)
end

-- Takes hits out of the counter, whatever becomes of the rest.
local function free(check)
  local limit, state = check.limit, states[check.key]
  if check.kind == RESET then
    local key, main = KEYS[check.key], limit.main
    if limit.hold_us > 0 and not main.load then
      -- Requests that hold are still under way: their holds stay, to be settled.
      state.counter, changed[check.key] = main.read(false, key), limit
      return
    end
    call("DEL", key)
    if limit.hold_us > 0 then
      state.counter, changed[check.key] = main.load(key, now, limit[1], limit[2]), limit
      return
    end
    states[check.key], changed[check.key] = nil, nil
    load(check.key, limit)
    return
  end
  if check.kind == REFUND then
    limit.algorithm.refund(state, now, check.hits, limit[1], limit[2], limit[3], limit[4])
  elseif check.kind == RELEASE then
    held.release(state, now, check.record)
  else
    limit.algorithm.return_to(state, now, check.slice, check.hits, limit[1], limit[2], limit[3], limit[4], spare_ms)
  end
  changed[check.key] = limit
end

local function frees(check)
  return check.kind == REFUND or check.kind == RETURN or check.kind == RELEASE or check.kind == RESET
end

local function passes_all(checks)
  -- By scope: whether all of its quotas allow.
  local scopes
  for _, check in ipairs(checks) do
    if check.enforcement == ENFORCE and check.allowed == 0 then
      return false
    end
    if check.enforcement >= FIRST_QUOTA then
      scopes = scopes or {}
      scopes[check.enforcement] = scopes[check.enforcement] ~= false and check.allowed == 1
    end
  end
  if not scopes then
    return true
  end
  for _, allowed in pairs(scopes) do
    if allowed then
      return true
    end
  end
  return false
end

local outcomes = replies or { in_words and now or struct.pack("<d", now) }

local function tell(check)
  local extra
  if check.kind == LEASE then
    extra = check.granted
  elseif happened(check) then
    extra = check.allowed == 0 and check.room or 0
  end
  local numbers
  if in_words then
    numbers = { check.allowed, check.remaining, check.retry_after, check.reset_after, check.delay, extra }
  else
    numbers = struct.pack("<ddddd", check.allowed, check.remaining, check.retry_after, check.reset_after, check.delay)
      .. (extra and struct.pack("<d", extra) or "")
  end
  outcomes[#outcomes + 1] = numbers
  if check.limit.hold_us > 0 then
    local state = states[check.key]
    local each = check.kind >= HOLD_MEAN and check.slice or 1
    local open, expired = open_holds(state, now) * each, state.expired * each
    state.expired = 0
    outcomes[#outcomes + 1] = in_words and { open, check.own, expired, check.again }
      or struct.pack("<dddd", open, check.own, expired, check.again)
  end
end

local function run(checks)
  for _, check in ipairs(checks) do
    if check.kind == DEBIT then
      debit(check)
    elseif check.kind == FORCE_HOLD then
      force_hold(check)
    elseif happened(check) then
      settle(check)
    end
  end
  -- By key: the hits that count before the next check of it.
  local prior = {}
  for _, check in ipairs(checks) do
    if not happened(check) then
      check.before = prior[check.key] or 0
      judge(check, check.before)
      prior[check.key] = check.before + counted(check, true) + check.own
    end
  end
  local passes = passes_all(checks)
  for _, check in ipairs(checks) do
    if not passes and not happened(check) and (check.before > 0 or check.allowed == 1) then
      with_stand_of(check, 0)
      check.own = 0
    end
  end
  for _, check in ipairs(checks) do
    if frees(check) then
      free(check)
    end
  end
  for _, check in ipairs(checks) do
    local hits = counted(check, passes)
    if hits > 0 then
      local limit = check.limit
      limit.algorithm.apply(states[check.key], now, hits, limit[1], limit[2], limit[3], limit[4])
      changed[check.key] = limit
    end
    if check.own > 0 and not happened(check) then
      if check.kind == HOLD then
        held.hold(states[check.key], now, check.record, check.own)
      else
        held.hold_mean(states[check.key], now)
      end
      changed[check.key] = check.limit
    end
  end
  for _, check in ipairs(checks) do
    if check.record then
      check.record.adds = nil
    end
    if frees(check) then
      with_stand_of(check, 0)
    end
    -- It may expire later under the new numbers.
    if states[check.key].adopted then
      changed[check.key] = check.limit
    end
    tell(check)
  end
end

-- Decides acquisitions and peeks of different counters, without holds and quotas: all are counted, or none.
local function acquire_all(count)
  local decided, passes = {}, true
  at = at + 8
  for index = 1, count do
    local key, number, _, enforcement, hits, _, next_at = struct.unpack("<dddddd", data, at)
    local limit, state = limits[number], states[key]
    local allowed, remaining, retry_after, reset_after, delay =
      limit.algorithm.decide(state, now, hits, limit[1], limit[2], limit[3], limit[4])
    passes = passes and (allowed == 1 or enforcement ~= ENFORCE)
    decided[index] = { key, limit, hits, allowed, remaining, retry_after, reset_after, delay }
    at = next_at
  end
  for index = 1, count do
    local key, limit, hits, allowed, remaining, retry_after, reset_after, delay = unpack(decided[index])
    local state, _ = states[key], nil
    if allowed == 1 then
      if not passes then
        _, remaining, _, reset_after = limit.algorithm.decide(state, now, 0, limit[1], limit[2], limit[3], limit[4])
        delay = 0
      elseif hits > 0 then
        limit.algorithm.apply(state, now, hits, limit[1], limit[2], limit[3], limit[4])
        changed[key] = limit
      end
    end
    if state.adopted then
      changed[key] = limit
    end
    outcomes[#outcomes + 1] = in_words and { allowed, remaining, retry_after, reset_after, delay }
      or struct.pack("<ddddd", allowed, remaining, retry_after, reset_after, delay)
  end
end

-- All states are read before the first is changed: a value that is not ours stops the call while nothing is written, but for what
-- held/quick.lua has decided. The parts of such a call are sent again, and it decides only what has an id, of which a second time does
-- nothing.
local first = at
while at <= #data do
  local count
  count, at = struct.unpack("<d", data, at)
  for _ = 1, math.abs(count) do
    local key, limit, kind, _, _, slice = struct.unpack("<dddddd", data, at)
    load(key, limits[limit])
    if kind >= HOLD and kind < HOLD_MEAN and not records[slice] then
      records[slice] = held.record(states[key], now, KEYS[slice])
      records[slice].hold_us = limits[limit].hold_us
    end
    at = at + 48
  end
end

at = first
while at <= #data do
  local count, key, limit, kind, _, hits, _, next_at = struct.unpack("<ddddddd", data, at)
  if count == 1 and kind == ACQUIRE and limits[limit].hold_us == 0 then
    limit, at = limits[limit], next_at
    local allowed, remaining, retry_after, reset_after, delay, counts =
      acquire(limit.algorithm, states[key], hits, limit[1], limit[2], limit[3], limit[4])
    if counts then
      changed[key] = limit
    end
    outcomes[#outcomes + 1] = in_words and { allowed, remaining, retry_after, reset_after, delay }
      or struct.pack("<ddddd", allowed, remaining, retry_after, reset_after, delay)
  elseif count < 0 then
    acquire_all(-count)
  else
    local checks = {}
    at = at + 8
    for index = 1, count do
      local enforcement, slice
      key, limit, kind, enforcement, hits, slice, at = struct.unpack("<dddddd", data, at)
      checks[index] = {
        key = key, limit = limits[limit], kind = kind, enforcement = enforcement, hits = hits, slice = slice, granted = 0,
        own = 0, again = 0, record = kind >= HOLD and kind < HOLD_MEAN and records[slice] or nil,
      }
    end
    run(checks)
  end
end

for key, limit in pairs(changed) do
  save_counter(limit.algorithm, states[key], KEYS[key], now, spare_ms, limit[1], limit[2], limit[3], KEYS[key + 1])
end
for key, record in pairs(records) do
  if record.changed then
    held.save_record(record, KEYS[key], now, spare_ms, record.hold_us)
  end
end

if in_words then
  return outcomes
end
return table.concat(outcomes)
