-- KEYS: meta, claims. ARGV: now, node, grace. Answers the deadline, which this may have brought nearer, or 0 if there is none.
-- Called again it answers the same, so that whoever did not hear the answer can ask again.
local meta = redis.call('HMGET', KEYS[1], 'status', 'grace')
if meta[1] ~= 'r' then
  return 0
end
local gone = redis.call('HDEL', KEYS[2], ARGV[2])
local grace = tonumber(ARGV[3])
local last = 0
for _, lease in ipairs(redis.call('HVALS', KEYS[2])) do
  last = math.max(last, tonumber(lease))
end
if last > 0 then
  return last + grace
end
if gone == 0 then
  return tonumber(meta[2] or 0)
end
local ends = time(ARGV[1]) + grace
redis.call('HSET', KEYS[1], 'grace', ends)
return ends
