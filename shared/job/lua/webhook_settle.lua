-- A webhook was delivered or given up. arg: id
redis.call('ZREM', P .. ':webhooks', arg.id)
redis.call('UNLINK', webhook_key(arg.id))
return 1
