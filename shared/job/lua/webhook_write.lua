-- Keep what a webhook sends, so that every try sends the same, also when its job is gone. It is due
-- at once. Does nothing if it was taken again since, or if it is gone.
-- arg: id, attempt, payload
if tonumber(redis.call('HGET', webhook_key(arg.id), 'attempts')) ~= arg.attempt then return 0 end
redis.call('HSET', webhook_key(arg.id), 'payload', arg.payload, 'attempts', 0)
redis.call('ZADD', P .. ':webhooks', now, arg.id)
return 1
