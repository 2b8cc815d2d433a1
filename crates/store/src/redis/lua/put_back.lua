-- KEYS: head, changes, kinds, sequences. ARGV: what the keys of the kinds' hashes begin with, a revision, a nonce, then three
-- a kind: its name, the largest number in it, whether there is a sequence for it.
-- The kinds' records are in place again: counts them, and has every node read all of them.
local revision = math.max(tonumber(redis.call('HGET', KEYS[1], 'revision') or '0'), tonumber(ARGV[2])) + 1
redis.call('DEL', KEYS[2])
redis.call('HSET', KEYS[1], 'revision', string.format('%d', revision), 'nonce', ARGV[3])
for at = 4, #ARGV, 3 do
  local kind, largest = ARGV[at], tonumber(ARGV[at + 1])
  redis.call('SADD', KEYS[3], kind)
  redis.call('HSET', KEYS[1], 'n:' .. kind, redis.call('HLEN', ARGV[1] .. kind))
  if ARGV[at + 2] == '1' and tonumber(redis.call('HGET', KEYS[4], kind) or '0') < largest then
    redis.call('HSET', KEYS[4], kind, string.format('%d', largest))
  end
end
return 1
