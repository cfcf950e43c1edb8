-- An attempt ended without an outcome: its process died, hung or raised something unexpected.
-- Back to the queue, or to the dead letters after the last attempt.
-- arg: id, attempt or worker (which attempt is meant; one that has lost the job does nothing), reason,
--      message, meta (of the failed task, in Celery's format), error (JSON text)
local id = arg.id
drop_orphan(id)
local job = redis.call('HMGET', job_key(id), 'state', 'attempts', 'worker', 'lane', 'owner',
  'bytes', 'seq', 'started_ms', 'history', 'content_type', 'params', 'model', 'parts')
local attempts = tonumber(job[2])
if job[1] ~= 'processing' or (arg.attempt and arg.attempt ~= attempts)
    or (arg.worker and arg.worker ~= job[3]) then
  return 'stale'
end
redis.call('ZREM', P .. ':leases', id)
local history = job[9] and cjson.decode(job[9]) or {}
history[#history + 1] = {attempt = attempts, worker = job[3], reason = arg.reason,
  part = is_part(id) and tonumber(string.match(id, '%d+$')) or nil,
  started_ms = tonumber(job[8]), ended_ms = now}
redis.call('HSET', job_key(id), 'history', cjson.encode(history))
count('lost:' .. arg.reason)

if attempts < MAX_ATTEMPTS then
  redis.call('HSET', job_key(id), 'state', 'queued')
  redis.call('HDEL', job_key(id), 'worker')
  join_queue(id, job[4], job[5], tonumber(job[6]), job[7])
  -- The first loss is most likely the worker's fault: the job is next in line. After a second one the
  -- others go first, so that a file that kills its process does not hold them up.
  redis.call(attempts == 1 and 'RPUSH' or 'LPUSH', list_key(job[4]), arg.message)
  if not is_part(id) then
    announce(id, 'queued', RECORD_TTL_SECONDS, 'attempt', attempts, 'reason', arg.reason)
  end
  return 'requeued'
end

local whole = job_of(id)
local bytes = field(job_key(whole), 'bytes')
keep_dead_image(whole)
redis.call('SET', result_key(whole), arg.meta)
close(id, 'failed', 'error', arg.error)
count('failed:' .. cjson.decode(arg.error).code)
keep_dead_letter(whole, bytes, 'task_id', whole, 'owner', job[5], 'model', job[12],
  'params', job[11], 'content_type', job[10], 'parts', job[13] or 1, 'history', cjson.encode(history), 'error', arg.error)
return 'dead'
