-- Take the webhook that has been due the longest, for `lease_ms`: if its gateway dies, another takes
-- it then. The attempt is counted here: one that kills its gateway must not be tried for ever.
--
-- A webhook may not be sent now if its host, its owner or the gateway is at its bound. Then it is
-- parked in the list of that bound, and is due again when a send has ended there. So thousands of
-- webhooks for one dead host neither delay others nor are looked at again and again. A parked webhook
-- also has a time of its own, in case the gateway that sends dies.
--
-- A webhook without a payload is never parked: it is not sent yet, and its payload can be made only
-- while its job is there.
--
-- arg: lease_ms, freed (bounds at which a send has ended), full (bounds that are reached); a bound is
--      `room` (of this gateway), `host:NAME` or `owner:NAME`
-- Returns the webhook, 'more' if there may be more to look at, or false if none is due.
local LOOKED_AT, WAIT_MS, WAIT_FOR_ROOM_MS = 256, 60000, 5000
local queue = P .. ':webhooks'
local function parked_key(bound) return P .. ':webhooks-parked:' .. bound end

local function park(id, bound, spread)
  if redis.call('HGET', webhook_key(id), 'parked') ~= bound then
    redis.call('HSET', webhook_key(id), 'parked', bound)
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
    if redis.call('HGET', webhook_key(id), 'parked') == bound then
      redis.call('HDEL', webhook_key(id), 'parked')
      redis.call('ZADD', queue, now, id)
      return
    end
  end
end

for _, bound in ipairs(arg.freed) do unpark_one(bound) end
local full = {}
for _, bound in ipairs(arg.full) do full[bound] = true end

local due = redis.call('ZRANGEBYSCORE', queue, '-inf', now, 'LIMIT', 0, LOOKED_AT)
for i, id in ipairs(due) do
  local webhook = webhook_key(id)
  local url, owner = unpack(redis.call('HMGET', webhook, 'url', 'owner'))
  if not url then  -- it has expired
    redis.call('ZREM', queue, id)
  else
    local host = string.lower(string.match(url, '^%a+://([^/?#]*)') or '')
    host = string.gsub(host, ':%d*$', '')
    local written = redis.call('HEXISTS', webhook, 'payload') == 1
    local bound
    for _, name in ipairs({'room', 'owner:' .. owner, 'host:' .. host}) do
      if full[name] then bound = name end
    end
    if written and bound then
      park(id, bound, i / LOOKED_AT)
    else
      redis.call('ZADD', queue, now + arg.lease_ms, id)
      redis.call('HDEL', webhook, 'parked')
      local attempt = redis.call('HINCRBY', webhook, 'attempts', 1)
      return {id, url, host, owner, attempt, redis.call('HGET', webhook, 'payload')}
    end
  end
end
return #due == LOOKED_AT and 'more'
