-- Stands in front of every other script, behind the constants that scripts.py writes: LANES,
-- MAX_BATCHED_ID_BYTES, PART_WORK, HEARTBEAT_MS, LEASE_MS, MAX_ATTEMPTS, MAX_QUEUE_JOBS, MAX_QUEUE_BYTES,
-- MAX_QUEUE_MS, MAX_IMAGE_PIXELS, RECORD_TTL_SECONDS, RESULT_TTL_SECONDS, DEAD_MAX_JOBS,
-- DEAD_MAX_BYTES, DEAD_TTL_SECONDS.
-- P is the prefix of all keys; the table of keys is in keys.py. `arg` is the script's argument.
-- The time is always the server's: one clock for every gateway and worker.
local P = KEYS[1]
local arg = cjson.decode(ARGV[1])
local time = redis.call('TIME')
local now_us = tonumber(time[1]) * 1000000 + tonumber(time[2])
local now = math.floor(now_us / 1000)

-- A lane is named by its model and a number, as `codes.3`.
local function lane_key(lane) return P .. ':lane:' .. lane end
local function list_key(lane) return P .. '.' .. lane end
local function model_of(lane) return string.match(lane, '^(.+)%.%d+$') end
local function lanes_of(model)
  local lanes = {}
  for number = 0, LANES - 1 do lanes[number + 1] = model .. '.' .. number end
  return lanes
end
local function job_key(id) return P .. ':job:' .. id end
local function heavy_key(lane) return P .. ':heavy:' .. lane end
local function result_key(id) return 'celery-task-meta-' .. id end
local function webhook_key(id) return P .. ':webhook:' .. id end
local function field(key, name) return tonumber(redis.call('HGET', key, name) or '0') or 0 end
local function stat(name) return field(P .. ':stats', name) end
local function count(name, by) redis.call('HINCRBY', P .. ':stats', name, by or 1) end

-- The parts of a job with many tiles, `{id}#0` and so on, wait and run like jobs, with records and leases
-- of their own. All that clients see is the job's. A part's record is there for as long as what the
-- part finds is missing; `open` of the job's record counts them.
local function is_part(id) return string.find(id, '^[^#]+#%d+$') ~= nil end
local function job_of(id) return string.match(id, '^([^#]+)#%d+$') or id end
local function found_key(part) return P .. ':found:' .. part end
-- In forward passes: what a place in a lane stands for.
local function work_of(id) return is_part(id) and PART_WORK or 1 end

-- Models that have workers or jobs, or had some lately, by name.
local function model_key(model) return P .. ':model:' .. model end
local function is_version(name) return string.sub(name, 1, 8) == 'version:' end
local function models() return redis.call('ZRANGE', P .. ':models', 0, -1) end
local function all_lanes()
  local lanes = {}
  for _, model in ipairs(models()) do
    for _, lane in ipairs(lanes_of(model)) do lanes[#lanes + 1] = lane end
  end
  return lanes
end

-- Uploads: the scripts' side of upload_storage.py.
local function image_key(id) return P .. ':image:' .. id end
local function dead_image_key(id) return P .. ':dead-image:' .. id end
local function has_image(id) return redis.call('EXISTS', image_key(id)) == 1 end
local function drop_image(id) redis.call('UNLINK', image_key(id)) end
local function keep_dead_image(id)
  if has_image(id) then
    redis.call('RENAME', image_key(id), dead_image_key(id))
    redis.call('EXPIRE', dead_image_key(id), DEAD_TTL_SECONDS)
  end
end

-- Every state of a job goes to its own stream, kept with the job, so that a client can resume.
local function record_event(id, state, ttl, ...)
  local stream = P .. ':events:' .. id
  redis.call('XADD', stream, 'MAXLEN', '~', 64, '*', 'status', state, ...)
  redis.call('EXPIRE', stream, ttl)
end

-- A change of state also goes to the one channel that gateways listen to.
local function announce(id, state, ttl, ...)
  record_event(id, state, ttl, ...)
  redis.call('PUBLISH', P .. ':changes', id .. ' ' .. state)
end

-- `owed` keeps each queued job's share of the totals as `bytes owner`, to subtract when it leaves the
-- queue. The record has both, too, but it may be lost.
local function client_of(lane, owner) return model_of(lane) .. '|' .. owner end
local function add_queued_bytes(lane, bytes)
  count('queued_bytes', bytes)
  redis.call('HINCRBY', model_key(model_of(lane)), 'queued_bytes', bytes)
end

local function leave_queue(id, lane)
  if redis.call('ZREM', lane_key(lane), id) == 0 then return end
  if is_part(id) then redis.call('ZREM', heavy_key(lane), id) end
  local bytes, owner = string.match(redis.call('HGET', P .. ':owed', id) or '', '^(%d+) (.*)$')
  redis.call('HDEL', P .. ':owed', id)
  if not bytes then return end  -- somebody deleted it; recount.lua corrects the totals
  add_queued_bytes(lane, -bytes)
  local client = client_of(lane, owner)
  if redis.call('HINCRBY', P .. ':clients', client .. '|jobs', -1) <= 0 then
    redis.call('HDEL', P .. ':clients', client .. '|jobs', client .. '|lane')
  end
end

-- What waits in a lane, in forward passes.
local function work_in(lane)
  return redis.call('ZCARD', lane_key(lane)) + redis.call('ZCARD', heavy_key(lane)) * (PART_WORK - 1)
end

-- A client keeps the lane in which it has jobs of a model; a client without any gets the shortest of the
-- model's lanes. Workers take from the lanes in turn, so that a long backlog of one client does not delay
-- the others.
local function lane_of(model, owner)
  local lane = redis.call('HGET', P .. ':clients', model .. '|' .. owner .. '|lane')
  if lane then return lane end
  local shortest, length
  for _, each in ipairs(lanes_of(model)) do
    local work = work_in(each)
    if length == nil or work < length then shortest, length = each, work end
  end
  return shortest
end

-- The record has no time to live until the job ends: nothing may wait for a job whose record is gone.
local function join_queue(id, lane, owner, bytes, seq)
  redis.call('PERSIST', job_key(id))
  redis.call('ZADD', lane_key(lane), seq, id)
  if is_part(id) then redis.call('ZADD', heavy_key(lane), seq, id) end
  redis.call('HSET', P .. ':owed', id, bytes .. ' ' .. owner)
  add_queued_bytes(lane, bytes)
  local client = client_of(lane, owner)
  redis.call('HINCRBY', P .. ':clients', client .. '|jobs', 1)
  redis.call('HSET', P .. ':clients', client .. '|lane', lane)
end

local function queued_jobs(model)
  local total = 0
  for _, lane in ipairs(lanes_of(model)) do total = total + redis.call('ZCARD', lane_key(lane)) end
  return total
end
local function queued_work(model)
  local total = 0
  for _, lane in ipairs(lanes_of(model)) do total = total + work_in(lane) end
  return total
end
local function all_queued_jobs()
  local total = 0
  for _, model in ipairs(models()) do total = total + queued_jobs(model) end
  return total
end

-- How much of a bound one model may use, given what the others use. If it has jobs waiting already, not
-- all that is left: a model whose workers are away must not shut the others out.
local function limit_of_model(model, bound, others, waiting)
  local itself = redis.call('ZSCORE', P .. ':models', model) and 1 or 0
  local alone = redis.call('ZCARD', P .. ':models') == itself
  if alone or waiting == 0 then return bound - others end
  return math.ceil((bound - others) * 0.75)
end

-- To be called whenever a worker reports or leaves.
local function sum_ready_processes()
  local all, of_model = 0, {}
  for _, text in ipairs(redis.call('HVALS', P .. ':workers')) do
    local report = cjson.decode(text)
    local ready = report.ready or 0
    all = all + ready
    for model in pairs(report.models or {}) do of_model[model] = (of_model[model] or 0) + ready end
  end
  redis.call('HSET', P .. ':stats', 'ready_processes', all, 'ready_processes_ms', now)
  for _, model in ipairs(models()) do
    redis.call('HSET', model_key(model), 'ready_processes', of_model[model] or 0)
  end
end

-- Ready pool processes as last summed up; 0 when no worker has reported for long. A report from the
-- future is from before the clock was set back. `key`: of the whole service, or of a model.
local STATS = P .. ':stats'
local function ready_processes(key)
  if math.abs(now - stat('ready_processes_ms')) > 10000 then return 0 end
  return field(key, 'ready_processes')
end

-- Microseconds between two finished forward passes while there is a backlog. Measured if there was one in
-- the last 30 s, else derived from the mean run time; 0 when nothing is known yet.
local function drain_interval_us(key)
  local ready = ready_processes(key)
  if ready > 0 and math.abs(now - field(key, 'drain_ms')) < 30000 and field(key, 'drain_us') > 0 then
    return field(key, 'drain_us')
  end
  if ready > 0 then return field(key, 'run_us') / ready end
  return 0
end

-- How much work of the model comes first when its lanes are served evenly, in forward passes, and one:
-- 1 is next. O(lanes * log n).
local function position_of(id, lane)
  local rank = redis.call('ZRANK', lane_key(lane), id)
  if not rank then return 0 end
  local seq = redis.call('ZSCORE', lane_key(lane), id)
  local turn = rank + 1 + redis.call('ZCOUNT', heavy_key(lane), '-inf', '(' .. seq) * (PART_WORK - 1)
  local position = turn
  for _, other in ipairs(lanes_of(model_of(lane))) do
    if other ~= lane then position = position + math.min(work_in(other), turn) end
  end
  return position
end

-- Even if somebody has deleted its record, or that of its job.
local function drop_part(part)
  local lane = redis.call('HGET', job_key(part), 'lane') or redis.call('HGET', job_key(job_of(part)), 'lane')
  if lane then leave_queue(part, lane) end
  redis.call('ZREM', P .. ':leases', part)
  redis.call('UNLINK', job_key(part), found_key(part))
end

-- A part goes with its job, whose record somebody may delete. Returns whether it has gone.
local function drop_orphan(id)
  if not is_part(id) then return false end
  local state = redis.call('HGET', job_key(job_of(id)), 'state')
  if state == 'queued' or state == 'processing' then return false end
  drop_part(id)
  return true
end

-- End a job, of which `id` may be a part. The caller has stored its result, if any, in this same script, so
-- that neither state nor result is seen without the other.
local function close(id, state, ...)
  id = job_of(id)
  local key, result = job_key(id), result_key(id)
  for number = 0, field(key, 'parts') - 1 do drop_part(id .. '#' .. number) end
  redis.call('ZREM', P .. ':in-parts', id)
  drop_image(id)
  redis.call('HSET', key, 'state', state, 'finished_ms', now, ...)
  redis.call('EXPIRE', key, RESULT_TTL_SECONDS)
  redis.call('EXPIRE', result, RESULT_TTL_SECONDS)
  -- Only a Celery producer that waits for its result listens; do not copy a picture for nobody.
  if redis.call('PUBSUB', 'NUMSUB', result)[2] > 0 then
    local meta = redis.call('GET', result)
    if meta then redis.call('PUBLISH', result, meta) end
  end
  count('jobs:' .. state)
  announce(id, state, RESULT_TTL_SECONDS)
  local hook = redis.call('HMGET', key, 'webhook_url', 'owner', 'model')
  redis.call('HINCRBY', model_key(hook[3]), 'jobs:' .. state, 1)
  if hook[1] then
    -- The webhook outlives the job: its receiver may be away for longer.
    redis.call('HSET', webhook_key(id), 'url', hook[1], 'owner', hook[2], 'attempts', 0)
    redis.call('EXPIRE', webhook_key(id), 2 * 86400)
    redis.call('ZADD', P .. ':webhooks', now, id)
  end
end

-- Drop the messages at the head of a lane whose jobs have ended or run already. A pool process would
-- spend milliseconds on each of them.
local LONG_MESSAGE = 8192 -- bytes: a task that carries its image inline, which is not ours to drop
local function drop_leftovers(lane)
  for _ = 1, 1000 do
    local message = redis.call('LINDEX', list_key(lane), -1)
    if not message or #message > LONG_MESSAGE
        or not string.find(message, '"origin": "yolo-queue"', 1, true) then return end
    local id = string.match(message, '"id": "([^"]+)"')
    if not id or redis.call('HGET', job_key(id), 'state') == 'queued' then return end
    redis.call('RPOP', list_key(lane))
  end
end

local function expire_if_overdue(id)
  if drop_orphan(id) then return true end
  local job = redis.call('HMGET', job_key(id), 'state', 'created_ms', 'lane')
  if job[1] ~= 'queued' or now - tonumber(job[2]) <= MAX_QUEUE_MS then return false end
  leave_queue(id, job[3])
  close(id, 'expired')
  return true
end

-- End the jobs that have waited too long, the oldest of each lane first. The bound keeps the script
-- to some milliseconds. Returns how many jobs left the queue.
local SWEPT_AT_ONCE = 256
local function expire_overdue()
  local left = 0
  for _, lane in ipairs(all_lanes()) do
    local before = left
    for _, id in ipairs(redis.call('ZRANGE', lane_key(lane), 0, SWEPT_AT_ONCE - left - 1)) do
      if redis.call('EXISTS', job_key(id)) == 0 then leave_queue(id, lane)
      elseif not expire_if_overdue(id) then break end
      left = left + 1
    end
    if left > before then drop_leftovers(lane) end
    if left >= SWEPT_AT_ONCE then break end
  end
  return left
end

-- A queued job becomes a worker's. The attempt is counted here, before any work: a file that kills
-- its process must not run for ever. The number returned is the fencing token of what follows.
local function start_attempt(id, lane, worker)
  leave_queue(id, lane)
  local attempt = redis.call('HINCRBY', job_key(id), 'attempts', 1)
  redis.call('HSET', job_key(id), 'state', 'processing', 'worker', worker, 'started_ms', now)
  redis.call('PERSIST', job_key(id))
  redis.call('ZADD', P .. ':leases', now + LEASE_MS, id)
  count('attempts')
  local whole = job_of(id)
  if whole ~= id then  -- the job begins with its first part, once
    if redis.call('HGET', job_key(whole), 'state') ~= 'queued' then return attempt end
    redis.call('HSET', job_key(whole), 'state', 'processing', 'started_ms', now, 'attempts', 1)
  end
  announce(whole, 'processing', RECORD_TTL_SECONDS, 'attempt', attempt)
  return attempt
end

-- A forward pass has ended, or those of a part. `run_us`: since the claim.
local function count_run_time(id, model, run_us)
  local sample = math.floor(run_us / work_of(id))
  for _, key in ipairs({STATS, model_key(model)}) do
    local mean = field(key, 'run_us')
    redis.call('HSET', key, 'run_us', mean > 0 and math.floor(mean * 0.9 + sample * 0.1) or sample)
  end
end

-- Drain rate, of the whole service and of the model: the time since work ended before, if there was a
-- backlog all the while. A longer time than this took (and 2 s) means that nobody worked in between.
local function measure_drain(id, model, run_us)
  local function measure(key, waiting)
    local previous = field(key, 'finished_us')
    local passed = now_us - previous
    if field(key, 'backlog') == 1 and passed > 0 and passed < run_us + 2000000 then
      local mean, sample = field(key, 'drain_us'), passed / work_of(id)
      if now - field(key, 'drain_ms') > 30000 then mean = sample end  -- so too if nothing was measured yet
      redis.call('HSET', key, 'drain_us', math.floor(mean * 0.95 + sample * 0.05), 'drain_ms', now)
    end
    redis.call('HSET', key, 'finished_us', string.format('%.0f', now_us), 'backlog',
      waiting > 0 and 1 or 0)
  end
  measure(STATS, all_queued_jobs())
  measure(model_key(model), queued_jobs(model))
end

-- Forget a dead letter and its image. Returns whether there was one.
local function drop_dead_letter(id)
  count('dead_bytes', 0 - tonumber(redis.call('HGET', P .. ':dead-bytes', id) or '0'))
  redis.call('HDEL', P .. ':dead-bytes', id)
  redis.call('DEL', P .. ':dead:' .. id, dead_image_key(id))
  return redis.call('ZREM', P .. ':dead', id) == 1
end

-- Keep a dead letter. The oldest ones are dropped while there are too many.
local function keep_dead_letter(id, bytes, ...)
  redis.call('HSET', P .. ':dead:' .. id, 'bytes', bytes, 'died_ms', now, ...)
  redis.call('EXPIRE', P .. ':dead:' .. id, DEAD_TTL_SECONDS)
  redis.call('ZADD', P .. ':dead', string.format('%.0f', now_us), id)
  redis.call('HSET', P .. ':dead-bytes', id, bytes)
  count('dead_bytes', bytes)
  while true do
    local oldest = redis.call('ZRANGE', P .. ':dead', 0, 0, 'WITHSCORES')
    if not oldest[1] or (redis.call('ZCARD', P .. ':dead') <= DEAD_MAX_JOBS
        and stat('dead_bytes') <= DEAD_MAX_BYTES
        and tonumber(oldest[2]) >= now_us - DEAD_TTL_SECONDS * 1000000) then break end
    drop_dead_letter(oldest[1])
  end
end

-- The record with position and estimate, flat: field, value, field, value ... Empty if it is gone, or if
-- `id` is a part.
local function view(id)
  if is_part(id) then return {} end
  local record = redis.call('HGETALL', job_key(id))
  local job = redis.call('HMGET', job_key(id), 'state', 'lane', 'parts')
  if job[1] == 'queued' then
    -- It begins with its first part, and has ended with its last one.
    local position = position_of(job[3] and id .. '#0' or id, job[2])
    local last = job[3] and position_of(id .. '#' .. job[3] - 1, job[2]) + PART_WORK - 1 or position
    local key = model_key(model_of(job[2]))
    local interval = drain_interval_us(key)
    record[#record + 1] = 'position'
    record[#record + 1] = tostring(position)
    if interval > 0 then
      record[#record + 1] = 'eta_ms'
      record[#record + 1] = tostring(math.floor((last * interval + field(key, 'run_us')) / 1000))
    end
  end
  return record
end
