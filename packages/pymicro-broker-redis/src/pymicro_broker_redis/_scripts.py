"""What runs inside Redis, in one piece each.

The state of a topic is its stream and the stream's consumer groups, one of each queue and of each subscription
without one. Redis itself counts deliveries and remembers who holds what. Besides, each group has a sorted set of
entries that wait for a second delivery, by the time in milliseconds when they are due: the consumer `delayed` holds
these. An entry that every group is done with is deleted.
"""

from __future__ import annotations

from typing import Final

#: KEYS[1] is the stream, KEYS[2] the hash of subscriptions without a queue. A number must not be joined to a string:
#: Lua would round it.
_COMMON: Final = """
local stream, alive = KEYS[1], KEYS[2]

local function now()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

local function map(flat)
  local found = {}
  for i = 1, #flat, 2 do found[flat[i]] = flat[i + 1] end
  return found
end

local function groups()
  local found = {}
  if redis.call('EXISTS', stream) == 1 then
    for _, row in ipairs(redis.call('XINFO', 'GROUPS', stream)) do found[#found + 1] = map(row) end
  end
  return found
end

local function parts(id)
  local ms, seq = id:match('(%d+)-(%d+)')
  return tonumber(ms), tonumber(seq)
end

local function later(a, b)
  local a_ms, a_seq = parts(a)
  local b_ms, b_seq = parts(b)
  return a_ms > b_ms or (a_ms == b_ms and a_seq > b_seq)
end

local function holder(group, id)
  local row = redis.call('XPENDING', stream, group, id, id, 1)[1]
  if row then return row[2], row[4] end
end
"""

#: `sweep` deletes groups of dead subscriptions without a queue, and what all groups are done with. A group is dead
#: when it was silent for `ttl` and still is `grace` later, of a server that runs: its own outage silences everybody.
_SWEEP: Final = """
local function forgotten(group, time, ttl, grace, delayed, topic)
  if group:sub(1, 4) ~= 'own:' or time - tonumber(redis.call('HGET', alive, group) or '0') <= ttl then return false end
  local mark = redis.call('HGET', alive, '?' .. group)
  if not mark then redis.call('HSET', alive, '?' .. group, time) end
  if not mark or time - tonumber(mark) <= grace then return false end
  redis.call('XGROUP', 'DESTROY', stream, group)
  redis.call('HDEL', alive, group, '?' .. group)
  redis.call('DEL', delayed .. #group .. ':' .. group .. ':' .. topic)
  return true
end

local function sweep(ttl, grace, delayed, topic)
  local time, low = now(), nil
  for _, group in ipairs(groups()) do
    if not forgotten(group.name, time, ttl, grace, delayed, topic) then
      local pending = redis.call('XPENDING', stream, group.name)
      local first = pending[2]
      if pending[1] == 0 then
        local ms, seq = parts(group['last-delivered-id'])
        first = string.format('%.0f-%.0f', ms, seq + 1)
      end
      if not low or later(low, first) then low = first end
    end
  end
  if low then redis.call('XTRIM', stream, 'MINID', '=', low) end
end
"""

#: ARGV: most messages, messages to keep without a group, those of `sweep`, then of each message how many names and
#: values it has, and those.
#: Returns for each the entry's id; an empty text if nobody will ever ask for it; nil if there is no room.
PUBLISH: Final = f"""{_COMMON}{_SWEEP}
local most, keep = tonumber(ARGV[1]), tonumber(ARGV[2])
local length, all, swept = redis.call('XLEN', stream), nil, false
local function add(from, to)
  if length >= math.min(most, keep) then
    all = all or groups()
    if #all > 0 and length >= most and not swept then
      sweep(tonumber(ARGV[3]), tonumber(ARGV[4]), ARGV[5], ARGV[6])
      all, length, swept = groups(), redis.call('XLEN', stream), true
    end
    if #all == 0 then
      if keep == 0 then return '' end
      return redis.call('XADD', stream, 'MAXLEN', '=', keep, '*', unpack(ARGV, from, to))
    end
    if length >= most then return false end
  end
  length = length + 1
  return redis.call('XADD', stream, '*', unpack(ARGV, from, to))
end
local added, at = {{}}, 7
while at <= #ARGV do
  local count = tonumber(ARGV[at])
  added[#added + 1] = add(at + 1, at + count)
  at = at + count + 1
end
return added
"""

#: ARGV: group, consumer, where a new group begins ($, 0 or an id).
#: Returns the last id that the group was given. A stream that is younger than the id was lost and began anew.
ATTACH: Final = f"""{_COMMON}
local group, consumer, start = ARGV[1], ARGV[2], ARGV[3]
local function find()
  for _, each in ipairs(groups()) do
    if each.name == group then return each end
  end
end
if not find() then
  if start ~= '$' and start ~= '0' then
    local last = '0-0'
    if redis.call('EXISTS', stream) == 1 then last = map(redis.call('XINFO', 'STREAM', stream))['last-generated-id'] end
    if later(start, last) then start = '0' end
  end
  redis.call('XGROUP', 'CREATE', stream, group, start, 'MKSTREAM')
end
redis.call('XGROUP', 'CREATECONSUMER', stream, group, consumer)
if group:sub(1, 4) == 'own:' then
  redis.call('HSET', alive, group, now())
  redis.call('HDEL', alive, '?' .. group)
end
return find()['last-delivered-id']
"""

#: KEYS[3]: the group's delayed ones. ARGV: group, consumer, most entries to take, milliseconds of a lease, how many
#: of the consumer's own entries to list, milliseconds after which an idle consumer's name is forgotten, then those
#: of `sweep`.
#: Returns entries with their counts, milliseconds until the next is due or -1, and the ids that the consumer holds.
TEND: Final = f"""{_COMMON}{_SWEEP}
local delayed, group, consumer, limit = KEYS[3], ARGV[1], ARGV[2], tonumber(ARGV[3])
local time, taken, own = now(), {{}}, {{}}
local function claim(id)
  local got = redis.call('XCLAIM', stream, group, consumer, 0, id)[1]
  if got and got[2] then
    local _, count = holder(group, id)
    taken[#taken + 1] = {{got[1], got[2], count}}
  end
end
if group:sub(1, 4) == 'own:' then
  redis.call('HSET', alive, group, time)
  redis.call('HDEL', alive, '?' .. group)
end
if limit > 0 then
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', delayed, '-inf', time, 'LIMIT', 0, limit)) do
    redis.call('ZREM', delayed, id)
    claim(id)
  end
end
for _, row in ipairs(redis.call('XINFO', 'CONSUMERS', stream, group)) do
  local other = map(row)
  if other.name ~= 'delayed' then
    if other.name ~= consumer and other.pending == 0 and other.idle > tonumber(ARGV[6]) then
      redis.call('XGROUP', 'DELCONSUMER', stream, group, other.name)
    elseif other.pending > 0 and #taken < limit then
      local over = redis.call('XPENDING', stream, group, 'IDLE', ARGV[4], '-', '+', limit - #taken, other.name)
      for _, held in ipairs(over) do claim(held[1]) end
    end
  end
end
sweep(tonumber(ARGV[7]), tonumber(ARGV[8]), ARGV[9], ARGV[10])
if tonumber(ARGV[5]) > 0 then
  local held = redis.call('XPENDING', stream, group, '-', '+', ARGV[5], consumer)
  for _, row in ipairs(held) do own[#own + 1] = row[1] end
end
local first = redis.call('ZRANGE', delayed, 0, 0, 'WITHSCORES')
local due = -1
if first[2] then due = math.max(0, tonumber(first[2]) - time) end
return {{taken, due, own}}
"""

#: ARGV: group, ids. Whoever holds them now: the work is done.
ACK: Final = f"""{_COMMON}
local ids = {{unpack(ARGV, 2)}}
redis.call('XACK', stream, ARGV[1], unpack(ids))
local all = groups()
if #all == 1 then return redis.call('XDEL', stream, unpack(ids)) end
for _, id in ipairs(ids) do
  local needed = false
  for _, group in ipairs(all) do
    if later(id, group['last-delivered-id']) or holder(group.name, id) then
      needed = true
      break
    end
  end
  if not needed then redis.call('XDEL', stream, id) end
end
"""

#: KEYS[2]: the group's delayed ones. ARGV: group, consumer, then of each entry the id, the milliseconds to wait, and
#: by how much less it shall count. Only what the consumer holds.
RETRY: Final = f"""{_COMMON}
local delayed, group, consumer, time = KEYS[2], ARGV[1], ARGV[2], now()
for i = 3, #ARGV, 3 do
  local id = ARGV[i]
  local who, count = holder(group, id)
  if who == consumer then
    local counted = math.max(0, count - tonumber(ARGV[i + 2]))
    redis.call('XCLAIM', stream, group, 'delayed', 0, id, 'RETRYCOUNT', counted, 'JUSTID')
    redis.call('ZADD', delayed, time + tonumber(ARGV[i + 1]), id)
  end
end
"""

#: ARGV: group, consumer, ids. Returns 1 for each that the consumer holds, from now on anew, and 0 for others.
EXTEND: Final = f"""{_COMMON}
local group, consumer, held = ARGV[1], ARGV[2], {{}}
for i = 3, #ARGV do
  held[i - 2] = 0
  if holder(group, ARGV[i]) == consumer then
    redis.call('XCLAIM', stream, group, consumer, 0, ARGV[i], 'JUSTID')
    held[i - 2] = 1
  end
end
return held
"""

#: KEYS[3]: the group's delayed ones. ARGV: group, consumer, then those of `sweep`.
#: Gives back what the consumer holds, and forgets it; without a queue its group goes, too.
LEAVE: Final = f"""{_COMMON}{_SWEEP}
local delayed, group, consumer, time = KEYS[3], ARGV[1], ARGV[2], now()
if group:sub(1, 4) == 'own:' then
  redis.call('XGROUP', 'DESTROY', stream, group)
  redis.call('HDEL', alive, group, '?' .. group)
  redis.call('DEL', delayed)
  sweep(tonumber(ARGV[3]), tonumber(ARGV[4]), ARGV[5], ARGV[6])
  return
end
while true do
  local held = redis.call('XPENDING', stream, group, '-', '+', 1000, consumer)
  if #held == 0 then break end
  for _, row in ipairs(held) do
    redis.call('XCLAIM', stream, group, 'delayed', 0, row[1], 'JUSTID')
    redis.call('ZADD', delayed, time, row[1])
  end
end
redis.call('XGROUP', 'DELCONSUMER', stream, group, consumer)
"""
