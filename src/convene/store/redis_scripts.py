"""The counters of Redis as Lua: each text is one atomic step, with the server's own clock.

The rules are those of `limits/gcra.py`, the oracle, in doubles: every integer here stays below 2^53, where doubles are
exact. Amounts are below 2^51 and prices are cut at 2^51 (`AMOUNT_MOST`); the one product that may be larger, units x
step, is multiplied digit by digit. What debts add up to is held at 2^53: the year 2255 of TATs, and of money 9 billion
in millionths.

    {tag}:leases          sorted set: lease -> when its time is up, in microseconds since 1970
    {tag}:held            hash: lease -> what it holds: plan, amounts, the first answer (now, states), round, of each
                          budget the period charged last and the charge in it, limits; msgpack
    {tag}:rate:COUNTER    two doubles, TAT and rest; gone when the TAT has passed
    {tag}:used:COUNTER    two doubles, period and what was used in it; gone when the period is over
    {tag}:slots:COUNTER   sorted set: lease -> when its time is up
    {tag}:fresh           there from the first claim of the rebuilding on

KEYS are always the first two. The names of the others are in the plan, a flat list of six items a limit (kind, unit,
step, per, most, key): a lease knows its own, so nobody has to send them again. All keys have one hash tag and so lie on
one node of a cluster. `most` is what the charged state may reach: of a rate its window (-1 if it allows nothing).
"""

from __future__ import annotations

from typing import Final

SERVER_CLOCK: Final = """
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local wall, spare_ms = now, 1000
"""
"""What each script begins with: the time for rates and that for budgets, and for how long to keep what has passed."""

AMOUNT_MOST: Final = 1 << 51
"""The largest amount of a limit or a charge: what is computed from two of them is still exact in a double."""

PRELUDE: Final = """
local call, floor, ceil, min, max = redis.call, math.floor, math.ceil, math.min, math.max
local RATE, SLOTS, DAY, MONTH = 0, 1, 2, 3
local WIDTH, CUT, EXACT = 6, 2^51, 2^53

-- The number of the period in which a moment lies (limits/periods.py).
local function number(kind, at)
  if kind ~= DAY and kind ~= MONTH then return 0 end
  local day = floor(at / 86400000000)
  if kind == DAY then return day end
  day = day + 719468
  local era = floor(day / 146097)
  day = day - era * 146097
  local year = floor((day - floor(day / 1460) + floor(day / 36524) - floor(day / 146096)) / 365)
  day = day - (365 * year + floor(year / 4) - floor(year / 100))
  return 12 * (400 * era + year) + floor((5 * day + 2) / 153) + 2
end

-- What units cost: whole microseconds, and the rest in parts of per. Exact for all that is below 2^51.
local function price(units, step, per)
  if units < 0 then
    local whole, rest = price(-units, step, per)
    if rest == 0 then return -whole, 0 end
    return -whole - 1, per - rest
  end
  local product = units * step
  if product < EXACT then
    local whole = floor(product / per)
    return min(whole, CUT), product - whole * per
  end
  -- units = whole x per + left; left x step / per by long multiplication, in digits so small that nothing passes 2^53
  local known, left, base, digits = floor(units / per) * step, units % per, floor(2^52 / per), {}
  while step > 0 do
    digits[#digits + 1] = step % base
    step = floor(step / base)
  end
  local whole, rest = 0, 0
  for place = #digits, 1, -1 do
    local part = rest * base + left * digits[place]
    whole = whole * base + floor(part / per)
    rest = part % per
  end
  return min(known + whole, CUT), rest
end

-- A state as of now: a TAT that has passed becomes the present, a period that is over begins anew.
local function lift(kind, per, first, second)
  if kind == RATE then
    if first < now then return now, 0 end
    if second >= per then return first + 1, 0 end
    return first, second
  end
  local present = number(kind, wall)
  if first < present then return present, 0 end
  return first, second
end

-- A lifted state moved by a charge or, negative, a refund.
local function move(kind, step, per, first, second, units)
  if kind ~= RATE then return first, min(second + units, EXACT) end
  local whole, rest = price(units, step, per)
  rest = second + rest
  if rest >= per then
    rest = rest - per
    whole = whole + 1
  end
  return min(first + whole, EXACT), rest
end

-- The states of a plan's limits, lifted; of slots, those whose time is not up.
local function read(plan)
  local keys, first, second = {}, {}, {}
  for at = 1, #plan, WIDTH do
    if plan[at] ~= SLOTS then keys[#keys + 1] = plan[at + 5] end
  end
  local texts, seen, place = #keys > 0 and call('MGET', unpack(keys)) or {}, 0, 0
  for at = 1, #plan, WIDTH do
    place = place + 1
    if plan[at] == SLOTS then
      first[place], second[place] = call('ZCOUNT', plan[at + 5], string.format('(%.0f', now), '+inf'), 0
    else
      seen = seen + 1
      local one, other = 0, 0
      if texts[seen] then one, other = struct.unpack('<dd', texts[seen]) end
      first[place], second[place] = lift(plan[at], plan[at + 3], one, other)
    end
  end
  return first, second
end

-- Keep a state for as long as it means something, and a while.
local function write(kind, key, first, second)
  local text = struct.pack('<dd', first, second)
  if kind == RATE then
    call('SET', key, text, 'PX', max(0, ceil((first - now) / 1000)) + spare_ms)
  elseif kind == DAY then
    call('SET', key, text, 'PX', 3 * 86400000)
  elseif kind == MONTH then
    call('SET', key, text, 'PX', 35 * 86400000)
  else
    call('SET', key, text)
  end
end

-- Charge every limit of a plan and return the new states; nil if one of them does not allow it, and nothing is changed.
local function charge(plan, amounts, first, second)
  local one, other, place = {}, {}, 0
  for at = 1, #plan, WIDTH do
    place = place + 1
    local kind, cost, most = plan[at], amounts[plan[at + 1] + 1], plan[at + 4]
    local a, b = first[place], second[place]
    if cost > 0 then
      if kind == SLOTS then
        a = a + cost
        if a > most then return nil end
      else
        a, b = move(kind, plan[at + 2], plan[at + 3], a, b, cost)
        if kind == RATE then
          if a + (b > 0 and 1 or 0) > now + most then return nil end
        elseif b > most then
          return nil
        end
      end
    end
    one[place], other[place] = a, b
  end
  place = 0
  for at = 1, #plan, WIDTH do
    place = place + 1
    if plan[at] ~= SLOTS and amounts[plan[at + 1] + 1] > 0 then
      write(plan[at], plan[at + 5], one[place], other[place])
    end
  end
  return one, other
end

-- What an answer shows of states: TAT, what is used, how many are under way.
local function shown(plan, first, second)
  local states, place = {}, 0
  for at = 1, #plan, WIDTH do
    place = place + 1
    states[place] = plan[at] > SLOTS and second[place] or first[place]
  end
  return states
end

-- A refusal: the states, from which the caller works out who refuses and for how long.
local function refused(first, second)
  local answer = {0, now, wall}
  for place = 1, #first do
    answer[2 * place + 2] = first[place]
    answer[2 * place + 3] = second[place]
  end
  return answer
end
"""

RESERVE: Final = (
    PRELUDE
    + """
-- ARGV: lease, plan, amounts, for how long, not after (0: whenever), limits.
-- Returns {1, now, states...}, {0, now, wall, first, second, ...} for a refusal, {2, now} if it is too late.
local lease = ARGV[1]
local known = call('HGET', KEYS[2], lease)
if known then
  local held = cmsgpack.unpack(known)
  return {1, held[3], unpack(held[4])}
end
local latest = tonumber(ARGV[5])
if latest > 0 and now > latest then return {2, now} end
local plan, amounts = cmsgpack.unpack(ARGV[2]), cmsgpack.unpack(ARGV[3])
local first, second = read(plan)
local one, other = charge(plan, amounts, first, second)
if not one then return refused(first, second) end
local states, periods, charges, place = shown(plan, one, other), {}, {}, 0
local ends = now + tonumber(ARGV[4])
for at = 1, #plan, WIDTH do
  place = place + 1
  if plan[at] > SLOTS then
    periods[#periods + 1] = one[place]
    charges[#charges + 1] = amounts[plan[at + 1] + 1]
  elseif plan[at] == SLOTS and amounts[plan[at + 1] + 1] > 0 then
    call('ZADD', plan[at + 5], ends, lease)
  end
end
call('HSET', KEYS[2], lease, cmsgpack.pack({ARGV[2], amounts, now, states, 0, periods, charges, ARGV[6]}))
call('ZADD', KEYS[1], ends, lease)
return {1, now, unpack(states)}
"""
)

TOP_UP: Final = (
    PRELUDE
    + """
-- ARGV: lease, round, amounts, for how long. Returns what RESERVE does (a refusal with the limits behind), or nil.
local lease, round, amounts = ARGV[1], tonumber(ARGV[2]), cmsgpack.unpack(ARGV[3])
local ends = call('ZSCORE', KEYS[1], lease)
if not ends or tonumber(ends) <= now then return false end
local held = cmsgpack.unpack(call('HGET', KEYS[2], lease))
local plan = cmsgpack.unpack(held[1])
local first, second = read(plan)
if round <= held[5] then return {1, now, unpack(shown(plan, first, second))} end
local one, other = charge(plan, amounts, first, second)
if not one then
  local answer = refused(first, second)
  answer[#answer + 1] = held[8]
  return answer
end
local place, budget = 0, 0
ends = now + tonumber(ARGV[4])
for at = 1, #plan, WIDTH do
  place = place + 1
  if plan[at] > SLOTS then
    budget = budget + 1
    local cost = amounts[plan[at + 1] + 1]
    if held[6][budget] == one[place] then cost = cost + held[7][budget] end
    held[6][budget], held[7][budget] = one[place], cost
  elseif plan[at] == SLOTS then
    call('ZADD', plan[at + 5], 'XX', ends, lease)
  end
end
for unit = 1, #amounts do held[2][unit] = min(held[2][unit] + amounts[unit], EXACT) end
held[5] = round
call('HSET', KEYS[2], lease, cmsgpack.pack(held))
call('ZADD', KEYS[1], ends, lease)
return {1, now, unpack(shown(plan, one, other))}
"""
)

SETTLE: Final = (
    PRELUDE
    + """
-- ARGV: lease, amounts. Returns {now, states...}, or nil if there is no such lease.
local lease, actual = ARGV[1], cmsgpack.unpack(ARGV[2])
local known = call('HGET', KEYS[2], lease)
if not known then return false end
local held = cmsgpack.unpack(known)
local plan, reserved = cmsgpack.unpack(held[1]), held[2]
call('HDEL', KEYS[2], lease)
call('ZREM', KEYS[1], lease)
for at = 1, #plan, WIDTH do
  if plan[at] == SLOTS then call('ZREM', plan[at + 5], lease) end
end
local first, second = read(plan)
local place, budget = 0, 0
for at = 1, #plan, WIDTH do
  place = place + 1
  local kind, unit = plan[at], plan[at + 1] + 1
  local difference = actual[unit] - reserved[unit]
  if kind > SLOTS then
    budget = budget + 1
    if first[place] == held[6][budget] then
      difference = max(difference, -held[7][budget])
    else
      difference = 0
    end
  end
  if kind ~= SLOTS and difference ~= 0 then
    first[place], second[place] = move(kind, plan[at + 2], plan[at + 3], first[place], second[place], difference)
    write(kind, plan[at + 5], first[place], second[place])
    if kind == RATE then first[place] = max(first[place], now) end
  end
end
return {now, unpack(shown(plan, first, second))}
"""
)

RENEW: Final = (
    PRELUDE
    + """
-- ARGV: for how long, leases... Returns how many live on.
local ends, count = now + tonumber(ARGV[1]), 0
for place = 2, #ARGV do
  local lease = ARGV[place]
  local old = call('ZSCORE', KEYS[1], lease)
  if old and tonumber(old) > now then
    local plan = cmsgpack.unpack(cmsgpack.unpack(call('HGET', KEYS[2], lease))[1])
    for at = 1, #plan, WIDTH do
      if plan[at] == SLOTS then call('ZADD', plan[at + 5], 'XX', ends, lease) end
    end
    call('ZADD', KEYS[1], ends, lease)
    count = count + 1
  end
end
return count
"""
)

EXPIRE: Final = (
    PRELUDE
    + """
-- ARGV: how many at most. Returns the leases that were ended.
local leases = call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, ARGV[1])
for place = 1, #leases do
  local known = call('HGET', KEYS[2], leases[place])
  if known then
    local plan = cmsgpack.unpack(cmsgpack.unpack(known)[1])
    for at = 1, #plan, WIDTH do
      if plan[at] == SLOTS then call('ZREM', plan[at + 5], leases[place]) end
    end
    call('HDEL', KEYS[2], leases[place])
  end
  call('ZREM', KEYS[1], leases[place])
end
return leases
"""
)

LEVELS: Final = (
    PRELUDE
    + """
-- ARGV: plan. Returns {wall, now, states...}.
local plan = cmsgpack.unpack(ARGV[1])
return {wall, now, unpack(shown(plan, read(plan)))}
"""
)

REPLAY: Final = (
    PRELUDE
    + """
-- ARGV: of each counter its kind, per, key, and what remains of the past (gcra.remains, gcra.add).
for item = 1, #ARGV, 5 do
  local kind, per, key = tonumber(ARGV[item]), tonumber(ARGV[item + 1]), ARGV[item + 2]
  local more, rest = tonumber(ARGV[item + 3]), tonumber(ARGV[item + 4])
  local text, first, second = call('GET', key), 0, 0
  if text then first, second = struct.unpack('<dd', text) end
  first, second = lift(kind, per, first, second)
  if kind == RATE then
    first, second = first + more, second + rest
    if second >= per then first, second = first + 1, second - per end
    first = min(first, EXACT)
  elseif first == more then
    second = min(second + rest, EXACT)
  elseif first < more then
    first, second = more, rest
  end
  write(kind, key, first, second)
end
return #ARGV / 5
"""
)
