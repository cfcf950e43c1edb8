-- A worker's heartbeat, every HEARTBEAT_MS: renews the leases of what it runs, reports its ready pool
-- processes, and finds work that nobody holds any more.
-- arg: worker, report (JSON text; its `models` are the versions served by name), running (ids)
-- Returns {lost, vanished, unknown}: ids with attempt whose lease ran out; ids whose message is gone;
-- models that nobody has described in this version.
local worker = arg.worker

-- Write something harmless first: Redis checks its memory limit only before a script's first write. If
-- this heartbeat were refused, the worker would lose its leases and so its healthy jobs.
redis.call('ZREM', P .. ':leases', '')

for _, id in ipairs(arg.running) do
  -- A job that does not run has no lease, and gets none here.
  if redis.call('HGET', job_key(id), 'worker') == worker then
    redis.call('ZADD', P .. ':leases', 'XX', now + LEASE_MS, id)
  end
end

-- The clock was set back since the last heartbeat. What is written down for a time that was near would
-- wait for as long as the step was: a dead worker's jobs and its place in the list, a lost message.
if now < stat('swept_ms') then
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', P .. ':leases', '(' .. now + LEASE_MS, '+inf')) do
    redis.call('ZADD', P .. ':leases', now + LEASE_MS, id)
  end
  for _, seen in ipairs(redis.call('ZRANGEBYSCORE', P .. ':workers-seen', '(' .. now, '+inf')) do
    redis.call('ZADD', P .. ':workers-seen', now, seen)
  end
  for _, lane in ipairs(all_lanes()) do
    local at = redis.call('HGET', P .. ':marks', 'at:' .. lane)
    if at and tonumber(at) > now then redis.call('HSET', P .. ':marks', 'at:' .. lane, now) end
  end
end

redis.call('HSET', P .. ':workers', worker, arg.report)
redis.call('ZADD', P .. ':workers-seen', now, worker)
local unknown = {}
for model, version in pairs(cjson.decode(arg.report).models or {}) do
  redis.call('ZADD', P .. ':models', now, model)
  if redis.call('HEXISTS', model_key(model), 'version:' .. version) == 0 then
    unknown[#unknown + 1] = model
  end
end
local absent_since = now - 3 * HEARTBEAT_MS - 1000
for _, gone in ipairs(redis.call('ZRANGEBYSCORE', P .. ':workers-seen', '-inf', absent_since)) do
  redis.call('HDEL', P .. ':workers', gone)
  redis.call('ZREM', P .. ':workers-seen', gone)
end
sum_ready_processes()

-- Leases are wall time, but a worker cannot renew one while Redis is away. After a gap in which
-- nobody could reach it, everyone gets a full lease before anything is taken from them. A clock that
-- is set forward looks the same. One that is set back later must not make the grace longer.
if now - stat('swept_ms') > 3 * HEARTBEAT_MS or stat('grace_until_ms') > now + LEASE_MS then
  redis.call('HSET', P .. ':stats', 'grace_until_ms', now + LEASE_MS)
end
redis.call('HSET', P .. ':stats', 'swept_ms', now)
local lost = {}
if now >= stat('grace_until_ms') then
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', P .. ':leases', '-inf', now, 'LIMIT', 0, 100)) do
    local attempt = redis.call('HGET', job_key(id), 'attempts')
    if attempt then lost[#lost + 1] = {id, attempt}
    else redis.call('ZREM', P .. ':leases', id) end
  end
end

expire_overdue()

-- A message can vanish between the broker and a worker that dies. A lane is first in, first out. So a
-- queued job has lost its message if a later job of its lane was taken, or the lane's list is empty,
-- and this is still so after LEASE_MS. A second message would do no harm. Where nobody takes messages,
-- none has vanished.
local vanished = {}
for _, lane in ipairs(all_lanes()) do
  if redis.call('ZCARD', lane_key(lane)) > 0 and ready_processes(model_key(model_of(lane))) > 0 then
    local mark = redis.call('HMGET', P .. ':marks', 'overtaken:' .. lane, 'at:' .. lane)
    local passed = tonumber(redis.call('HGET', P .. ':marks', 'taken:' .. lane) or '0')
    if redis.call('LLEN', list_key(lane)) == 0 then passed = stat('seq') + 1 end
    if not mark[2] then
      redis.call('HSET', P .. ':marks', 'overtaken:' .. lane, passed, 'at:' .. lane, now)
    elseif now - tonumber(mark[2]) >= LEASE_MS then
      vanished = redis.call('ZRANGEBYSCORE', lane_key(lane), '-inf', '(' .. mark[1], 'LIMIT', 0, 100)
      redis.call('HSET', P .. ':marks', 'overtaken:' .. lane, passed, 'at:' .. lane, now)
      if #vanished > 0 then break end
    end
  else
    redis.call('HDEL', P .. ':marks', 'overtaken:' .. lane, 'at:' .. lane)
  end
end
return {lost, vanished, unknown}
