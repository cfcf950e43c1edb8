-- Start an attempt at the job that a message is about. arg: id, worker, models (that the worker serves)
expire_if_overdue(arg.id)
local job = redis.call('HMGET', job_key(arg.id), 'state', 'lane', 'seq', 'model', 'parts')
local in_parts = job[5] and not is_part(arg.id)  -- as those of an inline task that was adopted
if job[1] ~= 'queued' or in_parts then
  for _, model in ipairs(arg.models) do
    for _, lane in ipairs(lanes_of(model)) do drop_leftovers(lane) end
  end
  if in_parts then return {'in parts'} end
  return {job[1] == 'processing' and 'running' or job[1] and 'finished' or 'unknown'}
end

local served = false
for _, model in ipairs(arg.models) do served = served or model == job[4] end
if not served then return {'elsewhere'} end

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
