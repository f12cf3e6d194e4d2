-- Reads the state of the log and the messages since an id, at one moment.
--
-- KEYS  list, id, epoch
-- ARGV  an id: its message and all later ones are read; -1 for all
-- Returns {} where no log was opened, else {epoch, newest id, then the texts, newest first}.

local epoch = redis.call('GET', KEYS[3])
local last = redis.call('GET', KEYS[2])
if not epoch or not last then return {} end
local from = tonumber(ARGV[1])
local count = from < 0 and 0 or tonumber(last) - from + 1
local reply = {epoch, tonumber(last)}
if from < 0 or count > 0 then
  for _, text in ipairs(redis.call('LRANGE', KEYS[1], 0, count - 1)) do reply[#reply + 1] = text end
end
return reply
