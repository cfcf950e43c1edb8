-- A worker that stops is off the list at once, and its processes no longer count as ready. arg: worker
redis.call('HDEL', P .. ':workers', arg.worker)
redis.call('ZREM', P .. ':workers-seen', arg.worker)
sum_ready_processes()
return 1
