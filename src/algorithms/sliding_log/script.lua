-- sliding_log: the same as step.rs, under the same names.
--
-- KEYS    one counter: a sorted set, score = microseconds, member = >I6 total of all hits up to and with these,
--         I3 hits; big-endian, so that members of one score stand in order
-- ARGV    parameters: limit, window_us
-- Returns a table of functions for check.lua

-- Entries that have left the window are removed, and the expiry is renewed, once in this part of a window.
local PARTS = 64

-- Hits in a window that are kept at most: what I3 has room for, and more than any limit.
local MOST = 16777215

-- Entries that a return rewrites at most.
local MOST_MOVED = 1024

-- An entry's total, the total before it, and its time.
local function entry(key, reply)
  if #reply[1] ~= 9 then
    foreign(key)
  end
  local total, hits = struct.unpack(">I6I3", reply[1])
  return total, total - hits, tonumber(reply[2])
end

-- The first entry in the window whose total is at least `total`: its time, rank, total, and the total before it.
local function search(state, key, total)
  local low = call("ZRANK", key, state.first)
  -- Each entry is of one hit at least, so it is no further away than the hits between.
  local high = low
  if total > state.first_total then
    high = math.min(low + total - state.first_total, call("ZCARD", key) - 1)
  end
  while low < high do
    local middle = (low + high - (low + high) % 2) / 2
    if entry(key, call("ZRANGE", key, middle, middle)) < total then
      low = middle + 1
    else
      high = middle
    end
  end
  local found, before, at = entry(key, call("ZRANGE", key, low, low, "WITHSCORES"))
  return at, low, found, before
end

algorithms[1] = {
  load = function(key, now, _, window_us)
    local last = call("ZREVRANGE", key, 0, 0, "WITHSCORES")
    if #last == 0 then
      -- stored: total of what is in Redis; added: hits since; given: hits were refunded; renew: the expiry was lost
      return {
        last = 0, total = 0, before = 0, stored = 0, stored_last = -1, added = 0, given = false, renew = false, key = key,
      }
    end
    local total, _, at = entry(key, last)
    local state = {
      last = at, total = total, before = total, stored = total, stored_last = at, added = 0, given = false, renew = false,
      key = key,
    }
    if at < now then
      at = now
    end
    if state.last + window_us > at then
      local from = string.format("(%.0f", at - window_us)
      local first = call("ZRANGEBYSCORE", key, from, "+inf", "WITHSCORES", "LIMIT", 0, 1)
      state.first = first[1]
      state.first_total, state.before, state.first_at = entry(key, first)
    end
    return state
  end,

  decide = function(state, now, hits, limit, window_us)
    local at = now > state.last and now or state.last
    local used = state.total - state.before
    local left = limit - used
    if left < 0 then
      left = 0
    end
    if hits > 0 and hits <= left then
      return 1, left - hits, 0, at + window_us - now, 0
    end
    local reset_after = used > 0 and state.last + window_us - now or 0
    local wanted = hits > 0 and hits or 1
    if wanted <= left then
      return 1, left, 0, reset_after, 0
    end
    if wanted > limit then
      return 0, left, -1, reset_after, 0
    end
    -- The request fits once the window has left behind all hits up to this total.
    local until_total = state.total + wanted - limit
    local until_at = state.last
    if until_total <= state.stored then
      if until_total <= state.first_total then
        until_at = state.first_at
      else
        until_at = search(state, state.key, until_total)
      end
    end
    return 0, left, until_at + window_us - now, reset_after, 0
  end,

  apply = function(state, now, hits)
    if state.last < now then
      state.last = now
    end
    state.total = state.total + hits
    state.added = state.added + hits
  end,

  debit = function(state, now, hits)
    local room = MOST - (state.total - state.before)
    if room > 0 then
      algorithms[1].apply(state, now, hits < room and hits or room)
    end
  end,

  refund = function(state, _, hits)
    local used = state.total - state.before
    state.before = state.before + (hits < used and hits or used)
    state.given = true
    if state.before == state.total then
      state.last = 0
    end
  end,

  return_to = function(state, now, at, hits, limit, window_us, _, _, spare_ms)
    local log, key = algorithms[1], state.key
    -- What this call has changed before is written first, so that the set is whole.
    log.save(state, key, now, spare_ms, limit, window_us)
    local function reload()
      local stored = log.load(key, now, limit, window_us)
      for name in pairs(state) do
        state[name] = nil
      end
      for name, value in pairs(stored) do
        state[name] = value
      end
    end
    reload()
    local newest = now > state.last and now or state.last
    local first = call("ZRANGEBYSCORE", key, at, at, "LIMIT", 0, 1)[1]
    if not first or at + window_us <= newest then
      return
    end
    local rank = call("ZRANK", key, first)
    if call("ZCARD", key) - rank > MOST_MOVED then
      return
    end
    local stored, moved, given = call("ZRANGE", key, rank, -1, "WITHSCORES"), {}, 0
    for index = 1, #stored, 2 do
      local total, before, score = entry(key, { stored[index], stored[index + 1] })
      local own = total - before
      if score == at then
        local taken = hits - given < own and hits - given or own
        own, given = own - taken, given + taken
      end
      if own > 0 then
        moved[#moved + 1], moved[#moved + 2] = score, struct.pack(">I6I3", total - given, own)
      end
    end
    call("ZREMRANGEBYRANK", key, rank, -1)
    -- What has left the window does not count again when the newest entry is gone and the clock goes back.
    call("ZREMRANGEBYSCORE", key, "-inf", newest - window_us)
    if #moved > 0 then
      call("ZADD", key, unpack(moved))
    end
    reload()
    state.renew = true
  end,

  save = function(state, key, now, spare_ms, _, window_us)
    local part = (window_us + -window_us % PARTS) / PARTS
    local renew = state.renew or state.given or state.stored_last < 0
      or state.last - state.last % part ~= state.stored_last - state.stored_last % part
    if state.given and state.stored_last >= 0 then
      if state.before >= state.stored then
        call("DEL", key)
      else
        local at, rank, total, before = search(state, key, state.before + 1)
        if before < state.before then
          call("ZADD", key, at, struct.pack(">I6I3", total, total - state.before))
          -- The shorter rest stands before the whole: same total, fewer hits.
          call("ZREM", key, struct.pack(">I6I3", total, total - before))
        end
        if rank > 0 then
          call("ZREMRANGEBYRANK", key, 0, rank - 1)
        end
      end
    end
    local added = state.total - state.before
    if added > state.added then
      added = state.added
    end
    if added > 0 then
      call("ZADD", key, state.last, struct.pack(">I6I3", state.total, added))
    end
    if renew then
      if state.stored_last >= 0 then
        call("ZREMRANGEBYSCORE", key, "-inf", state.last - window_us)
      end
      call("PEXPIRE", key, expiry_ms(state.last + window_us + part, now, spare_ms))
    end
  end,
}
