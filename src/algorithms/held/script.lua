-- held: the same as step.rs, under the same names. Stands after the script of the counter's own algorithm. Here is what one
-- hold or settlement needs, in few functions, since Redis makes all of them anew on each call; the rest is in more.lua.
--
-- KEYS    a counter with its holds: a string <I4 mark, I6 kept (milliseconds, until when Redis keeps it), I6 newest, I4 sum,
--         I4 head (the sum of open holds, as sliding_window's header), I6 loose (the newest slice of a hold whose record is
--         not in here), I2 and I2 bytes of what follows>, then <I4> for each older slice, newest first, then records, oldest
--         first, then the counter as its algorithm writes it. One whose algorithm does not make a string stands apart, and
--         its holds in a key of their own.
--         A record: <12 bytes, the end of the id, I6 slice, I4 hits; 0 = settled>. What has no room among the records has a
--         key of its own: <I6 slice, I4 hits>
-- ARGV    parameters: those of the counter's algorithm, and slice_us of the holds
-- Returns a table of functions for check.lua and transaction.lua

local HOLD_SLICES, RETRY_US, MOST_HELD = 32, 1000000, 4294967295
local MARK, HELD_HEADER, RECORD, ID, MOST_RECORDS = 826820435, 34, 22, 12, 12
held = {}

-- Reads a counter with its holds.
function held.load(key, now, p1, p2, own_key, main, slice_us)
  local apart = main.load
  local value = call("GET", apart and own_key or key)
  if value and #value >= HELD_HEADER then
    local mark, kept, newest, sum, head, loose, older, records = struct.unpack("<I4I6I6I4I4I6I2I2", value)
    older = HELD_HEADER + older
    records = older + records
    if mark == MARK and #value >= records then
      return {
        kept = kept, newest = newest, sum = sum, head = head, loose = loose,
        older = string.sub(value, HELD_HEADER + 1, older), records = string.sub(value, older + 1, records),
        counter = apart and apart(key, now, p1, p2) or main.read(#value > records and string.sub(value, records + 1), key),
        main = main, slice_us = slice_us, expired = 0,
      }
    end
  end
  if apart and value then
    foreign(own_key)
  end
  -- Nothing, or a counter as builds before this wrote it, whose holds are not known any more.
  return {
    kept = 0, newest = 0, sum = 0, head = 0, loose = 0, older = "", records = "",
    counter = apart and apart(key, now, p1, p2) or main.read(value, key),
    main = main, slice_us = slice_us, expired = 0,
  }
end

-- Hits that open holds keep.
local function open_holds(state, now)
  local sum = state.sum
  if sum > 0 then
    local slice_us = state.slice_us
    local passed = (now - now % slice_us) / slice_us - state.newest
    if passed > HOLD_SLICES then
      return 0
    end
    for at = (HOLD_SLICES - passed) * 4 + 1, passed > 0 and #state.older or 0, 4 do
      sum = sum - struct.unpack("<I4", state.older, at)
    end
  end
  return sum
end

-- Lets holds go whose time is over, and makes the slice of `now` the newest one.
local function advance_holds(state, now)
  local slice_us = state.slice_us
  local slice = (now - now % slice_us) / slice_us
  local passed = slice - state.newest
  if passed > 0 then
    if state.sum > 0 then
      local open = open_holds(state, now)
      state.expired = state.expired + state.sum - open
      if open > 0 then
        state.older = string.rep("\0", passed * 4 - 4) .. struct.pack("<I4", state.head)
          .. string.sub(state.older, 1, (HOLD_SLICES - passed) * 4)
      else
        state.older = ""
      end
      state.sum = open
    end
    state.newest, state.head = slice, 0
  end
  state.changed = true
end

-- Where the record of a hold stands among the others.
local function place_of(state, id)
  local at = string.find(state.records, id, 1, true)
  while at and at % RECORD ~= 1 do
    at = string.find(state.records, id, at + 1, true)
  end
  return at
end

-- Reads a hold's record, if there is one that has not ended; nothing is written yet.
function held.record(state, now, key)
  local id = string.sub(key, -ID)
  local record, slice, hits = { id = id, key = key }, nil, nil
  local at = place_of(state, id)
  if at then
    slice, hits = struct.unpack("<I6I4", state.records, at + ID)
  elseif (state.loose + HOLD_SLICES + 1) * state.slice_us > now then
    local value = call("GET", key)
    if value and #value ~= RECORD - ID then
      foreign(key)
    elseif value then
      slice, hits = struct.unpack("<I6I4", value)
      record.loose = true
    end
  end
  if slice and (slice + HOLD_SLICES + 1) * state.slice_us > now then
    record.slice, record.hits = slice, hits
  end
  return record
end

-- Writes a record among the others, or notes that its own key is to be written.
local function put_record(state, record)
  local at = not record.loose and place_of(state, record.id)
  if not at then
    record.changed = true
    return
  end
  local own = struct.pack("<I4", record.hits)
  state.records = string.sub(state.records, 1, at + RECORD - 5) .. own .. string.sub(state.records, at + RECORD)
end

-- A denial of hits that come to `allowed` where there are no holds.
local function denied(allowed, retry_after)
  return allowed == 1 and RETRY_US or retry_after
end

-- What would become of a hold, `before` being the hits that count before it; and what it would keep. One that is open already was
-- asked for in a call that failed, and is granted as it is.
function held.judge(state, now, record, hits, before, p1, p2, p3, p4)
  local decide, counter = state.main.decide, state.counter
  local open = open_holds(state, now) + before
  local _, left, _, reset_after = decide(counter, now, 0, p1, p2, p3, p4)
  state.adopted = counter.adopted
  left = left > open and left - open or 0
  if record.slice and record.hits > 0 then
    return 1, left, 0, reset_after, record.hits
  end
  if hits <= left then
    return 1, left - hits, 0, reset_after, hits
  end
  local allowed, _, retry_after = decide(counter, now, hits, p1, p2, p3, p4)
  if retry_after ~= -1 then
    return 0, left, denied(allowed, retry_after), reset_after, 0
  end
  -- More than the limit could ever admit.
  if open == 0 and left > 0 then
    return 1, 0, 0, reset_after, left
  end
  allowed, _, retry_after = decide(counter, now, 1, p1, p2, p3, p4)
  return 0, left, denied(allowed, retry_after), reset_after, 0
end

-- Adds a record of this slice.
local function put_new_record(state, now, record, slice, hits)
  record.slice, record.hits = slice, hits
  state.remembers_us = (slice + HOLD_SLICES + 1) * state.slice_us
  local value, known = struct.pack("<I6I4", slice, hits), place_of(state, record.id)
  if known then
    -- One that has ended.
    state.records = string.sub(state.records, 1, known + ID - 1) .. value .. string.sub(state.records, known + RECORD)
    return
  end
  local records, first = state.records, 1
  -- Those that have ended make room.
  while #records - first >= MOST_RECORDS * RECORD - 1
    and (struct.unpack("<I6", records, first + ID) + HOLD_SLICES + 1) * state.slice_us <= now do
    first = first + RECORD
  end
  if first > 1 then
    records = string.sub(records, first)
  end
  if #records < MOST_RECORDS * RECORD then
    state.records = records .. record.id .. value
  else
    state.records, record.loose, record.changed, state.loose = records, true, true, slice
  end
end

-- Makes a hold of hits that were allowed, or a larger one of the same request's; of any other id that is known, nothing.
function held.hold(state, now, record, hits)
  advance_holds(state, now)
  if record.slice and not record.adds then
    return
  end
  record.adds = true
  state.sum, state.head = state.sum + hits, state.head + hits
  if record.slice then
    -- The same counter for the second time in one request.
    record.hits = record.hits + hits
    return put_record(state, record)
  end
  put_new_record(state, now, record, state.newest, hits)
end

-- Takes a record's hits out of the sum; what they were.
local function leave(state, now, record)
  advance_holds(state, now)
  local age, given = state.newest - record.slice, 0
  if age == 0 then
    given = record.hits < state.head and record.hits or state.head
    state.head = state.head - given
  elseif age > 0 and age * 4 <= #state.older then
    local at = age * 4 - 3
    local count = struct.unpack("<I4", state.older, at)
    given = record.hits < count and record.hits or count
    state.older = string.sub(state.older, 1, at - 1) .. struct.pack("<I4", count - given) .. string.sub(state.older, at + 4)
  end
  state.sum = state.sum - given
  if state.sum == 0 then
    state.newest, state.head, state.older = 0, 0, ""
  end
  return given
end

-- Removes a record.
local function forget_record(state, record)
  local at = not record.loose and place_of(state, record.id)
  if at then
    state.records = string.sub(state.records, 1, at - 1) .. string.sub(state.records, at + RECORD)
  else
    record.changed = true
  end
  record.slice = nil
end

-- Ends a hold; what it had kept, and whether it had been settled before.
local function finish(state, now, record, forgets)
  if not record.slice and forgets then
    return 0, 0
  end
  if not record.slice then
    -- Its hold may be on its way, or has expired; the same settlement may come again.
    local slice_us = state.slice_us
    local slice = (now - now % slice_us) / slice_us
    put_new_record(state, now, record, slice, 0)
    state.changed = true
    return 0, 0
  end
  if record.hits == 0 then
    return 0, 1
  end
  local own = leave(state, now, record)
  record.hits = 0
  if forgets then
    forget_record(state, record)
  else
    put_record(state, record)
  end
  return own, 0
end

-- Ends a hold and counts hits. Returns whether the hits fit, what is left, when to come again, when the counter is as new,
-- what the hold had kept, whether it had been settled before, and what would have fit if not all did.
function held.settle(state, now, record, hits, p1, p2, p3, p4, forgets)
  local main, counter = state.main, state.counter
  local own, again = finish(state, now, record, forgets)
  if again == 1 then
    hits = 0
  end
  local allowed, left, retry_after, reset_after = main.decide(counter, now, hits, p1, p2, p3, p4)
  local room = 0
  if hits > 0 then
    if allowed == 0 then
      room = left
    end
    main.debit(counter, now, hits, p1, p2, p3, p4)
    state.changed = true
    if allowed == 0 then
      local _
      _, left, _, reset_after = main.decide(counter, now, 0, p1, p2, p3, p4)
    end
  else
    allowed, retry_after = 1, 0
  end
  state.adopted = counter.adopted
  local open = open_holds(state, now)
  return allowed, left > open and left - open or 0, retry_after, reset_after, own, again, room
end

-- Writes a counter with its holds.
function held.save(state, key, now, spare_ms, p1, p2, p3, own_key)
  local main, value, ends_us = state.main, nil, 0
  if main.save then
    main.save(state.counter, key, now, spare_ms, p1, p2, p3)
    key = own_key
  else
    value, ends_us = main.write(state.counter, true)
  end
  local sum = state.sum
  if not value then
    if sum == 0 and state.records == "" and state.loose == 0 then
      return call("DEL", key)
    end
    value, ends_us = "", 0
  end
  if sum > 0 then
    -- For another ttl, so that the next request still hears of holds that nobody has settled.
    local holds_us = (state.newest + HOLD_SLICES * 2 + 1) * state.slice_us
    ends_us = holds_us > ends_us and holds_us or ends_us
  end
  if state.remembers_us and state.remembers_us > ends_us then
    ends_us = state.remembers_us
  end
  local kept, ms = state.kept, nil
  if ends_us > kept * 1000 then
    -- An eighth longer than needed, so that not every write has to say it anew.
    local left = ends_us - now
    kept = ends_us + (left - left % 8) / 8
    kept = (kept + -kept % 1000) / 1000
    ms = expiry_ms(kept * 1000, now, spare_ms)
  end
  value = struct.pack("<I4I6I6I4I4I6I2I2", MARK, kept, state.newest, sum, state.head, state.loose, #state.older,
    #state.records) .. state.older .. state.records .. value
  if ms then
    call("SET", key, value, "PX", ms)
  else
    call("SET", key, value, "KEEPTTL")
  end
end

function held.save_record(record, key, now, spare_ms, slice_us)
  if not record.slice then
    call("DEL", key)
    return
  end
  local ms = expiry_ms((record.slice + HOLD_SLICES + 1) * slice_us, now, spare_ms)
  call("SET", key, struct.pack("<I6I4", record.slice, record.hits), "PX", ms)
end

-- Decides a hold, or a settlement, that is alone in its call. Returns the reply that call.lua describes.
function held.alone(is_hold, now, spare_ms, hits, key, own_key, record_key, main, slice_us, p1, p2, p3, p4)
  local state = held.load(key, now, p1, p2, own_key, main, slice_us)
  local record, reply = held.record(state, now, record_key), nil
  if is_hold then
    local allowed, remaining, retry_after, reset_after, own = held.judge(state, now, record, hits, 0, p1, p2, p3, p4)
    if own > 0 then
      held.hold(state, now, record, own)
    end
    reply = struct.pack("<dddddddddd", now, allowed, remaining, retry_after, reset_after, 0, open_holds(state, now), own,
      state.expired, 0)
  else
    local allowed, remaining, retry_after, reset_after, own, again, room =
      held.settle(state, now, record, hits, p1, p2, p3, p4)
    reply = struct.pack("<ddddddddddd", now, allowed, remaining, retry_after, reset_after, 0, room, open_holds(state, now),
      own, state.expired, again)
  end
  if state.changed or state.adopted then
    held.save(state, key, now, spare_ms, p1, p2, p3, own_key)
  end
  if record.changed then
    held.save_record(record, record_key, now, spare_ms, slice_us)
  end
  return reply
end
