-- Start an attempt at the job that a message is about.
-- ARGV: id worker lease_ms result_ttl max_queue_ms record_ttl
local id, worker = ARGV[1], ARGV[2]
local job = redis.call('HMGET', job_key(id), 'state', 'lane', 'owner', 'bytes', 'seq')
if not job[1] then return {'unknown'} end
if job[1] == 'processing' then return {'running'} end
if job[1] ~= 'queued' then return {'finished'} end
if expire_if_overdue(id, ARGV[4], tonumber(ARGV[5])) then return {'finished'} end

local attempt = start_attempt(id, job[2], job[3], tonumber(job[4]), worker, tonumber(ARGV[3]), ARGV[6])
if attempt == 1 then
  -- First deliveries leave a lane in order; see heartbeat.lua for what the mark is good for.
  local mark = tonumber(redis.call('HGET', P .. ':marks', 'taken:' .. job[2]) or '0')
  if tonumber(job[5]) > mark then
    redis.call('HSET', P .. ':marks', 'taken:' .. job[2], job[5])
  end
end
return {'claimed', tostring(attempt), redis.call('HGETALL', job_key(id))}
