-- KEYS: meta, targets, waiting, failed, log, handed. ARGV: nonce, ttl, then host, failed (0 or 1) and body of each answer.
-- Answers {'U'} (unknown), {'C'} (closed), or {'O', first position, nonce before, epoch, one letter an answer}:
-- A accepted, D duplicate, N not targeted. Accepted answers have consecutive positions.
-- All accepted answers are one entry of the log: its number is the position of the last of them, its first field the
-- nonce of the entry before, so that a reader notices when an entry does not follow the one that it knows.
local meta = redis.call('HMGET', KEYS[1], 'status', 'seq', 'small', 'bits', 'nonce', 'epoch')
if not meta[1] then
  return { 'U' }
end
if meta[1] == 'c' then
  return { 'C' }
end
local count = (#ARGV - 2) / 3
local small = meta[3] == '1'
local bits = tonumber(meta[4])
local was = {}
if small then
  for at = 1, count do
    was[at] = redis.call('SREM', KEYS[3], ARGV[at * 3])
  end
else
  local set, place = { 'BITFIELD', KEYS[3] }, {}
  for at = 1, count do
    local host = ARGV[at * 3]
    -- Asking for a bit beyond the end would make the bitmap grow.
    if tonumber(host) < bits then
      place[#place + 1] = at
      local from = #set
      set[from + 1], set[from + 2], set[from + 3], set[from + 4] = 'SET', 'u1', host, 0
    end
  end
  if #place > 0 then
    for at, old in ipairs(redis.call(unpack(set))) do
      was[place[at]] = old
    end
  end
end
local verdicts, entry, done = {}, { meta[5], ARGV[1] }, {}
for at = 1, count do
  local host = ARGV[at * 3]
  if was[at] == 1 then
    verdicts[at] = 'A'
    local failed = ARGV[at * 3 + 1] == '1'
    local from = #entry
    entry[from + 1] = failed and host .. '!' or host
    entry[from + 2] = ARGV[at * 3 + 2]
    done[#done + 1] = host
    if failed then
      if small then
        redis.call('SADD', KEYS[4], host)
      else
        redis.call('SETBIT', KEYS[4], host, 1)
      end
      redis.call('PEXPIRE', KEYS[4], ARGV[2])
    end
  else
    local targeted = 0
    if small then
      targeted = redis.call('SISMEMBER', KEYS[2], host)
    elseif tonumber(host) < bits then
      targeted = redis.call('GETBIT', KEYS[2], host)
    end
    verdicts[at] = targeted == 1 and 'D' or 'N'
  end
end
local before = tonumber(meta[2])
if #done > 0 then
  local last = before + #done
  redis.call('XADD', KEYS[5], string.format('%d-0', last), unpack(entry))
  redis.call('HSET', KEYS[1], 'seq', last, 'nonce', ARGV[1])
  redis.call('HDEL', KEYS[6], unpack(done))
  if before == 0 then
    redis.call('PEXPIRE', KEYS[5], ARGV[2])
  end
end
return { 'O', before + 1, meta[5], tonumber(meta[6]), table.concat(verdicts) }
