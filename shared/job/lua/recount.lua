-- Count again what waits and what is dead, and correct the totals: `queued_bytes`, `clients`, `owed`,
-- `dead_bytes`. They are right unless somebody deletes keys or two versions of this software meet.
-- arg: every_ms (nothing is done if another gateway did it since)
-- Returns in words what was corrected; nothing if all was right.
if math.abs(now - stat('recounted_ms')) < arg.every_ms then return {} end
redis.call('HSET', P .. ':stats', 'recounted_ms', now)

local corrected = {}
local stray = {}
local flat = redis.call('HGETALL', P .. ':owed')
for i = 1, #flat, 2 do stray[flat[i]] = flat[i + 1] end

local bytes, clients, gone = 0, {}, 0
for lane = 0, LANES - 1 do
  for _, id in ipairs(redis.call('ZRANGE', lane_key(lane), 0, -1)) do
    local record = redis.call('HMGET', job_key(id), 'state', 'bytes', 'owner')
    if record[1] == 'queued' then
      local owed = record[2] .. ' ' .. record[3]
      if stray[id] ~= owed then redis.call('HSET', P .. ':owed', id, owed) end
      bytes = bytes + tonumber(record[2])
      local client = clients[record[3]] or {jobs = 0, lane = lane}
      client.jobs = client.jobs + 1
      clients[record[3]] = client
    else
      redis.call('ZREM', lane_key(lane), id)
      redis.call('HDEL', P .. ':owed', id)
      gone = gone + 1
    end
    stray[id] = nil
  end
end
if gone > 0 then corrected[#corrected + 1] = gone .. ' places of jobs that are gone' end
for id in pairs(stray) do redis.call('HDEL', P .. ':owed', id) end

if stat('queued_bytes') ~= bytes then
  corrected[#corrected + 1] = 'queued_bytes from ' .. stat('queued_bytes') .. ' to ' .. bytes
  redis.call('HSET', P .. ':stats', 'queued_bytes', bytes)
end

local known, wrong = {}, 0
flat = redis.call('HGETALL', P .. ':clients')
for i = 1, #flat, 2 do known[flat[i]] = flat[i + 1] end
for owner, client in pairs(clients) do
  if known[owner .. '|jobs'] ~= tostring(client.jobs) or not known[owner .. '|lane'] then
    redis.call('HSET', P .. ':clients', owner .. '|jobs', client.jobs, owner .. '|lane', client.lane)
    wrong = wrong + 1
  end
  known[owner .. '|jobs'], known[owner .. '|lane'] = nil, nil
end
for field in pairs(known) do
  redis.call('HDEL', P .. ':clients', field)
  wrong = wrong + 1
end
if wrong > 0 then corrected[#corrected + 1] = wrong .. ' entries of clients' end

local dead = 0
for _, size in ipairs(redis.call('HVALS', P .. ':dead-bytes')) do dead = dead + tonumber(size) end
if stat('dead_bytes') ~= dead then
  corrected[#corrected + 1] = 'dead_bytes from ' .. stat('dead_bytes') .. ' to ' .. dead
  redis.call('HSET', P .. ':stats', 'dead_bytes', dead)
end
return corrected
