-- What time it is: the caller's milliseconds, or the server's own where the caller passes -1.
local function time(given)
  given = tonumber(given)
  if given >= 0 then
    return given
  end
  local now = redis.call('TIME')
  return now[1] * 1000 + math.floor(now[2] / 1000)
end
