"""A small run and the evidence for it, made by hand: a dozen vouchers, every kind of record, three terminals.

What Valkey holds is folded here by eventstore.vouchers, so that two independent folds are compared whenever a test says
that everything holds.
"""

import io
from collections import Counter
from collections.abc import Callable
from typing import Any

import msgspec

from eventstore.events import IMPORT, RECORD, REDEEM, REVERSE, VOID, encode_records
from eventstore.log import Batch, batch_crc
from eventstore.vouchers import apply_batch, empty_state, registry_partition
from loadtest.evidence import CONTROL, Answered, Campaign, Control, Held, Indexed, Judgement, Stored, Totals
from loadtest.run_files import Attempt, Counts, Environment, Latencies, Run
from loadtest.verify import Verification

START_MS = 1_800_000_000_000
OFFER = Campaign(START_MS - 1000, START_MS + 60_000, [(1, 100), (101, 50)])
STORES = {1: "s1", 2: "s2", 3: "s2"}
CODE = b"\x00\x00\x00\x01" + b"c" * 12  # keyed hash of an imported code
ACCEPTED, TOMBSTONED, REPEATED, REVERSED, CONFLICT, USED, EXPIRED, UNKNOWN = 0, 1, 2, 3, 4, 21, 34, 12


def id_of(number: int) -> bytes:
    return bytes(6) + b"\x70" + bytes(5) + number.to_bytes(4, "big")


def claim_of(number: int) -> bytes:
    return b"claim" + number.to_bytes(11, "big")


def record(
    op: int, serial: int, number: int, terminal: int, *, claim: int = 0, static: int = 0, campaign: int = 1
) -> bytes:
    own = CODE if op == IMPORT else id_of(number)
    return RECORD.pack(op, static, 1, 0, campaign, serial, own, claim_of(claim or number), terminal, START_MS, 7)


def attempt(
    number: int, serial: int, terminal: int, verdict: str | None, place: tuple[int, int, int] | None, **more: Any
) -> Attempt:
    base = {
        "kind": "redeem",
        "terminal": terminal,
        "redemption_id": id_of(number).hex(),
        "voucher": f"1-{serial}" if serial else None,
        "intended_us": number * 1000,
        "sent_us": number * 1000 + 10,
        "ended_us": number * 1000 + 500 if verdict else None,
        "sends": 1,
        "verdict": verdict,
        "position": place,
    }
    return Attempt(**(base | more))  # type: ignore[arg-type]


class Evidence:
    """Everything verify is told; a test bends it before `judged`."""

    def __init__(self) -> None:
        self.control = Control({1: msgspec.structs.replace(OFFER, issued=list(OFFER.issued))}, dict(STORES))
        self.batches: list[Stored] = []
        self.attempts: list[Attempt] = []
        self.index: list[Indexed] = []
        self.totals: list[Totals] = []
        self.held: list[Held] = []
        self.heads: dict[int, tuple[int, bytes]] = {}
        self.valkey: str = ""  # why it cannot be read
        self.answer: Callable[[bytes], bytes | None] | None = None
        self.offered: int | None = None
        self.is_whole = True
        self._add(CONTROL, [], b"", kind=2)
        self._play()
        self._derive()

    def _add(
        self, partition: int, records: list[bytes], verdicts: bytes, *, at_ms: int = START_MS, kind: int = 1
    ) -> None:
        seq = sum(batch.partition == partition for batch in self.batches)
        prev = self.batches_of(partition)[-1].tip if seq else bytes(16)
        payload = encode_records(records, {}, received_ms=at_ms)
        if kind == 2:
            payload = payload[:1] + b"\x02" + payload[2:]
        batch = Batch(partition, seq + 1, prev, bytes([seq + 1, partition & 255]) * 8, payload, verdicts)
        self.batches.append(sealed(batch))

    def batches_of(self, partition: int) -> list[Stored]:
        return [batch for batch in self.batches if batch.partition == partition]

    def _play(self) -> None:
        """Partition 0 has serials below 64 and above 127, partition 1 the others."""
        r = record
        self._add(0, [r(REDEEM, n, n, 1) for n in range(1, 9)], bytes(8))
        self._add(
            0, [r(REDEEM, 1, 1, 1), r(REDEEM, 2, 22, 2), r(REVERSE, 3, 33, 1, claim=3)], bytes((REPEATED, USED, 0))
        )
        self._add(
            0,
            [r(REDEEM, 3, 23, 2), r(REVERSE, 9, 34, 1, claim=24), r(REDEEM, 9, 24, 1)],
            bytes((0, TOMBSTONED, REVERSED)),
        )
        self._add(
            0,
            [r(VOID, 10, 50, 0), r(REDEEM, 11, 25, 2, static=EXPIRED), r(REDEEM, 0, 26, 3, campaign=0)],
            bytes((0, EXPIRED, UNKNOWN)),
        )
        self._add(
            0, [r(REDEEM, 4, 27, 3, static=CONFLICT), r(REDEEM, 12, 28, 3, static=CONFLICT)], bytes((CONFLICT, 0))
        )
        self._add(0, [], b"")
        self._add(1, [r(REDEEM, n, n, 2) for n in (70, 71)], bytes(2))
        self._add(registry_partition(CODE, 2), [r(IMPORT, 120, 0, 0)], bytes(1))
        a = attempt
        self.attempts = [
            *(a(n, n, 1, "accepted", (0, 1, n - 1)) for n in range(2, 9)),
            a(1, 1, 1, "accepted", (0, 2, 0), sends=2),
            a(22, 2, 2, "already_redeemed", (0, 2, 1)),
            a(33, 3, 1, "reversed", (0, 2, 2), kind="reverse", target=id_of(3).hex()),
            a(23, 3, 2, "accepted", (0, 3, 0)),
            a(34, 9, 1, "reversed", (0, 3, 1), kind="reverse", target=id_of(24).hex()),
            a(24, 9, 1, "reversed", (0, 3, 2)),
            a(25, 11, 2, "expired", (0, 4, 1)),
            a(26, 0, 3, "unknown_code", (0, 4, 2)),
            a(27, 4, 3, "conflict", (0, 5, 0)),
            a(28, 12, 3, "accepted", (0, 5, 1)),
            a(70, 70, 2, None, None, sends=3),  # never answered: the log has it
            a(71, 71, 2, "accepted", (1, 1, 1)),
            a(72, 72, 2, None, None),  # never answered, never arrived
            a(73, 73, 2, None, None, sent_us=None, sends=0),  # dropped
            a(3, 3, 1, "reversed", (0, 1, 2), kind="lookup"),
            a(4, 4, 1, "accepted", (0, 1, 3), kind="lookup"),
            a(99, 13, 1, "accepted", None, kind="preview"),
        ]

    def _derive(self) -> None:
        """What Valkey, index and console make of this log."""
        state, cells, effects = empty_state(2), Counter[tuple[str, int, int, int]](), dict[bytes, Indexed]()
        for stored in self.batches:
            if stored.partition == CONTROL:
                continue
            apply_batch(state, Batch(*stored[:6]))
            for index, verdict in enumerate(stored.verdicts):
                row = RECORD.unpack_from(stored.payload, 16 + 64 * index)
                op, campaign, own_id, terminal = row[0], row[4], row[6], row[8]
                for where in {STORES.get(terminal, ""), ""}:
                    cells[where, campaign, op, verdict] += 1
                if op in (REDEEM, REVERSE):
                    place = Indexed(own_id, stored.partition, stored.seq, index, verdict > TOMBSTONED)
                    if own_id not in effects or (effects[own_id].is_refused and not place.is_refused):
                        effects[own_id] = place
        self.index = list(effects.values())
        newest = {partition: head.seq for partition, head in state.heads.items()}
        self.totals = [Totals("console.db", newest, dict(cells))]
        self.held = [Held(key, field, value) for key, fields in state.hashes.items() for field, value in fields.items()]
        self.heads = {partition: (head.seq, head.tip) for partition, head in state.heads.items()}

    # --- what tests do to it ---

    def reseal(
        self, partition: int, seq: int, records: list[bytes] | None = None, *, derive: bool = False, **changes: Any
    ) -> None:
        """Change a batch and make its checksum right again; with `derive`, everything else follows the log."""
        index = next(n for n, batch in enumerate(self.batches) if (batch.partition, batch.seq) == (partition, seq))
        batch = Batch(*self.batches[index][:6])
        if records is not None:
            changes["payload"] = (
                batch.payload[:4] + len(records).to_bytes(4, "big") + batch.payload[8:16] + b"".join(records)
            )
        self.batches[index] = sealed(msgspec.structs.replace(batch, **changes))
        if derive:
            self._derive()

    def add(
        self, partition: int, records: list[bytes], verdicts: bytes, *, at_ms: int = START_MS, derive: bool = True
    ) -> None:
        """One more batch; the rest of the evidence follows it."""
        self._add(partition, records, verdicts, at_ms=at_ms)
        if derive:
            self._derive()

    def judged(self) -> dict[str, Judgement]:
        offered = len(self.attempts) if self.offered is None else self.offered
        made = Verification(
            run_of(offered), self.control, self.totals, io.BytesIO, is_whole=self.is_whole, sample=range(offered)
        )
        for one in self.attempts:
            made.attempt(one)
        for batch in self.batches:
            made.batch(batch)
        index = made.index("index.db", {partition: seq for partition, (seq, _) in self.heads.items()})
        for row in self.index:
            index.take(row)
        for held in self.held:
            made.held(held)
        made.no_valkey = self.valkey
        if not self.valkey:
            made.heads(self.heads)
        expected = made.compare()
        if self.answer is not None:
            ids = [one.redemption_id for one in expected]
            made.answers(expected, [Answered(one, self.answer(one), self.answer(one)) for one in ids])
        found = {one.name: one for one in made.judged(START_MS + 1)}
        assert list(found) == [f"L{n}" for n in range(1, 11)]
        return found


def sealed(batch: Batch) -> Stored:
    return Stored(batch.partition, batch.seq, batch.prev, batch.tip, batch.payload, batch.verdicts, batch_crc(batch))


def run_of(offered: int) -> Run:
    return Run(
        tool="native",
        scenario={"seed": 1},
        started_ms=START_MS,
        seconds=1.0,
        generators=1,
        counts=Counts(offered, offered, offered, 0, 0, offered),
        outcomes={},
        latencies=Latencies("", "", ""),
        faults=[],
        marks=[],
        void=[],
        environment=Environment("cpu", 2, True, "k", "3", "0", "", None, None, {}),
    )
