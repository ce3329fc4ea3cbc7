"""Valkey as a model: the commands Tillgate sends it, in plain Python, with a history that can be taken back.

Theory. The state is a tree of dicts, and every write notes what it replaced. So a server that lost the newest part of
its append-only file is this one with its last writes undone. The claim functions are written from the description in
gateway/claim.lua; tests/contract/test_model_arbiter.py holds the two against each other, reply for reply.
"""

import itertools
from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from typing import Any

from redis.exceptions import BusyLoadingError, OutOfMemoryError, ResponseError
from sim import valkey_rules

from eventstore.finished import by_field
from eventstore.snapshot import rows_in

IMPORT = 4
DUMP_END_BYTES = 10  # version and checksum
TRIM_EVERY = 16
SCAN_KEYS = 3  # keys a SCAN call returns: few, so that much can happen between two of them
MISSING: Any = ...  # what a note holds for a key that was not there; copies to itself
Writes = list[tuple[bytes, bytes, bytes]]
Table = dict[Any, Any]


_ids = itertools.count(1)


def _fresh_id() -> bytes:
    """Never the same again; nothing of a run depends on which."""
    return b"%040x" % next(_ids)


def _copied(value: Any, known: dict[int, Table]) -> Any:
    """A table with all in it; the same table is the same copy each time, as the notes of the history name tables."""
    if not isinstance(value, dict):
        return value
    twin = known.get(id(value))
    if twin is None:
        twin = known[id(value)] = {}
        for key, held in value.items():
            twin[key] = _copied(held, known)
    return twin


class ModelValkey:
    """One server. `trims` decides whether an approximate trim removes what it may."""

    def __init__(self, trims: Callable[[], bool]) -> None:
        self.strings: Table = {}
        self.hashes: Table = {}
        self.streams: Table = {}
        self.newest: Table = {}  # the last id of each stream, which trimming does not lower
        self.loaded: bytes | None = None
        self.policy, self.role = b"noeviction", b"master"
        self.out_of_memory = self.loading = False
        self.append_only = False  # then what it holds after a crash was read from a file without checksums
        self.run, self.replid, self.former = _fresh_id(), _fresh_id(), b"0" * 40
        self.writes = 0  # commands that wrote; a history position
        self._trims = trims
        self._undo: list[tuple[int, Table, Any, Any]] = []
        self._cursors: dict[int, bytes] = {}
        self._commands: dict[bytes, Callable[[list[bytes]], Any]] = {
            b"GET": lambda args: self.strings.get(args[0]),
            b"SET": self._set_command,
            b"XADD": self._xadd_command,
            b"FCALL": self._fcall,
            b"FCALL_RO": self._fcall,
            b"XRANGE": self._xrange,
            b"SCAN": self._scan,
            b"UNLINK": self._unlink,
            b"HGETALL": self._hgetall,
            b"HDEL": self._hdel,
            b"CONFIG": self._config,
            b"INFO": self._info,
            b"ROLE": lambda args: [self.role],
            b"FUNCTION": self._function,
        }
        self._functions: dict[bytes, Callable[[list[bytes], list[bytes]], Any]] = {
            b"tillgate_claim_1": self._claim,
            b"tillgate_restore_1": self._restore,
            b"tillgate_lookup_1": self._lookup,
            b"tillgate_load_begin_1": self._load_begin,
            b"tillgate_load_wipe_1": self._load_wipe,
            b"tillgate_load_1": self._load,
            b"tillgate_load_finish_1": self._load_finish,
        }

    # --- history ---

    def execute(self, args: list[bytes]) -> Any:
        """The reply to one command. Raises what the client library raises for an error reply."""
        if self.loading:
            raise BusyLoadingError("Valkey is loading the dataset in memory")
        before = len(self._undo)
        reply = self._commands[args[0]](args[1:])
        if len(self._undo) > before:
            self.writes += 1
        return reply

    def roll_back(self, writes: int) -> None:
        """Lose everything after the first `writes` commands that wrote."""
        while self._undo and self._undo[-1][0] >= writes:
            _, table, key, old = self._undo.pop()
            if old is MISSING:
                del table[key]
            else:
                table[key] = old
        self.writes = min(self.writes, writes)

    def restarted(self) -> None:
        """It is another run, with what its file held."""
        self.run, self.replid, self.former = _fresh_id(), _fresh_id(), b"0" * 40

    def wipe(self, *, functions: bool) -> None:
        """An empty server: after FLUSHALL (which keeps the functions) or on a new disk."""
        for table in (self.strings, self.hashes, self.streams, self.newest):
            table.clear()
        self._undo.clear()
        if functions:
            self.loaded = None

    def copied(self) -> "ModelValkey":
        """A replica, complete at this moment, which can be taken back like its original."""
        twin = ModelValkey(self._trims)
        known: dict[int, Table] = {}
        tables = (_copied(table, known) for table in (self.strings, self.hashes, self.streams, self.newest))
        twin.strings, twin.hashes, twin.streams, twin.newest = tables
        twin._undo = [(at, _copied(table, known), key, _copied(old, known)) for at, table, key, old in self._undo]
        twin.loaded, twin.writes = self.loaded, self.writes
        twin.append_only, twin.former = self.append_only, self.replid
        return twin

    def _put(self, table: Table, key: Any, value: Any) -> None:
        self._undo.append((self.writes, table, key, table.get(key, MISSING)))
        table[key] = value

    def _drop(self, table: Table, key: Any) -> bool:
        if key not in table:
            return False
        self._undo.append((self.writes, table, key, table.pop(key)))
        return True

    def _hset(self, key: bytes, field: bytes, value: bytes) -> None:
        fields = self.hashes.get(key)
        if fields is None:
            fields = {}
            self._put(self.hashes, key, fields)
        self._put(fields, field, value)

    # --- commands ---

    def _config(self, args: list[bytes]) -> list[bytes]:
        append_only = b"yes" if self.append_only else b"no"
        return [b"maxmemory-policy", self.policy, b"appendonly", append_only, b"aof-load-truncated", b"no"]

    def _info(self, args: list[bytes]) -> bytes:
        told = (b"run_id", self.run), (b"master_replid", self.replid), (b"master_replid2", self.former)
        return b"# INFO\r\n" + b"".join(b"%s:%s\r\n" % pair for pair in told)

    def _set_command(self, args: list[bytes]) -> bytes:
        self._put(self.strings, args[0], args[1])
        return b"OK"

    def _xadd_command(self, args: list[bytes]) -> bytes:
        seq = int(args[1].partition(b"-")[0])
        self._xadd(args[0], seq, dict(zip(args[2::2], args[3::2], strict=True)))
        return args[1]

    def _xadd(self, key: bytes, seq: int, fields: dict[bytes, bytes]) -> None:
        if seq <= self.newest.get(key, 0):
            raise ResponseError("The ID specified in XADD is equal or smaller than the target stream top item")
        if key not in self.streams:
            self._put(self.streams, key, {})
        self._put(self.streams[key], seq, fields)
        self._put(self.newest, key, seq)

    def _xrange(self, args: list[bytes]) -> list[Any]:
        held = self.streams.get(args[0], {})
        first, last = (int(arg.partition(b"-")[0]) for arg in args[1:3])
        inside = sorted(seq for seq in held if first <= seq <= last)
        return [[b"%d-0" % seq, [part for pair in held[seq].items() for part in pair]] for seq in inside]

    def _scan(self, args: list[bytes]) -> list[Any]:
        after = self._cursors.pop(int(args[0]), b"")
        keys = sorted({*self.strings, *self.hashes, *self.streams})
        left = [key for key in keys if key > after and fnmatchcase(key, args[2])]
        if len(left) <= SCAN_KEYS:
            return [b"0", left]
        cursor = max(self._cursors, default=0) + 1
        self._cursors[cursor] = left[SCAN_KEYS - 1]
        return [b"%d" % cursor, left[:SCAN_KEYS]]

    def _unlink(self, args: list[bytes]) -> int:
        return sum(self._forget(key) for key in args)

    def _forget(self, key: bytes) -> bool:
        self._drop(self.newest, key)
        return sum(self._drop(table, key) for table in (self.strings, self.hashes, self.streams)) > 0

    def _hgetall(self, args: list[bytes]) -> list[bytes]:
        return [part for pair in self.hashes.get(args[0], {}).items() for part in pair]

    def _hdel(self, args: list[bytes]) -> int:
        fields = self.hashes.get(args[0], {})
        return sum(self._drop(fields, field) for field in args[1:])

    def _function(self, args: list[bytes]) -> Any:
        if args[0] == b"LOAD":
            self.loaded = args[1]
            return b"tillgate_1"
        if self.loaded is None:
            return []
        return [[b"library_name", b"tillgate_1", b"library_code", self.loaded]]

    def _fcall(self, args: list[bytes]) -> Any:
        if self.loaded is None:
            raise ResponseError("Function not found")
        if self.out_of_memory and args[0] != b"tillgate_lookup_1":
            raise OutOfMemoryError("command not allowed when used memory > 'maxmemory'.")
        keys_end = 2 + int(args[1])
        return self._functions[args[0]](args[2:keys_end], args[keys_end:])

    # --- the functions ---

    def _head(self, key: bytes) -> tuple[bytes, int]:
        raw = self.strings.get(key)
        return (raw[:16], int(raw[16:])) if raw else (bytes(16), 0)

    def _claim(self, keys: list[bytes], args: list[bytes]) -> list[Any]:
        payload, key_map, tip, at, durable = args
        prev, seq = self._head(keys[0])
        if seq < int(durable) or keys[2] in self.strings:
            return [-1, seq, prev]
        seq += 1
        verdicts, told, writes = self._walk(keys, payload, key_map, at + seq.to_bytes(5, "big"), None)
        self._xadd(keys[1], seq, {b"d": payload, b"v": verdicts, b"t": tip, b"p": prev})
        self._put(self.strings, keys[0], tip + b"%d" % seq)
        for write in writes:
            self._hset(*write)
        if seq % TRIM_EVERY == 0 and self._trims():
            for old in [held for held in self.streams[keys[1]] if held < int(durable)]:
                self._drop(self.streams[keys[1]], old)
        return [seq, prev, verdicts, told]

    def _restore(self, keys: list[bytes], args: list[bytes]) -> list[Any]:
        payload, key_map, tip, at, seq_text, prev, verdicts = args
        seq = int(seq_text)
        have, head_seq = self._head(keys[0])
        if head_seq != seq - 1 or have != prev or keys[2] in self.strings:
            return [head_seq, have]
        _, _, writes = self._walk(keys, payload, key_map, at + seq.to_bytes(5, "big"), verdicts)
        self._put(self.strings, keys[0], tip + b"%d" % seq)
        for write in writes:
            self._hset(*write)
        return [seq, tip]

    def _lookup(self, keys: list[bytes], args: list[bytes]) -> list[Any]:
        found = [self.hashes.get(key, {}).get(field) for key, field in zip(keys[1:], args, strict=True)]
        return [self.strings.get(keys[0]), *found]

    def _load_begin(self, keys: list[bytes], args: list[bytes]) -> int:
        self._put(self.strings, keys[1], args[0] + b"0")
        self._drop(self.strings, keys[0])
        return 1

    def _may_go_on(self, key: bytes, token: bytes) -> bool:
        held = self.strings.get(key)
        if held is None or not held.startswith(token):
            return False
        self._put(self.strings, key, token + b"%d" % (int(held[len(token) :]) + 1))
        return True

    def _load_wipe(self, keys: list[bytes], args: list[bytes]) -> int:
        if not self._may_go_on(keys[1], args[0]):
            return 0
        for key in keys[2:]:
            self._forget(key)
        return 1

    def _load(self, keys: list[bytes], args: list[bytes]) -> int:
        if not self._may_go_on(keys[1], args[0]):
            return 0
        for key, told in zip(keys[2:], args[1:], strict=True):
            self._forget(key)
            ((_, held),) = rows_in(told[:1] + b"\x00" + told[1:-DUMP_END_BYTES])  # a row with an empty key
            for field, value in by_field(held).items():
                self._hset(key, field, value)
        return 1

    def _load_finish(self, keys: list[bytes], args: list[bytes]) -> int:
        if not self._may_go_on(keys[1], args[0]):
            return 0
        if args[1]:
            self._put(self.strings, keys[0], args[1])
        self._drop(self.strings, keys[1])
        return 1

    def _walk(
        self, keys: Sequence[bytes], payload: bytes, key_map: bytes, stamp: bytes, decided: bytes | None
    ) -> tuple[bytes, bytes, Writes]:
        values: dict[tuple[bytes, bytes], bytes | None] = {}
        verdicts, told, writes = bytearray(), b"", []
        for index in range(len(key_map) // 2):
            record = payload[16 + 64 * index : 80 + 64 * index]
            op, verdict = record[0], record[1]
            if decided is not None:
                verdict = decided[index]
            number = int.from_bytes(key_map[2 * index : 2 * index + 2], "little")
            if number:
                key = keys[number - 1]
                field = record[16:32] if op == IMPORT else b"%d" % (record[15] % 64)
                slot = (key, field)
                value = values[slot] if slot in values else self.hashes.get(key, {}).get(field)
                if decided is None:
                    verdict, entry = valkey_rules.judge(op, verdict, record, value)
                    told += index.to_bytes(2, "little") + entry if entry else b""
                changed = valkey_rules.effect(op, verdict, record, value or b"", stamp)
                if changed is not None:
                    values[slot] = changed
                    writes.append((key, field, changed))
            verdicts.append(verdict)
        return bytes(verdicts), told, writes
