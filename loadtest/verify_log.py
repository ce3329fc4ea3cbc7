"""The log, walked batch by batch: its chain, what it counts, what was accepted when; and its records as rows. Pure.

Nothing of the gateway's or the event store's own code is used here but the layout of a batch: a mistake there would
otherwise prove itself.
"""

import struct
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence

from loadtest.evidence import CONTROL, Campaign, Control, Stored, Totals
from loadtest.verify_rows import (
    APPLIED,
    BUCKETS,
    CONFLICT,
    HEADER,
    HEADER_BYTES,
    IMPORT,
    PLACE,
    RECORD_BYTES,
    REDEEM,
    REVERSE,
    STAMP,
    TOMBSTONED,
    Buckets,
    Faults,
    at,
    named,
    word,
)

WAITED_MS_MAX = 5000  # a scan judged before its offer's end may be claimed this much later: an answer takes no longer
KIND_VOUCHERS = 1
_CRC = struct.Struct(">BHQ16s16sI")
_CELL = struct.Struct(">B3xI40xI12x")  # op, campaign, terminal of a record
_WHO = struct.Struct(">IQ16s16s")  # campaign, serial, redemption id, claim id; from byte 4 on
Cell = tuple[tuple[int, int, int], int]  # op, campaign, terminal; verdict byte


class Walk:
    """Takes every batch of every partition, each partition in order; control first."""

    def __init__(self, control: Control, totals: Sequence[Totals], by_id: Buckets, by_voucher: Buckets) -> None:
        self.chain, self.windows = Faults(), Faults()  # L6, L8
        self.unread = 0  # batches whose records could not be read
        self.batches = self.records = 0
        self.heads: dict[int, tuple[int, bytes]] = {}
        self.cells: Counter[Cell] = Counter()
        self.counted: list[Counter[Cell]] = [Counter() for _ in totals]  # as far as each of the totals goes
        self.reversed: set[bytes] = set()  # claim ids of redemptions that were taken back
        self.late = self.facts = 0  # accepted after the end by no more than waiting explains; accepted offline
        self._control, self._totals = control, totals
        self._by_id, self._by_voucher = by_id, by_voucher

    def cut_off(self, partition: int, seq: int, why: str) -> None:
        """The storage itself cannot give any more of this partition."""
        self.chain.add((partition, seq), f"partition {_name(partition)}, batch {seq}: {why}")
        self.unread += 1

    def take(self, batch: Stored) -> None:
        """The next batch of its partition."""
        self.batches += 1
        self._check_chain(batch)
        if batch.partition == CONTROL:
            return
        why = _why_unreadable(batch)
        if why:
            self.cut_off(batch.partition, batch.seq, why)
            return
        _, _, _, count, at_ms = HEADER.unpack_from(batch.payload)
        records = batch.payload[HEADER_BYTES : HEADER_BYTES + count * RECORD_BYTES]
        self.records += count
        cells = Counter(zip(_CELL.iter_unpack(records), batch.verdicts, strict=True))
        self.cells.update(cells)
        for totals, counted in zip(self._totals, self.counted, strict=True):
            if batch.seq <= totals.counted.get(batch.partition, 0):
                counted.update(cells)
        self._keep(batch, records, at_ms)
        self._check_windows(batch, records, at_ms, cells)

    def _check_chain(self, batch: Stored) -> None:
        partition, seq = batch.partition, batch.seq
        reached, tip = self.heads.get(partition, (0, bytes(16)))
        where = f"partition {_name(partition)}, batch {seq}: "
        if seq != reached + 1:
            self.chain.add((partition, reached + 1), f"partition {_name(partition)}, batch {reached + 1}: missing")
        elif batch.prev != tip:
            self.chain.add((partition, seq), where + "does not follow the batch before it")
        if batch.crc is not None and batch.crc != checksum(batch):
            self.chain.add((partition, seq), where + "its checksum does not match")
        self.heads[partition] = seq, batch.tip

    def _keep(self, batch: Stored, records: bytes, at_ms: int) -> None:
        add_id, add_voucher, place = self._by_id.add, self._by_voucher.add, PLACE.pack
        stamp = STAMP.pack(batch.partition, batch.seq, at_ms)
        for index, verdict in enumerate(batch.verdicts):
            start = index * RECORD_BYTES
            record = records[start : start + RECORD_BYTES]
            row, op = record + stamp + place(index, verdict), record[0]
            if op <= REVERSE:
                add_id(record[31] % BUCKETS, row)
                if op == REVERSE and verdict == APPLIED:
                    self.reversed.add(record[32:48])
            if verdict <= TOMBSTONED or verdict == CONFLICT:
                bucket = record[31] if op == IMPORT else (record[14] << 8 | record[15]) >> 6
                add_voucher(bucket % BUCKETS, row)

    def _check_windows(self, batch: Stored, records: bytes, at_ms: int, cells: Mapping[Cell, int]) -> None:
        for campaign in {campaign for (op, campaign, _), verdict in cells if (op, verdict) == (REDEEM, APPLIED)}:
            offer = self._control.campaigns.get(campaign)
            if offer is None or not offer.starts_ms <= at_ms < offer.ends_ms:
                self._judge_outside(batch, records, at_ms, campaign)

    def _judge_outside(self, batch: Stored, records: bytes, at_ms: int, campaign: int) -> None:
        """Acceptances of a campaign that was not valid when the batch was made."""
        offer = self._control.campaigns.get(campaign)
        for index, verdict in enumerate(batch.verdicts):
            record = records[index * RECORD_BYTES : (index + 1) * RECORD_BYTES]
            its_campaign, serial, redemption_id, _ = _WHO.unpack_from(record, 4)
            if (record[0], its_campaign, verdict) != (REDEEM, campaign, APPLIED):
                continue
            if record[1] == CONFLICT:  # accepted at a till without a connection, and told later
                self.facts += 1
            elif offer is not None and offer.ends_ms <= at_ms < offer.ends_ms + WAITED_MS_MAX:
                self.late += 1
            else:
                place = batch.partition, batch.seq, index
                who = f"{named(campaign, serial)}: redemption {redemption_id.hex()} was accepted at {at(place)}"
                self.windows.add((at_ms, *place), f"{who}, {_outside(offer, at_ms)}")


def _outside(offer: Campaign | None, at_ms: int) -> str:
    if offer is None:
        return "and its campaign was never created"
    if at_ms < offer.starts_ms:
        return f"{offer.starts_ms - at_ms} ms before its campaign begins"
    return f"{at_ms - offer.ends_ms} ms after its campaign ended"


def checksum(batch: Stored) -> int:
    """CRC-32 over every field of a batch (log format 1)."""
    head = _CRC.pack(1, batch.partition, batch.seq, batch.prev, batch.tip, len(batch.payload))
    return zlib.crc32(batch.verdicts, zlib.crc32(batch.payload, zlib.crc32(head)))


def _why_unreadable(batch: Stored) -> str:
    if len(batch.payload) < HEADER_BYTES:
        return "its payload has no header"
    version, kind, _, count, _ = HEADER.unpack_from(batch.payload)
    if (version, kind) != (1, KIND_VOUCHERS):
        return f"its payload is of format {version}, kind {kind}"
    if len(batch.payload) < HEADER_BYTES + count * RECORD_BYTES:
        return f"its payload is too short for {count} records"
    if len(batch.verdicts) != count:
        return f"it has {len(batch.verdicts)} verdicts for {count} records"
    return ""


def _name(partition: int) -> str:
    return "control" if partition == CONTROL else str(partition)


def totals_differences(walk: Walk, totals: Sequence[Totals], stores: Mapping[int, str]) -> Faults:
    """L5: what each gateway counted by store and campaign, and the sums over the log as far as it had counted."""
    faults = Faults()
    for number, (ours, theirs) in enumerate(zip(walk.counted, totals, strict=True)):
        sums: Counter[tuple[str, int, int, int]] = Counter()
        for ((op, campaign, terminal), verdict), n in ours.items():
            for where in {stores.get(terminal, ""), ""}:
                sums[where, campaign, op, verdict] += n
        for cell in sorted(sums.keys() | theirs.cells.keys()):
            if sums[cell] != theirs.cells.get(cell, 0):
                store, campaign, op, verdict = cell
                what = f"{theirs.where}: {_OPS.get(op, op)} {word(verdict)} of campaign {campaign}"
                told = f"{theirs.cells.get(cell, 0)} counted, {sums[cell]} in the log"
                faults.add((number,), f"{what} in {f'store {store}' if store else 'all stores'}: {told}")
    return faults


_OPS = {1: "redemptions", 2: "reversals", 3: "voids", 4: "imports"}
