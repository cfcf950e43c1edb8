-- Try a webhook again in `pause_ms`. Does nothing if it was taken again since.
-- ARGV: id attempt pause_ms
if redis.call('HGET', P .. ':webhook:' .. ARGV[1], 'attempts') ~= ARGV[2] then return 0 end
redis.call('ZADD', P .. ':webhooks', now + tonumber(ARGV[3]), ARGV[1])
return 1
