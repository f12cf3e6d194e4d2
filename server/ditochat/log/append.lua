-- Appends a batch of messages: number, push, trim, publish; all of it or nothing.
--
-- KEYS  list, id, epoch, the batch's nonce; then one nonce key for each message that has a nonce
-- ARGV  history limit, largest message in bytes, channel, the epoch and newest id that the caller knows,
--       life of a nonce and of the batch's nonce (ms), envelope before and after the message;
--       then per message: its JSON object, "1" if it has a date, "1" if it has a nonce
-- Returns {"NO_LOG"} where no log was opened, {"WENT_BACK"} where the newest id is older than the caller's,
--       else {"OK", epoch, then per message: id, outcome, text}; the outcome is 0 for stored,
--       1 for a repeated nonce (its text empty where it is no longer kept), 2 for too large.

local list, id_key, epoch_key, batch_key = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local limit, max_bytes, channel = tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3]
local known_epoch, known_id = ARGV[4], tonumber(ARGV[5])
local nonce_ms, batch_ms, before, after = ARGV[6], ARGV[7], ARGV[8], ARGV[9]
local STORED, REPEATED, TOO_LARGE = 0, 1, 2

local epoch = redis.call('GET', epoch_key)
local last = tonumber(redis.call('GET', id_key))
redis.call('LLEN', list)  -- a key of another type fails here, before the first write
if not epoch or not last then return {'NO_LOG'} end
if epoch == known_epoch and last < known_id then return {'WENT_BACK'} end

local time = redis.call('TIME')
local seconds, milliseconds = tonumber(time[1]), math.floor(tonumber(time[2]) / 1000)
local ts = string.format('%d%03d', seconds, milliseconds)

-- Days to a date of the Gregorian calendar: http://howardhinnant.github.io/date_algorithms.html
local function iso8601()
  local floor = math.floor
  local z = floor(seconds / 86400) + 719468
  local era = floor(z / 146097)
  local doe = z - era * 146097
  local yoe = floor((doe - floor(doe / 1460) + floor(doe / 36524) - floor(doe / 146096)) / 365)
  local doy = doe - (365 * yoe + floor(yoe / 4) - floor(yoe / 100))
  local mp = floor((5 * doy + 2) / 153)
  local day = doy - floor((153 * mp + 2) / 5) + 1
  local month = mp < 10 and mp + 3 or mp - 9
  local year = yoe + era * 400 + (month <= 2 and 1 or 0)
  local rest = seconds % 86400
  return string.format('%04d-%02d-%02dT%02d:%02d:%02d.%03dZ', year, month, day,
    floor(rest / 3600), floor(rest / 60) % 60, rest % 60, milliseconds)
end

-- What a stranger pushed into the list moves all that is below it: better no text than another message's.
local function text_of(id)
  local text, begin = redis.call('LINDEX', list, last - id) or '', string.format('{"id":%d,', id)
  return string.sub(text, 1, #begin) == begin and text or ''
end

-- A batch whose answer was lost is sent again: its nonce holds the id that it began with.
local first = tonumber(redis.call('GET', batch_key))
local next_id = first or last + 1
if first then
  -- WAIT looks at its own connection's last write, and a retry may come over a new one: it has to write, too.
  redis.call('PEXPIRE', batch_key, batch_ms)
else
  redis.call('SET', batch_key, string.format('%d', next_id), 'PX', batch_ms)
end

local reply, texts = {'OK', epoch}, {}
local arg, key = 10, 5
while ARGV[arg] do
  local body, dated, has_nonce = ARGV[arg], ARGV[arg + 1] == '1', ARGV[arg + 2] == '1'
  arg = arg + 3
  local nonce_key, known
  if has_nonce then
    nonce_key, key = KEYS[key], key + 1
    known = tonumber(redis.call('GET', nonce_key))
    if first and known == next_id then known = nil end  -- this batch's own, not a repeat
  end
  local id, outcome, text = next_id, STORED, nil
  if known then
    id, outcome, text = known, REPEATED, texts[known - last] or text_of(known)
  else
    text = string.format('{"id":%d,"ts":%s,', id, ts)
    if dated then
      text = text .. string.sub(body, 2)
    else
      text = text .. string.sub(body, 2, -2) .. ',"date":"' .. iso8601() .. '"}'
    end
    if #text > max_bytes then
      outcome, text = TOO_LARGE, ''
    else
      next_id = id + 1
      if first then
        text = text_of(id)
      else
        texts[#texts + 1] = text
        if nonce_key then redis.call('SET', nonce_key, string.format('%d', id), 'PX', nonce_ms) end
      end
    end
  end
  reply[#reply + 1], reply[#reply + 2], reply[#reply + 3] = id, outcome, text
end

if #texts > 0 then
  redis.call('LPUSH', list, unpack(texts))
  redis.call('LTRIM', list, 0, limit - 1)
  redis.call('SET', id_key, string.format('%d', next_id - 1))
  for _, text in ipairs(texts) do
    -- A follower that is not told finds out by itself; so a refused PUBLISH undoes nothing.
    redis.pcall('PUBLISH', channel, before .. text .. after .. epoch .. '"}')
  end
end
return reply
