-- Count again what waits and what is dead, and correct the totals: `queued_bytes`, `clients`, `owed`, `heavy`,
-- `dead_bytes`. They are right unless somebody deletes keys or two versions of this software meet.
-- arg: every_ms (nothing is done if another gateway did it since)
-- Also forgets models that are not used any more.
-- Returns in words what was corrected; nothing if all was right.
local MODEL_TTL_MS = 7 * 86400000 -- from the last heartbeat of a worker that serves it

if math.abs(now - stat('recounted_ms')) < arg.every_ms then return {} end
redis.call('HSET', P .. ':stats', 'recounted_ms', now)

local corrected = {}
local function correct(key, name, counted, words)
  local kept = field(key, name)
  if kept ~= counted then
    corrected[#corrected + 1] = words .. ' from ' .. kept .. ' to ' .. counted
    redis.call('HSET', key, name, counted)
  end
end

local stray = {}
local flat = redis.call('HGETALL', P .. ':owed')
for i = 1, #flat, 2 do stray[flat[i]] = flat[i + 1] end

local bytes, bytes_of, clients, gone = 0, {}, {}, 0
for _, model in ipairs(models()) do
  bytes_of[model] = 0
  for _, lane in ipairs(lanes_of(model)) do
    redis.call('DEL', heavy_key(lane))
    for _, id in ipairs(redis.call('ZRANGE', lane_key(lane), 0, -1)) do
      drop_orphan(id)
      local record = redis.call('HMGET', job_key(id), 'state', 'bytes', 'owner', 'seq')
      if record[1] == 'queued' then
        local owed = record[2] .. ' ' .. record[3]
        if stray[id] ~= owed then redis.call('HSET', P .. ':owed', id, owed) end
        if is_part(id) then redis.call('ZADD', heavy_key(lane), record[4], id) end
        bytes_of[model] = bytes_of[model] + tonumber(record[2])
        local name = client_of(lane, record[3])
        local client = clients[name] or {jobs = 0, lane = lane}
        client.jobs = client.jobs + 1
        clients[name] = client
      else
        redis.call('ZREM', lane_key(lane), id)
        redis.call('HDEL', P .. ':owed', id)
        gone = gone + 1
      end
      stray[id] = nil
    end
  end
  bytes = bytes + bytes_of[model]
end
if gone > 0 then corrected[#corrected + 1] = gone .. ' places of jobs that are gone' end
for id in pairs(stray) do redis.call('HDEL', P .. ':owed', id) end
correct(STATS, 'queued_bytes', bytes, 'queued_bytes')
for _, model in ipairs(models()) do
  correct(model_key(model), 'queued_bytes', bytes_of[model], 'queued_bytes of ' .. model)
end

local known, wrong = {}, 0
flat = redis.call('HGETALL', P .. ':clients')
for i = 1, #flat, 2 do known[flat[i]] = flat[i + 1] end
for name, client in pairs(clients) do
  if known[name .. '|jobs'] ~= tostring(client.jobs) or not known[name .. '|lane'] then
    redis.call('HSET', P .. ':clients', name .. '|jobs', client.jobs, name .. '|lane', client.lane)
    wrong = wrong + 1
  end
  known[name .. '|jobs'], known[name .. '|lane'] = nil, nil
end
for name in pairs(known) do
  redis.call('HDEL', P .. ':clients', name)
  wrong = wrong + 1
end
if wrong > 0 then corrected[#corrected + 1] = wrong .. ' entries of clients' end

local dead = 0
for _, size in ipairs(redis.call('HVALS', P .. ':dead-bytes')) do dead = dead + tonumber(size) end
correct(STATS, 'dead_bytes', dead, 'dead_bytes')

-- Forget models that nobody has served for long, and that have no jobs.
local used = {}
for _, text in ipairs(redis.call('HVALS', P .. ':workers')) do
  for model in pairs(cjson.decode(text).models or {}) do used[model] = true end
end
for _, id in ipairs(redis.call('ZRANGE', P .. ':leases', 0, -1)) do
  used[redis.call('HGET', job_key(id), 'model')] = true
end
for _, model in ipairs(redis.call('ZRANGEBYSCORE', P .. ':models', '-inf', now - MODEL_TTL_MS)) do
  if not used[model] and queued_jobs(model) == 0 then
    for _, lane in ipairs(lanes_of(model)) do
      redis.call('UNLINK', list_key(lane))  -- of messages whose jobs have ended
      redis.call('HDEL', P .. ':marks', 'taken:' .. lane, 'overtaken:' .. lane, 'at:' .. lane)
    end
    redis.call('UNLINK', model_key(model))
    redis.call('ZREM', P .. ':models', model)
  end
end
return corrected
