-- Take a webhook that is due, for `lease_ms`: if its sender dies, another takes it then.
-- ARGV: lease_ms
local due = redis.call('ZRANGEBYSCORE', P .. ':webhooks', '-inf', now, 'LIMIT', 0, 1)[1]
if not due then return false end
redis.call('ZADD', P .. ':webhooks', now + tonumber(ARGV[1]), due)
local attempt = redis.call('HINCRBY', P .. ':webhook:' .. due, 'attempts', 1)
return {due, attempt, redis.call('HMGET', P .. ':webhook:' .. due, 'url', 'payload', 'owner')}
