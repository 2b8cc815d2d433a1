-- Looks whether a campaign must end or be forgotten, and does it. ARGV: now, unclaimed, grace, longest, retention, kept.
-- Answers {'U'} unknown, {'F'} forgotten now, {'E', at, ending} ended now, {'C', at} over, forgotten at,
-- {'W', at} still open, look again at.
local meta = redis.call('HMGET', KEYS[1], 'status', 'created', 'grace', 'ended')
if not meta[1] then
  return { 'U' }
end
local now = time(ARGV[1])
if meta[1] == 'c' then
  local forgotten = tonumber(meta[4]) + tonumber(ARGV[5])
  if now < forgotten then
    return { 'C', forgotten }
  end
  redis.call('DEL', unpack(KEYS))
  return { 'F' }
end
local expired = tonumber(meta[2]) + tonumber(ARGV[4])
local idle, ending
if meta[1] == 'w' then
  idle, ending = tonumber(meta[2]) + tonumber(ARGV[2]), 'unclaimed'
else
  ending = 'unwatched'
  idle = tonumber(meta[3])
  if not idle then
    for _, lease in ipairs(redis.call('HVALS', KEYS[2])) do
      idle = math.max(idle or 0, tonumber(lease) + tonumber(ARGV[3]))
    end
  end
end
if now >= expired and not (idle and now >= idle and ending == 'unclaimed') then
  idle, ending = expired, 'expired'
end
if idle and now >= idle then
  finish(now, ending, ARGV[6])
  return { 'E', now, ending }
end
return { 'W', math.min(idle or expired, expired) }
