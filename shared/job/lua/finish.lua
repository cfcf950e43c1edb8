-- Commit an attempt's outcome, once: only the attempt that holds the job may.
-- The result was set under a key of the attempt's own just before, and is only renamed here: as an
-- argument, half a megabyte would be copied twice on its way through Lua.
-- arg: id, attempt, state (completed or failed), staged (that key), error (JSON text, or ''),
--      run_us (since the claim, as the worker measured it: this clock may have been set meanwhile)
local id = arg.id
local job = redis.call('HMGET', job_key(id), 'state', 'attempts', 'model')
if job[1] ~= 'processing' or tonumber(job[2]) ~= arg.attempt then
  count('stale_commits')
  redis.call('UNLINK', arg.staged)
  return 'stale'
end
if redis.call('EXISTS', arg.staged) == 0 then return 'unstaged' end
local of_model = model_key(job[3])
redis.call('RENAME', arg.staged, result_key(id))
redis.call('ZREM', P .. ':leases', id)
if arg.state == 'completed' then
  close(id, 'completed')
  for _, key in ipairs({STATS, of_model}) do
    local mean = field(key, 'run_us')
    redis.call('HSET', key, 'run_us', mean > 0 and math.floor(mean * 0.9 + arg.run_us * 0.1) or arg.run_us)
  end
else
  close(id, 'failed', 'error', arg.error)
  count('failed:' .. cjson.decode(arg.error).code)
end

-- Drain rate, of the whole service and of the model: the time since the previous job, if there was a
-- backlog all the while. A longer time than this job ran (and 2 s) means that nobody worked in between.
local function measure(key, waiting)
  local previous = field(key, 'finished_us')
  if field(key, 'backlog') == 1 and now_us > previous and now_us - previous < arg.run_us + 2000000 then
    local mean = field(key, 'drain_us')
    local sample = now_us - previous
    if now - field(key, 'drain_ms') > 30000 then mean = sample end  -- so too if nothing was measured yet
    redis.call('HSET', key, 'drain_us', math.floor(mean * 0.95 + sample * 0.05), 'drain_ms', now)
  end
  redis.call('HSET', key, 'finished_us', string.format('%.0f', now_us), 'backlog',
    waiting > 0 and 1 or 0)
end
measure(STATS, all_queued_jobs())
measure(of_model, queued_jobs(job[3]))
return 'committed'
