-- Give a queued job a new message in place of one that vanished. ARGV: id message
local job = redis.call('HMGET', job_key(ARGV[1]), 'state', 'lane')
if job[1] ~= 'queued' then return 0 end
redis.call('RPUSH', list_key(job[2]), ARGV[2])
count('republished')
return 1
