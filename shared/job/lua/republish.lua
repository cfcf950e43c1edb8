-- Give a queued job a new message in place of one that vanished. arg: id, message
local job = redis.call('HMGET', job_key(arg.id), 'state', 'lane')
if job[1] ~= 'queued' then return 0 end
redis.call('RPUSH', list_key(job[2]), arg.message)
count('republished')
return 1
