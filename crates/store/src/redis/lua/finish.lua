-- Ends a campaign. KEYS are always: meta, claims, targets, waiting, failed, log, handed.
-- `kept` is for how many milliseconds the keys live on if nobody comes to delete them.
local function finish(now, ending, kept)
  redis.call('HSET', KEYS[1], 'status', 'c', 'ending', ending, 'ended', now)
  redis.call('HDEL', KEYS[1], 'grace')
  redis.call('DEL', KEYS[2])
  for key = 1, #KEYS do
    redis.call('PEXPIRE', KEYS[key], kept)
  end
end
