-- Start an attempt. The attempt is counted here, before any work: a file that kills its process
-- must not run for ever. The attempt's number is the fencing token of everything that follows.
-- ARGV: id worker lease_ms result_ttl max_queue_ms record_ttl
local id, worker = ARGV[1], ARGV[2]
local job = redis.call('HMGET', job_key(id), 'state', 'lane', 'owner', 'bytes', 'seq', 'attempts')
if not job[1] then return {'unknown'} end
if job[1] == 'processing' then return {'running'} end
if job[1] ~= 'queued' then return {'finished'} end
if expire_if_overdue(id, ARGV[4], tonumber(ARGV[5])) then return {'finished'} end

leave_queue(id, job[2], job[3], tonumber(job[4]))
local attempt = redis.call('HINCRBY', job_key(id), 'attempts', 1)
redis.call('HSET', job_key(id), 'state', 'processing', 'worker', worker, 'started_ms', now)
redis.call('EXPIRE', job_key(id), ARGV[6])
redis.call('ZADD', P .. ':leases', now + tonumber(ARGV[3]), id)
if attempt == 1 then
  -- First deliveries leave a lane in order; see heartbeat.lua for what the mark is good for.
  local mark = tonumber(redis.call('HGET', P .. ':marks', 'taken:' .. job[2]) or '0')
  if tonumber(job[5]) > mark then
    redis.call('HSET', P .. ':marks', 'taken:' .. job[2], job[5])
  end
end
count('attempts')
announce(id, 'processing', ARGV[6], 'attempt', attempt)
return {'claimed', tostring(attempt), redis.call('HGETALL', job_key(id))}
