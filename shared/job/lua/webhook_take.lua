-- Take the webhook that has been due the longest, for `lease_ms`: if its gateway dies, another takes
-- it then. The attempt is counted here: one that kills its gateway must not be tried for ever.
--
-- A webhook that may not be sent now, since its host, its owner or the gateway is at its bound, is
-- parked behind others in the list of that bound. One of them is due again when a send has ended
-- there; so thousands of them for one dead host neither keep others waiting nor are looked at again
-- and again. Each has a time of its own all the same, for a gateway that dies with the sends.
--
-- A webhook without a payload is never parked: it is not sent yet, and its payload can be made only
-- while its job is there.
--
-- ARGV: lease_ms number_of_freed, freed bounds: a send has ended there,
--       full bounds: `room` (of this gateway), `host:NAME`, `owner:NAME`
-- Returns the webhook, 'more' if there may be more to look at, or false if none is due.
local LOOKED_AT, WAIT_MS, WAIT_FOR_ROOM_MS = 256, 60000, 5000
local queue = P .. ':webhooks'
local function letter_key(id) return P .. ':webhook:' .. id end
local function parked_key(bound) return P .. ':webhooks-parked:' .. bound end

local function park(id, bound, spread)
  if redis.call('HGET', letter_key(id), 'parked') ~= bound then
    redis.call('HSET', letter_key(id), 'parked', bound)
    redis.call('RPUSH', parked_key(bound), id)
    redis.call('EXPIRE', parked_key(bound), 2 * 86400)
  end
  -- Another gateway may have room.
  local wait = bound == 'room' and WAIT_FOR_ROOM_MS or WAIT_MS
  redis.call('ZADD', queue, now + math.floor(wait * (0.5 + spread)), id)
end

local function unpark_one(bound)
  for _ = 1, LOOKED_AT do
    local id = redis.call('LPOP', parked_key(bound))
    if not id then return end
    -- It may have been taken when its own time came, and may even be parked elsewhere by now.
    if redis.call('HGET', letter_key(id), 'parked') == bound then
      redis.call('HDEL', letter_key(id), 'parked')
      redis.call('ZADD', queue, now, id)
      return
    end
  end
end

local freed = tonumber(ARGV[2])
for i = 3, 2 + freed do unpark_one(ARGV[i]) end
local full = {}
for i = 3 + freed, #ARGV do full[ARGV[i]] = true end

local due = redis.call('ZRANGEBYSCORE', queue, '-inf', now, 'LIMIT', 0, LOOKED_AT)
for i, id in ipairs(due) do
  local letter = letter_key(id)
  local url, owner = unpack(redis.call('HMGET', letter, 'url', 'owner'))
  if not url then  -- it has outlived its time
    redis.call('ZREM', queue, id)
  else
    local host = string.lower(string.match(url, '^%a+://([^/?#]*)') or '')
    host = string.gsub(host, ':%d*$', '')
    local written = redis.call('HEXISTS', letter, 'payload') == 1
    local bound
    for _, name in ipairs({'room', 'owner:' .. owner, 'host:' .. host}) do
      if full[name] then bound = name end
    end
    if written and bound then
      park(id, bound, i / LOOKED_AT)
    else
      redis.call('ZADD', queue, now + tonumber(ARGV[1]), id)
      redis.call('HDEL', letter, 'parked')
      local attempt = redis.call('HINCRBY', letter, 'attempts', 1)
      return {id, url, host, owner, attempt, redis.call('HGET', letter, 'payload')}
    end
  end
end
return #due == LOOKED_AT and 'more'
