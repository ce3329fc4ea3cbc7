"""Codes of other makers become vouchers: a chunk at a time, each one event and one range of serials.

Theory. A chunk is what one request names at once: up to CHUNK_CODES codes, by their keyed hashes only. Its range of
serials is reserved by one control event, whose request id is a digest of the asker's id and of the very hashes, so the
same chunk again gets the same serials and other codes under the same id get their own. Then its records go through the
lanes like scans, in slices: a lane takes them beside the tills' scans, and a slice is as large as it is answered soon,
so that tills wait for a few milliseconds of it and no more. One chunk at a time registers; the next one is read and
hashed meanwhile. Whoever cannot tell what came of a code says UNRESOLVED, and the same request may be sent again.
"""

import asyncio
import struct
from collections import deque
from collections.abc import Iterator, Sequence
from functools import partial
from hashlib import blake2b

import msgspec

from eventstore.events import IMPORT, NO_ID, RECORD, ControlEvent, VouchersIssued
from eventstore.vouchers import registry_key, registry_partition
from gateway.campaign import FOREIGN, TYPED
from gateway.codes import KeyRing, Refused, import_spelling
from gateway.control import Control
from gateway.directory import Directory, Rejected
from gateway.lane import Asked, Lane
from gateway.messages import Verdict

CHUNK_CODES = 10_000  # a tenth of a second of work, one control event; ten million codes are a thousand events
SLICE_CODES_MAX = 512  # 3 ms of Valkey, half of a lane's largest batch: scans find room beside it
SLICE_CODES_MIN = 32  # below that the calls themselves are most of the work
SLICES_UNDER_WAY = 2  # as a lane carries them: one being claimed, one being synced
SLICE_S_SLOW, SLICE_S_QUICK = 0.016, 0.008  # from a slice's start to its answer: smaller ones above, larger ones below
_RECORD_OF_CODE = struct.Struct(">8sQ16s32s")  # op to campaign, serial, keyed hash, the rest: see events.RECORD
WHY_NOT_IMPORTED = {
    Verdict.DUPLICATE: "this code already belongs to another campaign",
    Verdict.UNRESOLVED: "nothing is known: send the same request again",
}


class Chunk:
    """Codes to be registered together, by kind: `take` reads them, and keeps no text."""

    def __init__(self) -> None:
        self.hashes: dict[str, list[bytes]] = {TYPED: [], FOREIGN: []}
        self.numbers: dict[str, list[int]] = {TYPED: [], FOREIGN: []}  # which line or place each came from
        self.count = 0

    def take(self, ring: KeyRing, number: int, text: str) -> Refused | None:
        """Add a code, or say why no till could ever redeem it."""
        spelled = import_spelling(text)
        if isinstance(spelled, Refused):
            return spelled
        kind, spelling = spelled
        self.hashes[kind].append(ring.identity(spelling))
        self.numbers[kind].append(number)
        self.count += 1
        return None


class Came(msgspec.Struct, frozen=True):
    """What came of codes of one kind, a verdict byte each: ACCEPTED, REPEATED (was there), DUPLICATE or UNRESOLVED."""

    numbers: list[int]
    codes: bytes

    def verdicts(self) -> Iterator[tuple[int, Verdict]]:
        """The verdict of every code, by its number."""
        named = {code: Verdict(code) for code in set(self.codes)}
        return zip(self.numbers, map(named.__getitem__, self.codes), strict=True)


class Imports:
    """Registers chunks, one at a time."""

    def __init__(self, control: Control, lanes: Sequence[Lane]) -> None:
        self._control, self._lanes = control, lanes
        self._turn = asyncio.Lock()
        self._size = SLICE_CODES_MAX

    async def register(self, actor: str, slug: str, request_id: str, chunk: Chunk) -> list[Came] | Rejected:
        """What came of every code."""
        found: list[Came] = []
        async with self._turn:
            for kind, hashes in chunk.hashes.items():
                if not hashes:
                    continue
                name = _chunk_id(request_id, kind, hashes)
                issued = await reserve(self._control, actor, slug, kind, len(hashes), name)
                if isinstance(issued, Rejected):
                    return issued
                found.append(Came(chunk.numbers[kind], await self._claim(issued, hashes)))
        return found

    async def _claim(self, issued: VouchersIssued, hashes: Sequence[bytes]) -> bytes:
        """A verdict byte for every hash; after the first slice that is not resolved, no further one is tried."""
        loop, campaigns = asyncio.get_running_loop(), self._control.directory.campaigns
        codes = bytearray()
        under_way: deque[tuple[float, asyncio.Future[bytes]]] = deque()
        start, resolved = 0, True
        while start < len(hashes) or under_way:
            while resolved and start < len(hashes) and len(under_way) < SLICES_UNDER_WAY:
                size = min(self._size, len(hashes) - start)
                answer = self._send(issued, start, hashes[start : start + size])
                under_way.append((loop.time(), answer))
                start += size
                await asyncio.sleep(0)  # a lane's batch leaves at the end of the turn: two slices are two batches
            began_s, answer = under_way.popleft()
            part = await answer
            codes += part
            self._adapt(loop.time() - began_s)
            # All of them may take longer than a close and a purge.
            resolved = resolved and Verdict.UNRESOLVED not in part and not campaigns[issued.campaign].purged
            if not resolved and not under_way:
                break
        return bytes(codes) + bytes([Verdict.UNRESOLVED]) * (len(hashes) - len(codes))

    def _send(self, issued: VouchersIssued, start: int, hashes: Sequence[bytes]) -> asyncio.Future[bytes]:
        """Hand a slice to the lanes."""
        answered: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        asked = Asked(len(hashes), partial(_settle_once, answered))
        records = list(_records(issued, start, hashes, self._control.directory.control_seq & 0xFFFFFFFF))
        if len(self._lanes) == 1:
            self._lanes[0].add_run(records, [registry_key(0, keyed_hash) for keyed_hash in hashes], asked, 0)
            return answered
        for index, (record, keyed_hash) in enumerate(zip(records, hashes, strict=True)):
            partition = registry_partition(keyed_hash, len(self._lanes))
            self._lanes[partition].add(record, registry_key(partition, keyed_hash), asked, index)
        return answered

    def _adapt(self, seconds: float) -> None:
        if seconds > SLICE_S_SLOW:
            self._size = max(SLICE_CODES_MIN, self._size // 2)
        elif seconds < SLICE_S_QUICK:
            self._size = min(SLICE_CODES_MAX, self._size * 2)


def _records(issued: VouchersIssued, start: int, hashes: Sequence[bytes], control_seq: int) -> Iterator[bytes]:
    """A record a code: only the serial and the hash differ, so what is before and behind them is packed once."""
    sample = RECORD.pack(IMPORT, 0, 0, 0, issued.campaign, 0, NO_ID, NO_ID, 0, 0, control_seq)
    pack, head, tail = _RECORD_OF_CODE.pack, sample[:8], sample[32:]
    for serial, keyed_hash in enumerate(hashes, issued.first_serial + start):
        yield pack(head, serial, keyed_hash, tail)


async def reserve(
    control: Control, actor: str, slug: str, kind: str, count: int, request_id: str
) -> VouchersIssued | Rejected:
    """A range of serials of a campaign; the same request id again gets the same range."""

    def make(directory: Directory, _: int) -> Sequence[ControlEvent] | Rejected:
        campaign = directory.campaign(slug)
        if campaign is None:
            return Rejected("slug", f"there is no campaign {slug!r}")
        if campaign.purged:  # Valkey would register what an earlier call of the same request had registered
            return Rejected("slug", f"{slug} is purged")
        number = campaign.number
        earlier = directory.issued_as(number, request_id)
        if earlier is not None:
            same = (earlier.kind, earlier.count) == (kind, count)
            return [] if same else Rejected("request_id", "it was used before for another issue")
        first = directory.next_serial(number)
        return [VouchersIssued(campaign=number, kind=kind, first_serial=first, count=count, request_id=request_id)]

    outcome = await control.record(actor, make)
    if isinstance(outcome, Rejected):
        return outcome
    campaign = control.directory.campaign(slug)
    assert campaign is not None
    issued = control.directory.issued_as(campaign.number, request_id)
    assert issued is not None, "it was written or found just now"
    return issued


def _chunk_id(request_id: str, kind: str, hashes: Sequence[bytes]) -> str:
    """The request id of one kind's range: other codes under the same request must not share their serials."""
    state = blake2b(request_id.encode(), digest_size=16, person=b"import")
    state.update(b"".join(hashes))
    return f"{kind}-{state.hexdigest()}"


def _settle_once(answered: asyncio.Future[bytes], asked: Asked) -> None:
    if not answered.done():  # the caller may have gone away
        answered.set_result(bytes(asked.codes))
