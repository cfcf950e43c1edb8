-- Runs one script of the store on a given state of Redis at a given time; returns its reply and the
-- state after it. Script and restoring are one call, so Redis' own clock stands still meanwhile and
-- times to live are exact.
-- ARGV: the script's argument, now in ms, ms since the state was taken, the state as JSON: {key, type,
--       value, ms to live or -1} each
local NO_TTL = -1

local function restore(entries, elapsed)
  local before = redis.call('KEYS', '*')
  if #before > 0 then redis.call('DEL', unpack(before)) end
  for _, entry in ipairs(entries) do
    local key, kind, value = entry[1], entry[2], entry[3]
    local left = entry[4] ~= NO_TTL and entry[4] - elapsed
    if left and left <= 0 then kind = 'expired'
    elseif kind == 'string' then redis.call('SET', key, value)
    elseif kind == 'hash' then redis.call('HSET', key, unpack(value))
    elseif kind == 'list' then redis.call('RPUSH', key, unpack(value))
    elseif kind == 'zset' then
      for i = 1, #value, 2 do redis.call('ZADD', key, value[i + 1], value[i]) end
    elseif kind == 'stream' then
      for _, fields in ipairs(value) do redis.call('XADD', key, '*', unpack(fields)) end
    end
    if left and left > 0 then redis.call('PEXPIRE', key, left) end
  end
end

local function sorted_pairs(flat)
  local names, values, pairs_ = {}, {}, {}
  for i = 1, #flat, 2 do
    names[#names + 1] = flat[i]
    values[flat[i]] = flat[i + 1]
  end
  table.sort(names)
  for _, name in ipairs(names) do
    pairs_[#pairs_ + 1] = name
    pairs_[#pairs_ + 1] = values[name]
  end
  return pairs_
end

local function dump()
  local keys, entries = redis.call('KEYS', '*'), {}
  table.sort(keys)
  for _, key in ipairs(keys) do
    local kind, value = redis.call('TYPE', key).ok, nil
    if kind == 'string' then value = redis.call('GET', key)
    elseif kind == 'hash' then value = sorted_pairs(redis.call('HGETALL', key))
    elseif kind == 'list' then value = redis.call('LRANGE', key, 0, -1)
    elseif kind == 'zset' then value = redis.call('ZRANGE', key, 0, -1, 'WITHSCORES')
    elseif kind == 'stream' then
      value = {}
      -- Entries get other ids when they are restored; no script reads them.
      for _, event in ipairs(redis.call('XRANGE', key, '-', '+')) do value[#value + 1] = event[2] end
    end
    entries[#entries + 1] = {key, kind, value, redis.call('PTTL', key)}
  end
  return cjson.encode(entries)
end

local now = tonumber(ARGV[2])
local published = {}
-- What the script sees as `redis`: the same server, with the test's clock.
local served = {call = function(command, ...)
  if command == 'TIME' then
    return {string.format('%d', math.floor(now / 1000)), string.format('%d', now % 1000 * 1000)}
  end
  if command == 'PUBLISH' then published[#published + 1] = select(2, ...) end
  return redis.call(command, ...)
end}

local function script(redis, KEYS, ARGV)
--SCRIPT--
end

restore(cjson.decode(ARGV[4]), tonumber(ARGV[3]))
local reply = script(served, KEYS, ARGV)
return {reply or false, dump(), published}
