-- KEYS: meta, targets, waiting. ARGV: now, ttl, small, bits, first wait (unclaimed or the longest), sql, query id,
-- user id, query name (empty or '=' and the name), teams, then one bitmap (small = 0) or any number of hosts (small = 1).
-- Answers {created, deadline}, or {-1} if there is a campaign of this number already.
if redis.call('EXISTS', KEYS[1]) == 1 then
  return { -1 }
end
local now = time(ARGV[1])
local ttl = ARGV[2]
redis.call('HSET', KEYS[1], 'status', 'w', 'created', now, 'small', ARGV[3], 'bits', ARGV[4], 'sql', ARGV[6],
  'query', ARGV[7], 'user', ARGV[8], 'name', ARGV[9], 'teams', ARGV[10], 'seq', 0, 'nonce', '', 'epoch', 0)
redis.call('PEXPIRE', KEYS[1], ttl)
if #ARGV >= 11 then
  for key = 2, 3 do
    if ARGV[3] == '1' then
      redis.call('SADD', KEYS[key], unpack(ARGV, 11))
    else
      redis.call('SET', KEYS[key], ARGV[11])
    end
    redis.call('PEXPIRE', KEYS[key], ttl)
  end
end
return { now, now + tonumber(ARGV[5]) }
