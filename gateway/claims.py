"""The claim's client side: claim.lua's functions as methods, and what else a lane asks of Valkey."""

import asyncio
import contextlib
import struct
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import msgspec
import redis.exceptions

from eventstore.events import IMPORT, Record, iter_records, payload_head
from eventstore.finished import Finished
from eventstore.log import EMPTY_HEAD, TIP_BYTES, Batch, Head
from eventstore.vouchers import head_key, registry_key, voucher_key
from gateway.cluster import ANSWER_S_MAX, Cluster, Valkey, home_of
from gateway.loading import Run, load_all, run_of
from gateway.pipe import LOST, ArbiterLost, ArbiterMoved, ArbiterRefused, ArbiterUnfit, Pipe, connected, refusal_of
from gateway.slots import Address

LIBRARY = "tillgate_1"
STREAM_READ_MAX = 64  # batches read from the redis stream at a time: at most about 6 MB
SCAN_KEYS = 1000  # keys looked at by one SCAN: about a millisecond of Valkey
LOOKUPS_IN_FLIGHT_MAX = 128  # half of what a pipe takes: however many ask, the lane's own calls find room
KEY_FIRST = 4  # Lua counts from 1, and head, log and load come first
LIBRARY_TEXT = Path(__file__).with_name("claim.lua")


class Claimed(msgspec.Struct, frozen=True, gc=False):
    """What one claim call decided."""

    seq: int
    prev: bytes
    verdicts: bytes  # one byte a record
    told: bytes  # rows of index u16 little-endian + 32-byte entry


class Behind(msgspec.Struct, frozen=True, gc=False):
    """Valkey is behind the log, or being rebuilt; nothing was written."""

    head: Head


class Keyed(msgspec.Struct, frozen=True):
    """Hash keys of a batch's records and the record -> key map (u16 little-endian, 0 = none)."""

    keys: list[bytes]
    map: bytes


class Arbiter(Protocol):
    """What a lane needs of Valkey. Every method may raise ArbiterLost or ArbiterRefused."""

    async def claim(
        self, partition: int, payload: bytes, keyed: Keyed, *, tip: bytes, at_ms: int, durable_seq: int
    ) -> Claimed | Behind: ...

    async def head(self, partition: int) -> Head: ...

    async def stream(self, partition: int, first_seq: int, last_seq: int) -> list[Batch]: ...

    async def restore(self, batch: Batch) -> Head: ...

    async def lookup(
        self, partition: int, wanted: Sequence[tuple[bytes, bytes]]
    ) -> tuple[Head, list[bytes | None]]: ...

    async def rebuild(self, partition: int, hashes: Iterable[Finished], head: Head, token: bytes) -> bool: ...

    async def is_believed(self, partition: int) -> bool:
        """Whether nothing of its state came from a file without checksums since it was last rebuilt. After `check`."""
        ...

    async def load_progress(self, partition: int) -> bytes | None:
        """Changes with every step of a rebuild under way; None if there is none."""
        ...

    async def check(self, partition: int) -> None:
        """Connect if needed; raises ArbiterUnfit if eviction policy, role or function are not as they must be."""
        ...


class ClaimWatch(Protocol):
    """Told how claims went; must not raise."""

    def claimed(self, seconds: float) -> None: ...

    def claim_failed(self, cause: str) -> None: ...


class ValkeyArbiter:
    """The arbiter on a real Valkey or Redis >= 7, or on a cluster of them. `on_lost` is told of which partition."""

    def __init__(self, valkey: Valkey, on_lost: Callable[[int], None], watch: "ClaimWatch | None" = None) -> None:
        self._valkey, self._is_cluster = valkey, isinstance(valkey, Cluster)
        self.on_lost = on_lost
        self._watch = watch
        self._pipes: dict[int, Pipe] = {}
        self._homes: dict[int, Address | None] = {}  # where each pipe leads in a cluster
        self._runs: dict[int, Run] = {}  # of servers that load an append-only file when they start, or take over slots

    async def claim(
        self, partition: int, payload: bytes, keyed: Keyed, *, tip: bytes, at_ms: int, durable_seq: int
    ) -> Claimed | Behind:
        """Turn one batch into verdicts. See claim.lua."""
        keys = _keys(partition, keyed.keys)
        args = (payload, keyed.map, tip, at_ms.to_bytes(6, "big"), durable_seq)
        began_s = time.perf_counter()
        try:
            reply = await self._call(partition, "FCALL", "tillgate_claim_1", len(keys), *keys, *args)
        except (ArbiterLost, ArbiterRefused) as error:
            if self._watch is not None:
                self._watch.claim_failed("lost" if isinstance(error, ArbiterLost) else "refused")
            raise
        if self._watch is not None:
            self._watch.claimed(time.perf_counter() - began_s)
        if reply[0] < 0:
            return Behind(Head(reply[1], reply[2]))
        return Claimed(*reply)

    async def head(self, partition: int) -> Head:
        return parse_head(await self._call(partition, "GET", head_key(partition)))

    async def stream(self, partition: int, first_seq: int, last_seq: int) -> list[Batch]:
        """The batches first_seq..last_seq the redis stream still holds, in order (gaps are the caller's to see)."""
        batches: list[Batch] = []
        while first_seq <= last_seq:
            upto = min(last_seq, first_seq + STREAM_READ_MAX - 1)
            rows = await self._call(partition, "XRANGE", b"{%d}log" % partition, f"{first_seq}-0", f"{upto}-0")
            batches += [_stream_batch(partition, row) for row in rows]
            first_seq = upto + 1
        return batches

    async def restore(self, batch: Batch) -> Head:
        """Apply a batch the log holds; returns the head afterwards (unchanged if the batch does not join)."""
        keyed = keyed_of(batch.partition, batch.payload)
        keys = _keys(batch.partition, keyed.keys)
        _, _, at_ms = payload_head(batch.payload)
        args = (batch.payload, keyed.map, batch.tip, at_ms.to_bytes(6, "big"), batch.seq, batch.prev)
        reply = await self._call(
            batch.partition, "FCALL", "tillgate_restore_1", len(keys), *keys, *args, batch.verdicts
        )
        return Head(reply[0], reply[1])

    async def lookup(self, partition: int, wanted: Sequence[tuple[bytes, bytes]]) -> tuple[Head, list[bytes | None]]:
        """Values of (hash key, field) pairs, and the head they were read beside. Writes nothing.

        Raises ArbiterRefused too when LOOKUPS_IN_FLIGHT_MAX calls wait for their answers: the lane has the rest.
        """
        keys = [head_key(partition), *(key for key, _ in wanted)]
        reply = await self._call_beside(
            partition, "FCALL_RO", "tillgate_lookup_1", len(keys), *keys, *(field for _, field in wanted)
        )
        return parse_head(reply[0]), reply[1:]

    async def rebuild(self, partition: int, hashes: Iterable[Finished], head: Head, token: bytes) -> bool:
        """Replace a partition's whole state. False: another rebuild took over."""
        call = partial(self._call, partition)
        if not await load_all(call, self._pages(partition, b"{%d}*" % partition), partition, hashes, head, token):
            return False
        await self._believe(partition)
        return True

    async def _believe(self, partition: int) -> None:
        run = self._runs.get(partition)
        if run is not None:
            await self._call(partition, "SET", b"{%d}run" % partition, run.id + run.replid)

    async def is_believed(self, partition: int) -> bool:
        """See Arbiter."""
        run = self._runs.get(partition)
        if run is None:
            return True
        told: bytes = await self._call(partition, "GET", b"{%d}run" % partition) or b""
        if told == run.id + run.replid:
            return True
        if told[: len(run.id)] != run.id and told[len(run.id) :] != run.former:
            return False
        await self._believe(partition)
        return True

    async def delete(self, partition: int, keys: Sequence[bytes]) -> None:
        """Forget hashes (a purged campaign's); the log has said so first."""
        if keys:
            await self._call_beside(partition, "UNLINK", *keys)

    async def forget_codes(self, partition: int, campaign: int) -> None:
        """Forget the registered codes of a purged campaign."""
        prefix = campaign.to_bytes(4, "big")
        async for page in self._pages(partition, b"{%d}r[0-9a-f]*" % partition):
            for key in page:
                codes = _mapping(await self._call_beside(partition, "HGETALL", key))
                doomed = [field for field, value in codes.items() if value.startswith(prefix)]
                if doomed:
                    await self._call_beside(partition, "HDEL", key, *doomed)
        if self._is_cluster:
            await self.find_whole(partition)  # else some keys were elsewhere, and were not looked at

    async def _pages(self, partition: int, pattern: bytes) -> AsyncIterator[list[bytes]]:
        """The keys of a pattern, SCAN by SCAN."""
        cursor = b"0"
        while True:
            cursor, keys = await self._call(partition, "SCAN", cursor, "MATCH", pattern, "COUNT", SCAN_KEYS)
            yield keys
            if cursor == b"0":
                return

    async def load_progress(self, partition: int) -> bytes | None:
        """See Arbiter."""
        progress: bytes | None = await self._call(partition, "GET", b"{%d}load" % partition)
        return progress

    async def check(self, partition: int) -> None:
        """Connect if needed; raises ArbiterUnfit naming the setting that would lose or forget redemptions."""
        await self._open(partition)
        wanted = ("maxmemory-policy", "appendonly", "aof-load-truncated", "cluster-enabled")
        settings = _mapping(await self._call(partition, "CONFIG", "GET", *wanted))
        if settings.get(b"cluster-enabled") == b"yes" and not self._is_cluster:
            raise ArbiterUnfit("this server is a node of a cluster: write redis+cluster://host:port/ in valkey.url")
        policy = settings[b"maxmemory-policy"]
        if policy != b"noeviction":
            raise ArbiterUnfit(f"maxmemory-policy is {policy.decode()}: set it to noeviction")
        if (settings.get(b"appendonly"), settings.get(b"aof-load-truncated")) == (b"yes", b"yes"):
            text = "after a power failure it could apply a part of a claim: set it to no"
            raise ArbiterUnfit(f"aof-load-truncated is yes: {text}")
        role = await self._call(partition, "ROLE")
        if role[0] != b"master":
            raise ArbiterUnfit(f"role is {role[0].decode()}: connect to the primary")
        is_empty = self._is_cluster and not await self.find_whole(partition)
        # A user without HDEL could not take back what a claim that fails has written: better refused here.
        await self._call(partition, "HDEL", voucher_key(partition, 0, 0), b"0")
        await self._install(partition)
        self._runs.pop(partition, None)
        if self._is_cluster or settings.get(b"appendonly") == b"yes":
            told = [await self._call(partition, "INFO", section) for section in ("server", "replication")]
            self._runs[partition] = run_of(b"\n".join(told), is_cluster=self._is_cluster)
        if is_empty:
            await self._believe(partition)

    async def find_whole(self, partition: int) -> bool:
        """Whether a partition has a state; raises ArbiterMoved if some of its keys are elsewhere, or may be.

        A call with two keys is refused while a slot is moved unless both are there, and of these two `load` is not.
        A move that is broken off may leave keys elsewhere, so a partition that was seen in one is not believed again.
        """
        try:
            return bool(await self._call(partition, "EXISTS", head_key(partition), b"{%d}load" % partition))
        except ArbiterMoved:
            with contextlib.suppress(ArbiterMoved):  # it has been moved already
                await self._call(partition, "DEL", b"{%d}run" % partition)
            raise

    async def _install(self, partition: int) -> None:
        text = LIBRARY_TEXT.read_bytes()
        found = await self._call(partition, "FUNCTION", "LIST", "LIBRARYNAME", LIBRARY, "WITHCODE")
        if not found:
            await self._call(partition, "FUNCTION", "LOAD", text)
        elif _mapping(found[0])[b"library_code"] != text:
            why = f"function library {LIBRARY} has another text, so another build uses this Valkey"
            raise ArbiterUnfit(f"{why}: stop that one, then FUNCTION DELETE {LIBRARY}")

    async def _call(self, partition: int, *args: Any) -> Any:
        pipe = self._pipes.get(partition)
        if pipe is None:
            raise ArbiterLost("not connected")
        return await pipe.call(*args)

    async def _call_beside(self, partition: int, *args: Any) -> Any:
        """A call that is not the lane's: there may be any number of them, and they must not crowd out a claim."""
        pipe = self._pipes.get(partition)
        if pipe is not None and pipe.in_flight >= LOOKUPS_IN_FLIGHT_MAX:
            raise ArbiterRefused(f"more than {LOOKUPS_IN_FLIGHT_MAX} look-ups in flight")
        try:
            return await self._call(partition, *args)
        except ArbiterMoved:
            self.on_lost(partition)  # or a partition that nobody claims on would stay lost for look-ups
            raise

    async def _open(self, partition: int) -> None:
        home, connect = await home_of(self._valkey, partition)
        old = self._pipes.get(partition)
        if old is not None:
            if not old.lost and self._homes[partition] == home:
                return
            del self._pipes[partition]
            await old.close()
        connection = connect()
        try:
            async with asyncio.timeout(ANSWER_S_MAX if home else None):  # in a cluster another may be in its place soon
                await connected(connection)
        except LOST as error:
            raise ArbiterLost(str(error) or f"{home} does not answer") from error
        except redis.exceptions.ResponseError as error:
            raise refusal_of(error) from error
        self._pipes[partition] = Pipe(connection, lambda: self.on_lost(partition))
        self._homes[partition] = home

    async def close(self) -> None:
        """Close every connection; what is in flight fails as lost."""
        pipes, self._pipes = self._pipes, {}
        for pipe in pipes.values():
            await pipe.close()


def parse_head(raw: bytes | None) -> Head:
    """The head key's value: tip (16 bytes), decimal seq; absent or empty = nothing yet."""
    return Head(int(raw[TIP_BYTES:]), raw[:TIP_BYTES]) if raw else EMPTY_HEAD


def _keys(partition: int, hashes: Sequence[bytes]) -> list[bytes]:
    return [b"{%d}head" % partition, b"{%d}log" % partition, b"{%d}load" % partition, *hashes]


def keyed_of(partition: int, payload: bytes) -> Keyed:
    """The hash keys a logged payload's records live under (the admission makes the same for fresh scans)."""
    keys: dict[bytes, int] = {}
    numbers = []
    for record in iter_records(payload):
        key = hash_key(partition, record)
        numbers.append(keys.setdefault(key, len(keys) + KEY_FIRST) if key else 0)
    return Keyed(list(keys), struct.pack(f"<{len(numbers)}H", *numbers))


def hash_key(partition: int, record: Record) -> bytes | None:
    """Where a record's voucher (or imported code) is kept; None for a scan that names no voucher."""
    if record.op == IMPORT:
        return registry_key(partition, record.redemption_id)
    return voucher_key(partition, record.campaign, record.serial) if record.campaign else None


def _stream_batch(partition: int, row: Any) -> Batch:
    entry_id, fields = row
    named = _mapping(fields)
    seq = int(entry_id.partition(b"-")[0])
    return Batch(partition, seq, named[b"p"], named[b"t"], named[b"d"], named[b"v"])


def _mapping(reply: Any) -> dict[bytes, Any]:
    """A map reply: RESP3 has it as such, RESP2 as a flat list."""
    return reply if isinstance(reply, dict) else dict(zip(reply[::2], reply[1::2], strict=True))
