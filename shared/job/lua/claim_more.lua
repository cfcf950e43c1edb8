-- Start attempts at queued jobs of the same model that can share a forward pass with one that this
-- worker has claimed.
-- They go ahead of jobs that wait before them, so the lane's mark (heartbeat.lua) stays.
-- arg: id, attempt, worker, wanted
-- Returns the records of the jobs that were claimed, each flat.
local SPARE = 16 -- entries of a lane that are looked at beyond as many as are wanted

local claimed = {}
local job = redis.call('HMGET', job_key(arg.id), 'state', 'attempts', 'params', 'lane', 'width', 'height')
if job[1] ~= 'processing' or tonumber(job[2]) ~= arg.attempt or is_part(arg.id) then return claimed end
-- All pictures of a batch are decoded at once, in the memory that the largest single one may take. A
-- job of unknown size is a retried dead letter: it runs alone.
local pixels = tonumber(job[5]) * tonumber(job[6])
if pixels == 0 then return claimed end
local room = MAX_IMAGE_PIXELS - pixels

-- Leave the other ready processes their share: two jobs run faster on two processes than in one batch.
local model = model_of(job[4])
local ready = math.max(1, ready_processes(model_key(model)))
local share = math.ceil((queued_jobs(model) + 1) / ready) - 1
local wanted = math.min(arg.wanted, share)

-- First attempts alone: a job that was lost may be what killed its process, and the batch with it.
local function joins(other)
  if is_part(other) or #other > MAX_BATCHED_ID_BYTES or expire_if_overdue(other) then return false end
  local its = redis.call('HMGET', job_key(other), 'attempts', 'params', 'width', 'height', 'lane')
  if its[1] ~= '0' or its[2] ~= job[3] then return false end
  local size = tonumber(its[3]) * tonumber(its[4])
  if size == 0 or size > room then return false end
  room = room - size
  start_attempt(other, its[5], arg.worker)
  return true
end

local heads, looked = {}, {}
local function next_of(lane)
  if not heads[lane] then
    heads[lane], looked[lane] = redis.call('ZRANGE', lane_key(lane), 0, wanted + SPARE - 1), 0
  end
  while looked[lane] < #heads[lane] do
    looked[lane] = looked[lane] + 1
    local other = heads[lane][looked[lane]]
    if joins(other) then return other end
  end
end

-- One of each lane in turn, the next lane first, so that fair share stays.
local lanes, own = lanes_of(model), tonumber(string.match(job[4], '%d+$')) + 1
local taken, found = {}, wanted > 0
while found do
  found = false
  for step = 1, LANES do
    local lane = lanes[(own + step - 1) % LANES + 1]
    local other = #claimed < wanted and next_of(lane)
    if other then
      found = true
      claimed[#claimed + 1] = redis.call('HGETALL', job_key(other))
      taken[lane] = taken[lane] or {left = 0}
      taken[lane][other], taken[lane].left = true, taken[lane].left + 1
    end
  end
end

-- Remove their messages, which are near the end of the lists that is taken from next. A message that
-- is not found there (another worker has it, or it is written otherwise) is dropped by whoever gets
-- it, since the job is running; but that takes a pool process 3 ms, more than a batch saves.
for lane, of_lane in pairs(taken) do
  local list, at = list_key(lane), 0
  while of_lane.left > 0 and at < wanted + SPARE do
    at = at + 1
    local message = redis.call('LINDEX', list, -at)
    if not message or #message > LONG_MESSAGE then break end
    local about = string.match(message, '"id": "([^"]+)"')
    if of_lane[about] then
      redis.call('LREM', list, -1, message)
      of_lane[about], of_lane.left, at = nil, of_lane.left - 1, at - 1
    end
  end
end
return claimed
