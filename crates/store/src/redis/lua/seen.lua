-- KEYS: chunks, chunk. ARGV: the chunk's number, ttl, then place and milliseconds of each host. Only the latest counts.
local get, set = { 'BITFIELD', KEYS[2] }, { 'BITFIELD', KEYS[2] }
for at = 3, #ARGV, 2 do
  local from = #get
  get[from + 1], get[from + 2], get[from + 3] = 'GET', 'u48', '#' .. ARGV[at]
end
local was = redis.call(unpack(get))
for at = 3, #ARGV, 2 do
  if tonumber(ARGV[at + 1]) > was[(at - 1) / 2] then
    local from = #set
    set[from + 1], set[from + 2], set[from + 3], set[from + 4] = 'SET', 'u48', '#' .. ARGV[at], ARGV[at + 1]
  end
end
if #set > 2 then
  redis.call(unpack(set))
  redis.call('SADD', KEYS[1], ARGV[1])
  redis.call('PEXPIRE', KEYS[2], ARGV[2])
end
return 1
