-- Accept one or several jobs of one owner for one model: records, places in the queue and Celery
-- messages in one step, or a refusal that leaves nothing behind. Their uploads are stored already; a refusal deletes
-- them.
-- Safe to repeat: jobs that are there already are accepted again without being counted twice.
-- arg: owner, model, idempotency_key, fingerprint, adopt (Celery has delivered the task already, so it
--      needs no message and no room in the queue),
--      jobs: {id, bytes, params, width, height, content_type, messages, webhook_url, traceparent} each;
--      messages: one, or one for each part that the job is done in
local first = arg.jobs[1]

local known = {}
for _, job in ipairs(arg.jobs) do
  if redis.call('EXISTS', job_key(job.id)) == 1 then known[#known + 1] = view(job.id) end
end
if #known > 0 then return {'accepted', known} end

local function refuse(status, why)
  for _, job in ipairs(arg.jobs) do drop_image(job.id) end
  return {status, why}
end

-- Nothing is ever kept under the empty key.
local idem = P .. ':idem:' .. arg.idempotency_key
local earlier = redis.call('HMGET', idem, 'id', 'fingerprint')
if earlier[1] and redis.call('EXISTS', job_key(earlier[1])) == 1 then
  if earlier[2] ~= arg.fingerprint then return refuse('conflict', {}) end
  return refuse('replayed', {view(earlier[1])})
end

local bytes, places = 0, 0
for _, job in ipairs(arg.jobs) do
  bytes = bytes + job.bytes
  places = places + #job.messages
  if not has_image(job.id) then return refuse('unstored', {}) end
end
local key, waiting = model_key(arg.model), queued_jobs(arg.model)
local its_bytes = field(key, 'queued_bytes')
local max_jobs = limit_of_model(arg.model, MAX_QUEUE_JOBS, all_queued_jobs() - waiting, waiting)
local max_bytes = limit_of_model(arg.model, MAX_QUEUE_BYTES, stat('queued_bytes') - its_bytes, waiting)
if not arg.adopt and (waiting + places > max_jobs or its_bytes + bytes > max_bytes) then
  count('refused', #arg.jobs)
  return refuse('full', {tostring(waiting), tostring(queued_work(arg.model)), tostring(drain_interval_us(key))})
end

redis.call('ZADD', P .. ':models', 'NX', now, arg.model)
local lane = lane_of(arg.model, arg.owner)
local function add(id, job, bytes)
  local seq = redis.call('HINCRBY', P .. ':stats', 'seq', 1)
  redis.call('HSET', job_key(id), 'task_id', id, 'state', 'queued', 'owner', arg.owner, 'model', arg.model,
    'lane', lane, 'seq', seq, 'bytes', bytes, 'params', job.params, 'width', job.width, 'height', job.height,
    'content_type', job.content_type, 'created_ms', now, 'attempts', 0)
  if job.traceparent ~= '' then redis.call('HSET', job_key(id), 'traceparent', job.traceparent) end
  return seq
end
local views = {}
for i, job in ipairs(arg.jobs) do
  local seq, parts = add(job.id, job, job.bytes), #job.messages
  if job.webhook_url ~= '' then redis.call('HSET', job_key(job.id), 'webhook_url', job.webhook_url) end
  if parts == 1 then
    join_queue(job.id, lane, arg.owner, job.bytes, seq)
    if not arg.adopt then redis.call('LPUSH', list_key(lane), job.messages[1]) end
  else
    redis.call('HSET', job_key(job.id), 'parts', parts, 'open', parts)
    redis.call('ZADD', P .. ':in-parts', now, job.id)
    for number = 0, parts - 1 do
      local part = job.id .. '#' .. number
      -- The upload waits until the last part is taken.
      local its_bytes = number == parts - 1 and job.bytes or 0
      seq = add(part, job, its_bytes)
      redis.call('HSET', job_key(part), 'parts', parts)
      join_queue(part, lane, arg.owner, its_bytes, seq)
      redis.call('LPUSH', list_key(lane), job.messages[number + 1])
    end
  end
  -- Not announced: nobody can be waiting for a job that was not there.
  record_event(job.id, 'queued', RECORD_TTL_SECONDS)
  views[i] = view(job.id)
end
count('accepted', #arg.jobs)
redis.call('HINCRBY', key, 'accepted', #arg.jobs)
if arg.idempotency_key ~= '' then
  redis.call('HSET', idem, 'id', first.id, 'fingerprint', arg.fingerprint)
  redis.call('EXPIRE', idem, RECORD_TTL_SECONDS)
end
return {'accepted', views}
