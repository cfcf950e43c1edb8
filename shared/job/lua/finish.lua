-- Commit a job's outcome, once: only the attempt that holds it, or the last of its parts, may.
-- The result was set under a key of the attempt's own just before, and is only renamed here: as an
-- argument, half a megabyte would be copied twice on its way through Lua.
-- arg: id, attempt, state (completed or failed), staged (that key), error (JSON text, or ''),
--      run_us (since the claim, as the worker measured it: this clock may have been set meanwhile)
local id = arg.id
drop_orphan(id)
local job = redis.call('HMGET', job_key(id), 'state', 'attempts', 'model')
if job[1] ~= 'processing' or tonumber(job[2]) ~= arg.attempt then
  count('stale_commits')
  redis.call('UNLINK', arg.staged)
  return 'stale'
end
if redis.call('EXISTS', arg.staged) == 0 then return 'unstaged' end
redis.call('RENAME', arg.staged, result_key(job_of(id)))
redis.call('ZREM', P .. ':leases', id)
if arg.state == 'completed' then
  close(id, 'completed')
  count_run_time(id, job[3], arg.run_us)
else
  close(id, 'failed', 'error', arg.error)
  count('failed:' .. cjson.decode(arg.error).code)
end
measure_drain(id, job[3], arg.run_us)
return 'committed'
