#!lua name=tillgate_1
-- The claim: what Valkey does for Tillgate, and all it does. The library's name carries its version, so that an old and
-- a new gateway can run side by side; a changed text needs a new number.
--
-- Theory. The log decides, Valkey only arbitrates fast: every call of `claim` turns one batch of records into verdicts
-- and links it into the partition's chain (seq + 1, a fresh random tip, the previous tip). The function knows one rule:
-- compare-and-set of a voucher's value by claim id. Every other reason to refuse arrives as the record's static verdict.
-- One static verdict refuses nothing: CONFLICT marks a fact, a redemption that a till accepted while it had no
-- connection. It holds the voucher if nobody does, and is settled as a conflict if somebody else does.
--
-- A call has its whole effect or none. First comes what can raise. A redemption that nothing speaks against, which is
-- nearly every record, tries HSETNX: one command looks and writes, and a record's price is mostly that of its commands
-- (ops/decisions/017). If a value is there, and for every other record, HGET reads it, the record is judged, and the
-- new value waits in a local table, where later records of the call look first; after a value that was there, HGET goes
-- first until it finds none, since what is sent twice is sent in rows. Then comes XADD. If any of this raises (a key of
-- a foreign type, a stream that is ahead), HDEL takes the fields of HSETNX away again, which were not there before.
-- Then comes what cannot raise: the head, and what waits, in hashes just read. Nobody sees a state between; replicas
-- and an append-only file get all of it, the taking back too, as one MULTI. Memory, disk, role and replicas are checked
-- before a function's first write, never after it.
--
-- Keys of partition p (all declared by the caller, all with the hash tag {p}):
--   {p}head            tip (16 bytes) .. decimal seq
--   {p}log             redis stream, entry ids seq-0, fields d (payload) v (verdicts) t (tip) p (previous tip)
--   {p}load            token of a rebuild under way, then a count; claims are refused while it stands
--   {p}v<campaign>:<serial / 64>   hash: serial % 64 -> entries
--   {p}r<hex of hash bytes 1-2>    hash: keyed hash of a typed or foreign code -> campaign u32, serial u64
--
-- A voucher's value is a row of 32-byte entries: kind, claim id (16), terminal (4), at_ms (6), seq (5). Kind R (redeemed)
-- or V (voided) is the holder and stands first; r (reversed), t (tombstoned) and c (a fact that lost) are settled ids,
-- which get their old answer for ever. The record layout (64 bytes after a 16-byte header) is described in eventstore/events.py.

local byte, char, sub, floor, concat -- Lua's own libraries are visible only inside a call: see wake()
local FIELD, ZERO_TIP
local VERDICTS = {} -- of the call that runs: as long as the longest before it, so that it need not grow each time
local REDEEM, REVERSE, VOID, IMPORT = 1, 2, 3, 4
local APPLIED, TOMBSTONED, REPEATED, REVERSED, CONFLICT, CONFLICT_AGAIN = 0, 1, 2, 3, 4, 6
local VOIDED, ALREADY_REDEEMED, TOO_MANY_REVERSALS, DUPLICATE = 20, 21, 22, 43
local SETTLED_BYTES_MAX = 10 * 32
local CONFLICTS_BYTES_MAX = 256 * 32 -- one code copied to 250 tills of one outage; more lose, but are not settled
local KIND_R, KIND_V, KIND_C = 82, 86, 99
local UNPACKED = 1000 -- arguments of one command: Lua takes a few thousand
local TRIM_EVERY = 16 -- batches between trims: a trim costs about as much as a claim record

local function wake()
  if FIELD then return end
  byte, char, sub, floor, concat = string.byte, string.char, string.sub, math.floor, table.concat
  ZERO_TIP = string.rep('\0', 16)
  FIELD = {}
  for i = 0, 63 do FIELD[i] = tostring(i) end
end

local function big_endian_5(n)
  local high, low = floor(n / 16777216), n % 16777216
  return char(floor(high / 256), high % 256, floor(low / 65536), floor(low / 256) % 256, low % 256)
end

local function read_head(raw)
  if not raw then return ZERO_TIP, 0 end
  return sub(raw, 1, 16), tonumber(sub(raw, 17))
end

-- The entry of `id` in `value`: its offset (1-based) and its kind, or nil.
local function entry_of(value, id)
  for o = 1, #value, 32 do
    if sub(value, o + 1, o + 16) == id then return o, byte(value, o) end
  end
end

local function holder_of(value)
  local kind = byte(value, 1)
  if kind == KIND_R or kind == KIND_V then return kind end
end

-- Verdict of one record on `value`, and the offset of the entry to tell of (nil: none).
local function judge(op, static, value, id)
  local is_fact = static == CONFLICT and op == REDEEM
  if value == '' then
    if op == REVERSE then return static > 0 and static or TOMBSTONED end
    return is_fact and APPLIED or static
  end
  local at, kind = entry_of(value, id)
  if op == REVERSE then
    if at and kind ~= KIND_R then return REPEATED, at end
    if static > 0 then return static end
    if at then return APPLIED end
    if #value >= SETTLED_BYTES_MAX then return TOO_MANY_REVERSALS end
    return TOMBSTONED
  end
  if at then
    if kind == KIND_R or kind == KIND_V then return REPEATED, at end
    if kind == KIND_C then return CONFLICT_AGAIN, holder_of(value) and 1 or at end
    return REVERSED, at
  end
  local holder = holder_of(value)
  if holder then
    if is_fact then return CONFLICT, 1 end
    local verdict = holder == KIND_R and ALREADY_REDEEMED or VOIDED
    if static > 0 and static < verdict then return static end
    return verdict, 1
  end
  if is_fact then return APPLIED end
  if static > 0 and static < TOO_MANY_REVERSALS then return static end
  if #value >= SETTLED_BYTES_MAX then return TOO_MANY_REVERSALS end
  return static
end

-- The value after an op took effect. `who` is claim id and terminal (20 bytes) as they lie in the record.
local function effect(op, verdict, value, who, suffix)
  if verdict == CONFLICT then
    return #value < CONFLICTS_BYTES_MAX and value .. 'c' .. who .. suffix or nil
  end
  if op == REDEEM then return 'R' .. who .. suffix .. value end
  if op == VOID then return 'V' .. who .. suffix .. value end
  if verdict == TOMBSTONED then return value .. 't' .. who .. suffix end
  -- A reversed redemption keeps its own terminal and gets the time and place of its reversal.
  return sub(value, 33) .. 'r' .. sub(value, 2, 21) .. suffix
end

-- An import adds its code unless it is known already: to this campaign (repeated) or another one (duplicate).
local function judge_import(mine, value)
  if not value then return APPLIED end
  return sub(value, 1, 4) == sub(mine, 1, 4) and REPEATED or DUPLICATE
end

-- Walks the records of a payload; `decided` is nil (judge them) or the verdict bytes the log holds (apply them).
-- Writes the first entry of vouchers that had none and appends their slots (64 * key index + field) to `fresh`. Returns
-- the verdicts, the entries to tell of, and the writes still to make as three rows (key index, field, value).
local function walk(fresh, keys, payload, map, suffix, decided)
  local call = redis.call
  local values, verdicts, told, n, added = {}, VERDICTS, {}, 0, 0
  local expects_none = true
  local write_key, write_field, write_value = {}, {}, {}
  for i = 1, #map / 2 do
    local o = i * 64 - 48
    local op, verdict = byte(payload, o + 1, o + 2)
    local low, high = byte(map, 2 * i - 1, 2 * i)
    local k = low + 256 * high
    if decided then verdict = byte(decided, i) end
    if k > 0 then
      local field, slot, value, changed
      if op == IMPORT then
        field = sub(payload, o + 17, o + 32)
        slot = k .. field
        local mine = sub(payload, o + 5, o + 16)
        value = values[slot] or call('HGET', keys[k], field)
        if not decided then verdict = judge_import(mine, value) end
        if verdict == APPLIED then changed = mine end
      else
        local index = byte(payload, o + 16) % 64
        field = FIELD[index]
        slot = k * 64 + index
        value = values[slot]
        if not value and op == REDEEM and verdict == APPLIED and expects_none
            and call('HSETNX', keys[k], field, 'R' .. sub(payload, o + 33, o + 52) .. suffix) == 1 then
          added = added + 1
          fresh[added] = slot
        else
          if not value then
            value = call('HGET', keys[k], field) or ''
            values[slot] = value
          end
          expects_none = value == ''
          if not decided and (value ~= '' or op ~= REDEEM or verdict == CONFLICT) then
            local at
            verdict, at = judge(op, verdict, value, sub(payload, o + 33, o + 48))
            if at then told[#told + 1] = char((i - 1) % 256, floor((i - 1) / 256)) .. sub(value, at, at + 31) end
          end
          if verdict <= TOMBSTONED or (verdict == CONFLICT and op == REDEEM) then
            changed = effect(op, verdict, value, sub(payload, o + 33, o + 52), suffix)
          end
        end
      end
      if changed then
        n = n + 1
        write_key[n], write_field[n], write_value[n] = k, field, changed
        values[slot] = changed
      end
    end
    verdicts[i] = verdict
  end
  return verdicts, told, { write_key, write_field, write_value }
end

-- What can raise of a call: `step` notes in a row what it adds, and an error takes that back.
local function whole_or_nothing(step, keys, ...)
  local fresh = {}
  local ok, a, b, c = pcall(step, fresh, keys, ...)
  if ok then return a, b, c end
  for i = 1, #fresh do redis.call('HDEL', keys[floor(fresh[i] / 64)], FIELD[fresh[i] % 64]) end
  error({ err = a }, 0) -- here pcall gives the text of an error reply; as a reply it begins with its own code again
end

local function write_all(keys, writes)
  local call = redis.call
  local key, field, value = writes[1], writes[2], writes[3]
  for i = 1, #key do call('HSET', keys[key[i]], field[i], value[i]) end
end

-- The verdict bytes of a batch, which is in the stream then, what to tell, and the writes to make.
local function decide(fresh, keys, payload, map, suffix, seq, tip, prev)
  local verdicts, told, writes = walk(fresh, keys, payload, map, suffix, nil)
  local bytes = char(unpack(verdicts, 1, #map / 2))
  redis.call('XADD', keys[2], seq .. '-0', 'd', payload, 'v', bytes, 't', tip, 'p', prev)
  return bytes, told, writes
end

-- keys: head, log, load, then the hashes; args: payload, key map (u16 little-endian a record, 0 = no key), tip,
-- at_ms (6 bytes), durable seq (what the caller knows the log to hold).
-- Returns {seq, previous tip, verdict bytes, told (index u16 little-endian .. entry, a row)} or {-1, seq, tip}: behind.
local function claim(keys, args)
  wake()
  local call = redis.call
  local tip, durable = args[3], tonumber(args[5])
  local prev, seq = read_head(call('GET', keys[1]))
  if seq < durable or call('EXISTS', keys[3]) == 1 then return { -1, seq, prev } end
  seq = seq + 1
  local suffix = args[4] .. big_endian_5(seq)
  local bytes, told, writes = whole_or_nothing(decide, keys, args[1], args[2], suffix, seq, tip, prev)
  call('SET', keys[1], tip .. string.format('%d', seq))
  write_all(keys, writes)
  if seq % TRIM_EVERY == 0 then call('XTRIM', keys[2], 'MINID', '~', string.format('%d', durable)) end
  return { seq, prev, bytes, concat(told) }
end

-- Applies one batch as the log holds it: only if it joins this chain. keys as above; args: payload, key map, tip,
-- at_ms, seq, previous tip, verdict bytes. Returns {seq, tip} of the head it leaves.
local function restore(keys, args)
  wake()
  local call = redis.call
  local tip, seq = args[3], tonumber(args[5])
  local have, at = read_head(call('GET', keys[1]))
  if at ~= seq - 1 or have ~= args[6] or call('EXISTS', keys[3]) == 1 then return { at, have } end
  local suffix = args[4] .. big_endian_5(seq)
  local _, _, writes = whole_or_nothing(walk, keys, args[1], args[2], suffix, args[7])
  call('SET', keys[1], tip .. string.format('%d', seq))
  write_all(keys, writes)
  return { seq, tip }
end

-- keys: head, then hashes; args: one field a hash. Returns {head, value or false, ...}: absence only counts beside a head.
local function lookup(keys, args)
  local out = { redis.call('GET', keys[1]) }
  for i = 1, #args do out[i + 1] = redis.call('HGET', keys[i + 1], args[i]) end
  return out
end

-- Rebuild: begin (claims are refused from here on), wipe and load (many times), finish. A second rebuild takes the token
-- away from the first, whose next call is refused: an overtaken rebuild can delete and write nothing any more. Behind the
-- token stands a count that every call moves, so that others see the rebuild is alive. keys: head, load [, hashes]; args:
-- token, then each hash as DUMP would tell it (load; one RESTORE costs a third of an HSET with its fields), or the head's
-- value (finish; empty: the log has no batch yet).
local function load_begin(keys, args)
  redis.call('SET', keys[2], args[1] .. '0')
  redis.call('DEL', keys[1])
  return 1
end

local function may_go_on(key, token)
  wake()
  local held = redis.call('GET', key)
  if not held or sub(held, 1, #token) ~= token then return false end
  redis.call('SET', key, token .. string.format('%d', tonumber(sub(held, #token + 1)) + 1))
  return true
end

local function load_wipe(keys, args)
  if not may_go_on(keys[2], args[1]) then return 0 end
  for k = 3, #keys, UNPACKED do redis.call('UNLINK', unpack(keys, k, math.min(k + UNPACKED - 1, #keys))) end
  return 1
end

local function load_hashes(keys, args)
  if not may_go_on(keys[2], args[1]) then return 0 end
  for k = 3, #keys do redis.call('RESTORE', keys[k], 0, args[k - 1], 'REPLACE') end
  return 1
end

local function load_finish(keys, args)
  if not may_go_on(keys[2], args[1]) then return 0 end
  if args[2] ~= '' then redis.call('SET', keys[1], args[2]) end
  redis.call('DEL', keys[2])
  return 1
end

redis.register_function('tillgate_claim_1', claim)
redis.register_function('tillgate_restore_1', restore)
redis.register_function{ function_name = 'tillgate_lookup_1', callback = lookup, flags = { 'no-writes' } }
redis.register_function('tillgate_load_begin_1', load_begin)
redis.register_function('tillgate_load_wipe_1', load_wipe)
redis.register_function('tillgate_load_1', load_hashes)
redis.register_function('tillgate_load_finish_1', load_finish)
