-- End jobs that nobody will work on: jobs that have waited too long, and jobs whose worker was lost
-- when no other came for as long. A gateway runs it each second, so it works without any worker.
-- No argument. Returns 1 if there may be more of them.
local GRACE_MS = 60000 -- for workers to renew their leases once Redis is back

local ended = expire_overdue()

-- As in heartbeat.lua: after a gap in which nobody could reach Redis, workers come first.
if now - stat('gateway_swept_ms') > 10000 or stat('orphans_from_ms') > now + GRACE_MS then
  redis.call('HSET', P .. ':stats', 'orphans_from_ms', now + GRACE_MS)
end
redis.call('HSET', P .. ':stats', 'gateway_swept_ms', now)
if now >= stat('orphans_from_ms') then
  local lapsed = redis.call('ZRANGEBYSCORE', P .. ':leases', '-inf', now - MAX_QUEUE_MS,
    'LIMIT', 0, SWEPT_AT_ONCE)
  for _, id in ipairs(lapsed) do
    redis.call('ZREM', P .. ':leases', id)
    drop_orphan(id)
    if redis.call('HGET', job_key(id), 'state') == 'processing' then close(id, 'expired') end
    ended = ended + 1
  end
end
-- A job whose parts somebody has deleted. Those that wait expire by themselves.
local function has_parts(id)
  for number = 0, field(job_key(id), 'parts') - 1 do
    if redis.call('EXISTS', job_key(id .. '#' .. number)) == 1 then return true end
  end
  return false
end
for _, id in ipairs(redis.call('ZRANGEBYSCORE', P .. ':in-parts', '-inf', '(' .. now - MAX_QUEUE_MS)) do
  if redis.call('EXISTS', job_key(id)) == 0 then redis.call('ZREM', P .. ':in-parts', id)
  elseif not has_parts(id) then close(id, 'expired') end
end
return ended >= SWEPT_AT_ONCE and 1 or 0
