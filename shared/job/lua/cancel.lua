-- Cancel a job that has not ended: a queued one never runs, a running one commits nothing.
-- ARGV: id result_ttl max_queue_ms message
local id = ARGV[1]
expire_if_overdue(id, ARGV[2], tonumber(ARGV[3]))
local job = redis.call('HMGET', job_key(id), 'state', 'lane')
if job[1] == 'queued' then
  leave_queue(id, job[2])
  -- The message as it was accepted with. One of a later attempt is dropped when it is next.
  redis.call('LREM', list_key(job[2]), 1, ARGV[4])
  drop_leftovers(job[2])
elseif job[1] == 'processing' then
  redis.call('ZREM', P .. ':leases', id)
else
  return {'finished', view(id)}
end
close(id, 'cancelled', ARGV[2])
return {'cancelled', view(id)}
