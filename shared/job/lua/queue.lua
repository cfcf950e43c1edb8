-- The state of the queue, for /queue, /ready and /metrics. No argument.
local oldest = 0
for lane = 0, LANES - 1 do
  local head = redis.call('ZRANGE', lane_key(lane), 0, 0)[1]
  local created = head and redis.call('HGET', job_key(head), 'created_ms')
  if created then oldest = math.max(oldest, now - tonumber(created)) end
end
return {queued_jobs(), redis.call('ZCARD', P .. ':leases'), tostring(oldest), ready_processes(),
  tostring(drain_interval_us()), redis.call('HGETALL', P .. ':stats'),
  redis.call('HGETALL', P .. ':workers'), redis.call('ZCARD', P .. ':dead')}
