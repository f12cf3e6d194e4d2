-- Opens the log: gives it an epoch, and its messages ids where they have none.
--
-- KEYS  list, id, epoch
-- ARGV  a random name for a new epoch;
--       the epoch to be replaced (the log went back), or "";
--       to adopt a list without ids: the SHA-1 of its texts joined by newlines, or ""; the newest id;
--       then the texts that take their place, newest first
-- Returns "OPEN" where a log stands (now), "ADOPT" where the list must be given ids first.

local list, id_key, epoch_key = KEYS[1], KEYS[2], KEYS[3]
local new_epoch, lost_epoch, sha1, newest = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local epoch, last = redis.call('GET', epoch_key), redis.call('GET', id_key)

if epoch and last then
  if epoch == lost_epoch then redis.call('SET', epoch_key, new_epoch) end
  return 'OPEN'
end
if not last then
  if redis.call('LLEN', list) > 0 then
    if sha1 == '' or redis.sha1hex(table.concat(redis.call('LRANGE', list, 0, -1), '\n')) ~= sha1 then
      return 'ADOPT'
    end
    redis.call('DEL', list)
    for i = 5, #ARGV do redis.call('RPUSH', list, ARGV[i]) end
  else
    newest = '0'
  end
  redis.call('SET', id_key, newest)
end
redis.call('SET', epoch_key, new_epoch)
return 'OPEN'
