-- An attempt ended without an outcome: its process died, hung or raised something unexpected.
-- Back to the queue, or to the dead letters after the last attempt.
-- ARGV: id attempt(or '') worker(or '') reason message max_attempts record_ttl result_ttl
--       meta error dead_ttl dead_max_jobs dead_max_bytes
local id = ARGV[1]
local job = redis.call('HMGET', job_key(id), 'state', 'attempts', 'worker', 'lane', 'owner',
  'bytes', 'seq', 'started_ms', 'history', 'content_type', 'params')
if job[1] ~= 'processing' or (ARGV[2] ~= '' and ARGV[2] ~= job[2])
    or (ARGV[3] ~= '' and ARGV[3] ~= job[3]) then
  return {'stale'}
end
redis.call('ZREM', P .. ':leases', id)
local history = job[9] and cjson.decode(job[9]) or {}
history[#history + 1] = {attempt = tonumber(job[2]), worker = job[3], reason = ARGV[4],
  started_ms = tonumber(job[8]), ended_ms = now}
redis.call('HSET', job_key(id), 'history', cjson.encode(history))
count('lost:' .. ARGV[4])

if tonumber(job[2]) < tonumber(ARGV[6]) then
  redis.call('HSET', job_key(id), 'state', 'queued')
  redis.call('HDEL', job_key(id), 'worker')
  join_queue(id, job[4], job[5], tonumber(job[6]), job[7])
  -- Its first loss is most likely the worker's fault: next in line. After a second one the others
  -- go first, so that a file that kills its process does not hold them up.
  local push = tonumber(job[2]) == 1 and 'RPUSH' or 'LPUSH'
  redis.call(push, list_key(job[4]), ARGV[5])
  announce(id, 'queued', ARGV[7], 'attempt', job[2], 'reason', ARGV[4])
  return {'requeued'}
end

-- The image outlives the job under the letter's name (unless images live on another server, where
-- job_store.py does the same).
if redis.call('EXISTS', image_key(id)) == 1 then
  redis.call('RENAME', image_key(id), dead_image_key(id))
  redis.call('EXPIRE', dead_image_key(id), ARGV[11])
end
redis.call('SET', result_key(id), ARGV[9])
close(id, 'failed', ARGV[8], 'error', ARGV[10])
count('failed:' .. cjson.decode(ARGV[10]).code)

local evicted = bury(id, tonumber(job[6]), tonumber(ARGV[11]), tonumber(ARGV[12]),
  tonumber(ARGV[13]), 'task_id', id, 'owner', job[5], 'params', job[11], 'content_type', job[10],
  'history', cjson.encode(history), 'error', ARGV[10])
return {'dead', evicted}
