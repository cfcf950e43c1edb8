-- Keep what a webhook sends, so that every try sends the same, also when its job is gone; it is due
-- at once. Does nothing if it was taken again since: an UNLINKed one must not come back to life.
-- ARGV: id attempt payload
local letter = P .. ':webhook:' .. ARGV[1]
if redis.call('HGET', letter, 'attempts') ~= ARGV[2] then return 0 end
redis.call('HSET', letter, 'payload', ARGV[3], 'attempts', 0)
redis.call('ZADD', P .. ':webhooks', now, ARGV[1])
return 1
