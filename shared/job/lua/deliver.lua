-- Keep what a part has found, unless it is the last one: then everything else that the job's result needs is
-- there, and the attempt goes on to merge it and to commit the result (finish.lua).
-- What was found was set under a key of the attempt's own just before, as with finish.lua.
-- arg: id, attempt, staged (that key), run_us (since the claim)
-- Returns {status}; of the last part also for how long its job waited and has run, in ms, and the upload's
-- bytes; of another one whether more of them wait.
local id = arg.id
drop_orphan(id)
local job = redis.call('HMGET', job_key(id), 'state', 'attempts', 'model')
if job[1] ~= 'processing' or tonumber(job[2]) ~= arg.attempt then
  count('stale_commits')
  redis.call('UNLINK', arg.staged)
  return {'stale'}
end
local whole = job_key(job_of(id))
if field(whole, 'open') == 1 then
  redis.call('UNLINK', arg.staged)
  local started = field(whole, 'started_ms')
  return {'last', started - field(whole, 'created_ms'), now - started, field(whole, 'bytes')}
end
if redis.call('EXISTS', arg.staged) == 0 then return {'unstaged'} end
redis.call('HINCRBY', whole, 'open', -1)
drop_part(id)
redis.call('RENAME', arg.staged, found_key(id))
redis.call('EXPIRE', found_key(id), RECORD_TTL_SECONDS)
count_run_time(id, job[3], arg.run_us)
measure_drain(id, job[3], arg.run_us)
local last = job_key(job_of(id) .. '#' .. field(whole, 'parts') - 1)
return {'delivered', redis.call('HGET', last, 'state') == 'queued' and 1 or 0}
