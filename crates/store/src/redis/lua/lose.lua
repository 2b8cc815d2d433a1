-- KEYS: handed. ARGV: hosts. Nobody got the query by their last hand-outs: these do not count, and the hosts are given it
-- when they next ask.
for _, host in ipairs(ARGV) do
  local handed = redis.call('HGET', KEYS[1], host)
  if handed then
    local often = string.match(handed, '^%d+:(%d+)$')
    redis.call('HSET', KEYS[1], host, string.format('0:%d', math.max(tonumber(often) - 1, 0)))
  end
end
return 1
