-- KEYS: head, changes, kinds, then the hashes of the kinds that occur. ARGV: nonce, how many changes are remembered, the
-- revision that the caller knows, then six a change: which hash (from 1), kind, key, expectation (* any, - absent, or a
-- revision), whether there is a value, value.
-- Answers {1, revision}, {0, the change (from 0) that is not as expected}, or {2, 0}: records are gone that nobody deleted.
local count = (#ARGV - 3) / 6
local kinds = {}
for change = 0, count - 1 do
  kinds[tonumber(ARGV[4 + change * 6])] = ARGV[5 + change * 6]
end
if tonumber(ARGV[3]) > 0 and redis.call('EXISTS', KEYS[1]) == 0 then
  return { 2, 0 }
end
for hash, kind in pairs(kinds) do
  local expected = redis.call('HGET', KEYS[1], 'n:' .. kind)
  if expected and redis.call('HLEN', KEYS[3 + hash]) < tonumber(expected) then
    return { 2, 0 }
  end
end
for change = 0, count - 1 do
  local at = 4 + change * 6
  local expect = ARGV[at + 3]
  if expect ~= '*' then
    local now = redis.call('HGET', KEYS[3 + ARGV[at]], ARGV[at + 2])
    local revision = now and string.match(now, '^(%d+):') or '-'
    if revision ~= expect then
      return { 0, change }
    end
  end
end
local revision = redis.call('HINCRBY', KEYS[1], 'revision', 1)
redis.call('HSET', KEYS[1], 'nonce', ARGV[1])
for change = 0, count - 1 do
  local at = 4 + change * 6
  local hash, kind, key, value = KEYS[3 + ARGV[at]], ARGV[at + 1], ARGV[at + 2], ARGV[at + 5]
  local id = string.format('%d-%d', revision, change)
  if ARGV[at + 4] == '1' then
    redis.call('HSET', hash, key, string.format('%d:', revision) .. value)
    redis.call('SADD', KEYS[3], kind)
    redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[2], id, 'n', ARGV[1], kind, key, 'v', value)
  else
    redis.call('HDEL', hash, key)
    redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[2], id, 'n', ARGV[1], kind, key)
  end
end
for hash, kind in pairs(kinds) do
  redis.call('HSET', KEYS[1], 'n:' .. kind, redis.call('HLEN', KEYS[3 + hash]))
end
return { 1, revision }
