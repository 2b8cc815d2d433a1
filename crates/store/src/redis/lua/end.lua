-- ARGV: now, ending, kept. Answers when it ended, or -1 if it had before or is unknown.
local status = redis.call('HGET', KEYS[1], 'status')
if not status or status == 'c' then
  return -1
end
local now = time(ARGV[1])
finish(now, ARGV[2], ARGV[3])
return now
