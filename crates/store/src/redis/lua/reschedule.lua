-- KEYS: deadlines, active, campaigns. ARGV, four a campaign: number, the deadline that was seen, the new one (or ''),
-- what is left of it: W it is open, C it is over, U nothing. A deadline that somebody has changed meanwhile stays.
for at = 1, #ARGV, 4 do
  local id, seen, new, left = ARGV[at], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3]
  if left ~= 'W' then
    redis.call('SREM', KEYS[2], id)
  end
  if left == 'U' then
    redis.call('ZREM', KEYS[1], id)
    redis.call('ZREM', KEYS[3], id)
  elseif redis.call('ZSCORE', KEYS[1], id) == seen then
    redis.call('ZADD', KEYS[1], new, id)
  end
end
return 1
