-- KEYS: deadlines, reaper. ARGV: now, limit, lease, the longest pause between two calls (-1: any).
-- Answers the campaigns to look at, each with its deadline as it is stored. None for one lease after a pause:
-- then the store or every node was away, and viewers had no way to renew what they claim.
local now = time(ARGV[1])
local pause = tonumber(ARGV[4])
if pause >= 0 then
  local reaper = redis.call('HMGET', KEYS[2], 'last', 'quiet')
  local quiet = tonumber(reaper[2] or 0)
  if reaper[1] and now - tonumber(reaper[1]) > pause then
    quiet = now + tonumber(ARGV[3])
  end
  redis.call('HSET', KEYS[2], 'last', now, 'quiet', quiet)
  if now < quiet then
    return {}
  end
end
return redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'WITHSCORES', 'LIMIT', 0, ARGV[2])
