-- KEYS: head. ARGV: what the keys of the kinds' hashes begin with, the revision that the caller knows.
-- Answers {revision, nonce, whether records are gone that nobody has deleted}.
local revision = redis.call('HGET', KEYS[1], 'revision')
local gone = not revision and tonumber(ARGV[2]) > 0
local fields = redis.call('HGETALL', KEYS[1])
for at = 1, #fields, 2 do
  local kind = string.match(fields[at], '^n:(.+)$')
  if kind and redis.call('HLEN', ARGV[1] .. kind) < tonumber(fields[at + 1]) then
    gone = true
  end
end
return { revision or '0', redis.call('HGET', KEYS[1], 'nonce') or '', gone and 1 or 0 }
