-- KEYS: meta. ARGV: the epoch that the caller knows. Counts it up unless somebody has; answers the epoch, or -1.
local epoch = redis.call('HGET', KEYS[1], 'epoch')
if not epoch then
  return -1
end
if epoch ~= ARGV[1] then
  return tonumber(epoch)
end
return redis.call('HINCRBY', KEYS[1], 'epoch', 1)
