-- Start an attempt at the job that a message is about.
-- ARGV: id worker lease_ms result_ttl max_queue_ms record_ttl
local id, worker = ARGV[1], ARGV[2]
local job = redis.call('HMGET', job_key(id), 'state', 'lane', 'seq')
if job[1] ~= 'queued' or expire_if_overdue(id, ARGV[4], tonumber(ARGV[5])) then
  for lane = 0, LANES - 1 do drop_leftovers(lane) end
  return {job[1] == 'processing' and 'running' or job[1] and 'finished' or 'unknown'}
end

local attempt = start_attempt(id, job[2], worker, tonumber(ARGV[3]), ARGV[6])
drop_leftovers(job[2])
if attempt == 1 then
  -- First deliveries leave a lane in order; see heartbeat.lua for what the mark is good for.
  local mark = tonumber(redis.call('HGET', P .. ':marks', 'taken:' .. job[2]) or '0')
  if tonumber(job[3]) > mark then
    redis.call('HSET', P .. ':marks', 'taken:' .. job[2], job[3])
  end
end
return {'claimed', tostring(attempt), redis.call('HGETALL', job_key(id))}
