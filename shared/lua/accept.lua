-- Accept a job: record, place in the queue and Celery message in one step, or a refusal that
-- leaves nothing behind. An empty message adopts a task that Celery has already delivered.
-- ARGV: id owner bytes params width height content_type message record_ttl result_ttl
--       max_queue_ms max_jobs max_bytes idempotency_key fingerprint extra
local id, owner, bytes = ARGV[1], ARGV[2], tonumber(ARGV[3])
local message, record_ttl, result_ttl = ARGV[8], ARGV[9], tonumber(ARGV[10])
local max_queue_ms = tonumber(ARGV[11])

if ARGV[14] ~= '' then
  local known = redis.call('HMGET', P .. ':idem:' .. ARGV[14], 'id', 'fingerprint')
  if known[1] and redis.call('EXISTS', job_key(known[1])) == 1 then
    if known[2] ~= ARGV[15] then return {'conflict', {}} end
    return {'replayed', view(known[1])}
  end
end

local lane = lane_of(owner)
if message ~= '' then
  -- Overdue jobs at the head must not keep new ones out while no worker is there to drop them.
  local oldest = redis.call('ZRANGE', lane_key(lane), 0, 7)
  for _, other in ipairs(oldest) do expire_if_overdue(other, result_ttl, max_queue_ms) end
  if queued_jobs() >= tonumber(ARGV[12]) or stat('queued_bytes') + bytes > tonumber(ARGV[13]) then
    count('refused')
    return {'full', {tostring(queued_jobs()), tostring(drain_interval_us())}}
  end
end

local seq = redis.call('HINCRBY', P .. ':stats', 'seq', 1)
redis.call('HSET', job_key(id), 'task_id', id, 'state', 'queued', 'owner', owner, 'lane', lane,
  'seq', seq, 'bytes', bytes, 'params', ARGV[4], 'width', ARGV[5], 'height', ARGV[6],
  'content_type', ARGV[7], 'created_ms', now, 'attempts', 0)
redis.call('EXPIRE', job_key(id), record_ttl)
if ARGV[16] ~= '' then redis.call('HSET', job_key(id), 'extra', ARGV[16]) end
join_queue(id, lane, owner, bytes, seq)
if ARGV[14] ~= '' then
  local idem = P .. ':idem:' .. ARGV[14]
  redis.call('HSET', idem, 'id', id, 'fingerprint', ARGV[15])
  redis.call('EXPIRE', idem, record_ttl)
end
if message ~= '' then redis.call('LPUSH', list_key(lane), message) end
count('accepted')
announce(id, 'queued', record_ttl)
return {'accepted', view(id)}
