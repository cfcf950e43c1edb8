-- A worker that stops is off the list at once, and its processes no longer count as ready.
-- ARGV: worker
redis.call('HDEL', P .. ':workers', ARGV[1])
redis.call('ZREM', P .. ':workers-seen', ARGV[1])
sum_ready_processes()
return 1
