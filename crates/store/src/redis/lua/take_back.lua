-- KEYS: handed. ARGV: hosts. Their last hand-outs do not count.
for _, host in ipairs(ARGV) do
  local handed = redis.call('HGET', KEYS[1], host)
  if handed then
    local at, often = string.match(handed, '^(%d+):(%d+)$')
    redis.call('HSET', KEYS[1], host, string.format('%s:%d', at, math.max(tonumber(often) - 1, 0)))
  end
end
return 1
