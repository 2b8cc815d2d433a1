-- KEYS: meta, waiting, handed. ARGV: now, host, overdue, most, ttl.
-- Answers {0} never, {1} give, {2, milliseconds} not before so many milliseconds from now.
local meta = redis.call('HMGET', KEYS[1], 'status', 'small', 'bits')
if not meta[1] or meta[1] == 'c' then
  return { 0 }
end
local host = ARGV[2]
local waits = 0
if meta[2] == '1' then
  waits = redis.call('SISMEMBER', KEYS[2], host)
elseif tonumber(host) < tonumber(meta[3]) then
  waits = redis.call('GETBIT', KEYS[2], host)
end
if waits == 0 then
  return { 0 }
end
local now = time(ARGV[1])
local times = 0
local handed = redis.call('HGET', KEYS[3], host)
if handed then
  local at, often = string.match(handed, '^(%d+):(%d+)$')
  times = tonumber(often)
  local overdue = tonumber(at) + tonumber(ARGV[3])
  if now < overdue then
    return { 2, overdue - now }
  end
  if times >= tonumber(ARGV[4]) then
    return { 0 }
  end
end
redis.call('HSET', KEYS[3], host, string.format('%d:%d', now, times + 1))
redis.call('PEXPIRE', KEYS[3], ARGV[5])
return { 1 }
