-- A webhook was delivered or given up.
-- ARGV: id
redis.call('ZREM', P .. ':webhooks', ARGV[1])
redis.call('UNLINK', P .. ':webhook:' .. ARGV[1])
