-- Try a webhook again in `pause_ms`. Does nothing if it was taken again since.
-- arg: id, attempt, pause_ms
if tonumber(redis.call('HGET', webhook_key(arg.id), 'attempts')) ~= arg.attempt then return 0 end
redis.call('ZADD', P .. ':webhooks', now + arg.pause_ms, arg.id)
return 1
