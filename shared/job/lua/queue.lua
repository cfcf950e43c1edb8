-- The state of the queue, for /queue, /models, /ready and /metrics.
-- arg: descriptions (whether to return all that workers said of their models, classes too; if not, the
--      task alone)
-- Returns jobs running, counters, reports of workers, dead letters, ready processes and drain interval of
-- the whole service, and for each model: name, jobs waiting, their work in forward passes, jobs running, age of the oldest in ms, ready processes,
-- drain interval in us, its hash.
local of_models, running = {}, {}
for _, id in ipairs(redis.call('ZRANGE', P .. ':leases', 0, -1)) do
  local model = redis.call('HGET', job_key(id), 'model')
  running[model] = (running[model] or 0) + 1
end
for _, model in ipairs(models()) do
  local oldest, key = 0, model_key(model)
  for _, lane in ipairs(lanes_of(model)) do
    local head = redis.call('ZRANGE', lane_key(lane), 0, 0)[1]
    local created = head and redis.call('HGET', job_key(head), 'created_ms')
    if created then oldest = math.max(oldest, now - tonumber(created)) end
  end
  local stats = redis.call('HGETALL', key)
  for i = 1, arg.descriptions and 0 or #stats, 2 do
    if is_version(stats[i]) then
      local task = string.match(stats[i + 1], '^%d+ {"task": "%a+"')
      stats[i + 1] = task and task .. '}' or ''
    end
  end
  of_models[#of_models + 1] = {model, queued_jobs(model), queued_work(model), running[model] or 0, tostring(oldest), ready_processes(key),
    tostring(drain_interval_us(key)), stats}
end
return {redis.call('ZCARD', P .. ':leases'), redis.call('HGETALL', STATS),
  redis.call('HGETALL', P .. ':workers'), redis.call('ZCARD', P .. ':dead'), ready_processes(STATS),
  tostring(drain_interval_us(STATS)), of_models}
