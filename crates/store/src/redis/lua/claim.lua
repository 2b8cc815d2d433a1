-- KEYS: meta, claims. ARGV: now, node, lease, ttl, grace. Answers {'U'}, {'E', ending} or {'O', deadline}. A first claim can
-- bring the deadline nearer; later ones only move it further away.
local meta = redis.call('HMGET', KEYS[1], 'status', 'ending')
if not meta[1] then
  return { 'U' }
end
if meta[1] == 'c' then
  return { 'E', meta[2] }
end
local lease = time(ARGV[1]) + tonumber(ARGV[3])
redis.call('HSET', KEYS[2], ARGV[2], lease)
redis.call('PEXPIRE', KEYS[2], ARGV[4])
redis.call('HDEL', KEYS[1], 'grace')
redis.call('HSET', KEYS[1], 'status', 'r')
return { 'O', lease + tonumber(ARGV[5]) }
