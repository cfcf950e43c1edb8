-- A job's record with its position, and its result when there is one.
-- ARGV: id result_ttl max_queue_ms with_result(0|1)
expire_if_overdue(ARGV[1], ARGV[2], tonumber(ARGV[3]))
local record = view(ARGV[1])
if #record > 0 and ARGV[4] == '1' and redis.call('HGET', job_key(ARGV[1]), 'state') == 'completed' then
  return {record, redis.call('GET', 'celery-task-meta-' .. ARGV[1])}
end
return {record, false}
