-- held: holds that are granted, and settlements that fit, of an open hold or the oldest, as nearly all are: what script.lua and the
-- algorithms' scripts do, written out without a function, since Redis makes each function anew on each call, which costs more than
-- one of these. Not for logs. Stands before all functions, and decides one transaction after the other until one is of another
-- kind or comes to anything else: that one, and all behind it, are left to transaction.lua.
--
-- KEYS, ARGV, Returns: as in call.lua; the value is described in script.lua

local call, pack, unpack_from, sub = redis.call, struct.pack, struct.unpack, string.sub
if not in_words then
  replies = { pack("<d", now) }
end
while replies and at <= #data do
  local count, key_at, limit_at, kind, _, hits, record_at, next_at = unpack_from("<ddddddd", data, at)
  if count ~= 1 or kind < 6 or kind > 7 and kind < 11 then break end
  local number, limit, p2, p3, p4, hold_us = unpack_from("<dddddd", data, LIMITS_AT + (limit_at - 1) * 48)
  -- A log, a calendar, and what says nothing. What has no id is decided alone: a call that fails later is sent again.
  if number == 1 or number == 4 and p3 > 0 or hits == 0 and (kind == 6 or kind == 12) then break end
  if kind >= 11 and #data > 120 then break end
  -- What a hold is worth, where they are counted.
  local each, key = kind >= 11 and record_at or 1, KEYS[key_at]

  -- The holds, the records and the counter, and where in the value each of them ends.
  local value = call("GET", key) or ""
  local mark, kept, newest, sum, head, loose, older_end, records_end = 826820435, 0, 0, 0, 0, 0, 34, 34
  if value ~= "" then
    if #value < 34 then break end
    mark, kept, newest, sum, head, loose, older_end, records_end = unpack_from("<I4I6I6I4I4I6I2I2", value)
    older_end = 34 + older_end
    records_end = older_end + records_end
    if mark ~= 826820435 or #value < records_end then break end
  end
  local counter_len = #value > records_end and #value - records_end or 0

  -- What the counter says of this time: what is left, and when it is as new (0 = it is).
  local left, full_us, used, used_newest, used_head, used_passed, pace = limit, 0, 0, 0, 0, 0, nil
  if number == 4 then
    -- fixed_window: full_us is the end of the window
    full_us = now - now % p2 + p2
    if counter_len == 12 then
      local end_s, count, written = unpack_from("<I5I4I3", value, records_end + 1)
      if written ~= p2 / 1000000 % 16777213 then break end
      if full_us <= end_s * 1000000 then
        full_us, used = end_s * 1000000, count
      end
    elseif counter_len > 0 then
      break
    end
    left = limit - used
  elseif number == 2 then
    -- token_bucket: used is in units
    pace = (p4 - p4 % 2) / 2
    if counter_len == 11 or counter_len == 15 then
      local tat, written = unpack_from("<I7I4", value, records_end + 1)
      local rest = counter_len == 15 and unpack_from("<I4", value, #value - 3) or 0
      if written ~= pace or rest >= p3 then break end
      if tat > now or tat == now and rest > 0 then
        if tat - now > (limit - limit % p3) / p3 then break end
        used = (tat - now) * p3 + rest
        full_us = rest > 0 and tat + 1 or tat
      end
    elseif counter_len > 0 then
      break
    end
    if used > limit then break end
    left = limit - used
    left = (left - left % p2) / p2
  else
    -- sliding_window and concurrency
    local slice = (now - now % p2) / p2
    if counter_len >= 23 then
      local had_us, had
      used_newest, used, used_head, had_us, had = unpack_from("<I6I4I4I7I2", value, records_end + 1)
      if had_us ~= p2 or had ~= p3 or used_head == 0 then break end
      used_passed = slice - used_newest
      if used_passed > p3 then
        used = 0
      elseif used_passed > 0 then
        for at = records_end + 24 + (p3 - used_passed) * 4, #value, 4 do
          used = used - unpack_from("<I4", value, at)
        end
      end
      if used > 0 then
        full_us = (used_newest + p3 + 1) * p2
      end
    elseif counter_len > 0 then
      break
    else
      used_passed = slice
    end
    left = limit - used
  end

  -- What is held at this time.
  local slice = (now - now % hold_us) / hold_us
  local passed = slice - newest
  local open = passed > 32 and 0 or sum
  if passed > 0 and open > 0 then
    for at = 35 + (32 - passed) * 4, older_end, 4 do
      open = open - unpack_from("<I4", value, at)
    end
  end
  if hits > left - (kind == 6 and open or 0) or kind == 11 and left <= open * each then break end

  -- A settlement's record.
  local id, place, own_slice, own = kind < 11 and sub(KEYS[record_at], -12), nil, nil, hits
  -- One that has been made before, or settled.
  if kind == 6 and (string.find(value, id, older_end + 1, true)
    or (loose + 33) * hold_us > now and call("GET", KEYS[record_at])) then break end
  if kind == 7 then
    place = string.find(value, id, older_end + 1, true)
    if place and (place > records_end or (place - older_end) % 22 ~= 1) then break end
    local record = place and sub(value, place + 12, place + 21)
      or (loose + 33) * hold_us > now and call("GET", KEYS[record_at])
    if not record or #record ~= 10 then break end
    own_slice, own = unpack_from("<I6I4", record)
    if own == 0 or own_slice > slice or (own_slice + 33) * hold_us <= now then break end
  end

  -- The holds as they are at this time.
  local expired, older = sum - open, sub(value, 35, older_end)
  if passed > 0 then
    older = open > 0
      and string.rep("\0", passed * 4 - 4) .. pack("<I4", head) .. sub(older, 1, (32 - passed) * 4) or ""
    newest, head = slice, 0
  end
  local first = older_end + 1
  while kind == 6 and records_end - first >= 263 and (unpack_from("<I6", value, first + 12) + 33) * hold_us <= now do
    first = first + 22
  end
  local records, counter = sub(value, first, records_end), sub(value, records_end + 1)
  if kind == 6 then
    open, head = open + own, head + own
    local record = pack("<I6I4", newest, own)
    if #records < 264 then
      records = records .. id .. record
    else
      loose = newest
      local left_us = (newest + 33) * hold_us - now
      call("SET", KEYS[record_at], record, "PX", (left_us + -left_us % 1000) / 1000 + 1 + spare_ms)
    end
  elseif kind == 11 then
    own = left - open * each
    own = each < own and each or own
    open, head = open + 1, head + 1
  else
    if kind == 12 then
      -- The oldest.
      own_slice, own = newest, open > 0 and 1 or 0
      for from = 1, #older - 3, 4 do
        if unpack_from("<I4", older, #older - 2 - from) > 0 then
          own_slice = newest - (#older - from + 1) / 4
          break
        end
      end
    end
    -- The hold leaves its slice.
    local age = newest - own_slice
    if age == 0 then
      own = own < head and own or head
      head = head - own
    elseif age > 0 and age * 4 <= #older then
      local count = unpack_from("<I4", older, age * 4 - 3)
      own = own < count and own or count
      older = sub(older, 1, age * 4 - 4) .. pack("<I4", count - own) .. sub(older, age * 4 + 1)
    else
      own = 0
    end
    open = open - own
    if open == 0 then
      newest, head, older = 0, 0, ""
    end
    if kind == 12 then
      own = own * each
    elseif place then
      place = place - older_end
      records = sub(records, 1, place + 17) .. "\0\0\0\0" .. sub(records, place + 22)
    else
      call("SETRANGE", KEYS[record_at], 6, "\0\0\0\0")
    end
    if hits > 0 and number == 4 then
      used, left = used + hits, left - hits
      counter = pack("<I5I4I3", full_us / 1000000, used, p2 / 1000000 % 16777213)
    elseif hits > 0 and number == 2 then
      used = used + hits * p2
      local rest = used % p3
      full_us = now + (used - rest) / p3
      counter = pack("<I7I4", full_us, pace) .. (rest > 0 and pack("<I4", rest) or "")
      full_us = rest > 0 and full_us + 1 or full_us
      left = limit - used
      left = (left - left % p2) / p2
    elseif hits > 0 then
      local used_older = sub(counter, 24)
      if used_passed > 0 then
        used_older = used > 0 and string.rep("\0", used_passed * 4 - 4) .. pack("<I4", used_head)
          .. sub(used_older, 1, (p3 - used_passed) * 4) or ""
        used_newest, used_head = used_newest + used_passed, 0
      end
      used, used_head, left = used + hits, used_head + hits, left - hits
      counter = pack("<I6I4I4I7I2", used_newest, used, used_head, p2, p3) .. used_older
      full_us = (used_newest + p3 + 1) * p2
    end
  end

  -- See held.save.
  if used == 0 then
    full_us = 0
  end
  local reset_after, ends_us = full_us > now and full_us - now or 0, full_us
  if open > 0 and (newest + 65) * hold_us > ends_us then
    ends_us = (newest + 65) * hold_us
  end
  local ms
  if ends_us > kept * 1000 then
    local left_us = ends_us - now
    kept = ends_us + (left_us - left_us % 8) / 8
    kept = (kept + -kept % 1000) / 1000
    ms = kept - (now - now % 1000) / 1000 + 1 + spare_ms
  end
  value = pack("<I4I6I6I4I4I6I2I2", mark, kept, newest, open, head, loose, #older, #records) .. older .. records
    .. counter
  if ms then
    call("SET", key, value, "PX", ms)
  else
    call("SET", key, value, "KEEPTTL")
  end
  open, expired = open * each, expired * each
  left = left > open and left - open or 0
  replies[#replies + 1] = kind % 5 == 1 and pack("<ddddddddd", 1, left, 0, reset_after, 0, open, own, expired, 0)
    or pack("<dddddddddd", 1, left, 0, reset_after, 0, 0, open, own, expired, 0)
  at = next_at
end
if replies and at > #data then
  return table.concat(replies)
end
