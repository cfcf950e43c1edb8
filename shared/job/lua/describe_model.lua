-- Describe a model in a version that a worker serves. Versions that nobody serves any more are forgotten.
-- arg: model, version, description (JSON text)
local served = {['version:' .. arg.version] = true}
for _, text in ipairs(redis.call('HVALS', P .. ':workers')) do
  local version = (cjson.decode(text).models or {})[arg.model]
  if version then served['version:' .. version] = true end
end
for _, name in ipairs(redis.call('HKEYS', model_key(arg.model))) do
  if is_version(name) and not served[name] then redis.call('HDEL', model_key(arg.model), name) end
end
redis.call('ZADD', P .. ':models', now, arg.model)
redis.call('HSET', model_key(arg.model), 'version:' .. arg.version, now .. ' ' .. arg.description)
return 1
