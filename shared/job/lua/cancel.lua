-- Cancel a job that has not ended: a queued one never runs, a running one commits nothing.
-- Safe to repeat: if the answer to a request was lost, the same request is told again that it did it.
-- arg: id, message (as the job was accepted with), request (an id of this request)
local id = arg.id
expire_if_overdue(id)
local job = redis.call('HMGET', job_key(id), 'state', 'lane', 'cancelled_by')
if job[1] == 'queued' then
  leave_queue(id, job[2])
  -- A message of a later attempt is not found here; it is dropped when it is next in line.
  redis.call('LREM', list_key(job[2]), 1, arg.message)
elseif job[1] == 'processing' then
  redis.call('ZREM', P .. ':leases', id)
elseif job[3] == arg.request then
  return {'cancelled', view(id)}
else
  return {'finished', view(id)}
end
close(id, 'cancelled', 'cancelled_by', arg.request)
drop_leftovers(job[2])
return {'cancelled', view(id)}
