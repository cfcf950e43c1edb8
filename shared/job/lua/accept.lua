-- Accept one or several jobs: records, places in the queue and Celery messages in one step, or a
-- refusal that leaves nothing behind. An empty message adopts a task Celery has delivered already.
-- Safe to repeat: jobs that are there already are accepted again without being counted twice.
-- ARGV: owner record_ttl max_jobs max_bytes idempotency_key fingerprint
--       images_here(1: on this server, where they must be by now)
--       then for each job: id bytes params width height content_type message webhook_url traceparent
local owner, record_ttl, idempotency_key = ARGV[1], ARGV[2], ARGV[5]
local HEAD, EACH = 7, 9

if redis.call('EXISTS', job_key(ARGV[HEAD + 1])) == 1 then
  local known = {}
  for i = HEAD + 1, #ARGV, EACH do known[#known + 1] = view(ARGV[i]) end
  return {'accepted', known}
end

if idempotency_key ~= '' then
  local known = redis.call('HMGET', P .. ':idem:' .. idempotency_key, 'id', 'fingerprint')
  if known[1] and redis.call('EXISTS', job_key(known[1])) == 1 then
    if known[2] ~= ARGV[6] then return {'conflict', {}} end
    return {'replayed', {view(known[1])}}
  end
end

local jobs, bytes, adopting = 0, 0, false
for i = HEAD + 1, #ARGV, EACH do
  jobs = jobs + 1
  bytes = bytes + tonumber(ARGV[i + 1])
  adopting = ARGV[i + 6] == ''
  if ARGV[7] == '1' and redis.call('EXISTS', image_key(ARGV[i])) == 0 then return {'unstored', {}} end
end
local lane = lane_of(owner)
if not adopting then
  if queued_jobs() + jobs > tonumber(ARGV[3])
      or stat('queued_bytes') + bytes > tonumber(ARGV[4]) then
    count('refused', jobs)
    return {'full', {tostring(queued_jobs()), tostring(drain_interval_us())}}
  end
end

local views = {}
for i = HEAD + 1, #ARGV, EACH do
  local id, size, message = ARGV[i], tonumber(ARGV[i + 1]), ARGV[i + 6]
  local seq = redis.call('HINCRBY', P .. ':stats', 'seq', 1)
  redis.call('HSET', job_key(id), 'task_id', id, 'state', 'queued', 'owner', owner, 'lane', lane,
    'seq', seq, 'bytes', size, 'params', ARGV[i + 2], 'width', ARGV[i + 3],
    'height', ARGV[i + 4], 'content_type', ARGV[i + 5], 'created_ms', now, 'attempts', 0)
  if ARGV[i + 7] ~= '' then redis.call('HSET', job_key(id), 'webhook_url', ARGV[i + 7]) end
  if ARGV[i + 8] ~= '' then redis.call('HSET', job_key(id), 'traceparent', ARGV[i + 8]) end
  join_queue(id, lane, owner, size, seq)
  if message ~= '' then redis.call('LPUSH', list_key(lane), message) end
  record_event(id, 'queued', record_ttl)  -- nobody can be waiting for a job that was not there
  views[#views + 1] = view(id)
end
count('accepted', jobs)
if idempotency_key ~= '' then
  local idem = P .. ':idem:' .. idempotency_key
  redis.call('HSET', idem, 'id', ARGV[HEAD + 1], 'fingerprint', ARGV[6])
  redis.call('EXPIRE', idem, record_ttl)
end
return {'accepted', views}
