-- KEYS: session. ARGV: node. Forgets the session if it is this node's.
if redis.call('GET', KEYS[1]) == ARGV[1] then
  redis.call('DEL', KEYS[1])
end
return 1
