-- Start an attempt at the job that a message is about. arg: id, worker
local job = redis.call('HMGET', job_key(arg.id), 'state', 'lane', 'seq')
if job[1] ~= 'queued' or expire_if_overdue(arg.id) then
  for lane = 0, LANES - 1 do drop_leftovers(lane) end
  return {job[1] == 'processing' and 'running' or job[1] and 'finished' or 'unknown'}
end

local attempt = start_attempt(arg.id, job[2], arg.worker)
drop_leftovers(job[2])
if attempt == 1 then
  -- First deliveries leave a lane in order; heartbeat.lua uses the mark to find lost messages.
  local mark = tonumber(redis.call('HGET', P .. ':marks', 'taken:' .. job[2]) or '0')
  if tonumber(job[3]) > mark then
    redis.call('HSET', P .. ':marks', 'taken:' .. job[2], job[3])
  end
end
return {'claimed', tostring(attempt), redis.call('HGETALL', job_key(arg.id))}
