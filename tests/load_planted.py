"""Ways to break a run and its evidence, one or more for each invariant, and the counterexample that must be told."""

from collections.abc import Callable
from typing import Any

import msgspec
from load_world import ACCEPTED, EXPIRED, REPEATED, START_MS, USED, Evidence, attempt, id_of, record

from eventstore.events import IMPORT, REDEEM, REVERSE, VOID
from loadtest.evidence import Held, Indexed, Stored

R = record
Plant = Callable[[Evidence], object]


def change_attempt(evidence: Evidence, number: int, **changes: Any) -> None:
    own_id = id_of(number).hex()
    index = next(n for n, one in enumerate(evidence.attempts) if one.redemption_id == own_id and one.kind != "lookup")
    evidence.attempts[index] = msgspec.structs.replace(evidence.attempts[index], **changes)


def change_batch(evidence: Evidence, partition: int, seq: int, **changes: Any) -> None:
    """As it would lie there after an accident: the checksum is the old one."""
    index = next(n for n, one in enumerate(evidence.batches) if one[:2] == (partition, seq))
    evidence.batches[index] = evidence.batches[index]._replace(**changes)


def drop_batch(evidence: Evidence, partition: int, seq: int) -> None:
    evidence.batches = [one for one in evidence.batches if one[:2] != (partition, seq)]


def change_index(evidence: Evidence, number: int, change: Callable[[Indexed], Indexed | None]) -> None:
    rows = [change(row) if row.redemption_id == id_of(number) else row for row in evidence.index]
    evidence.index = [row for row in rows if row is not None]


def change_total(evidence: Evidence, by: int) -> None:
    cells = evidence.totals[0].cells
    cells["s1", 1, REDEEM, ACCEPTED] += by


def change_held(evidence: Evidence, serial: int, change: Callable[[Held], Held | None]) -> None:
    key, field = b"v1:%d" % (serial // 64), b"%d" % (serial % 64)
    rows = [change(row) if (row.key.endswith(key) and row.field == field) else row for row in evidence.held]
    evidence.held = [row for row in rows if row is not None]


def log_and_tell(
    evidence: Evidence, partition: int, row: bytes, verdict: int, *told: Any, at_ms: int = START_MS, **more: Any
) -> None:
    """A record that the log should not hold, and everybody agrees on it: only the invariant itself can object."""
    evidence._add(partition, [row], bytes((verdict,)), at_ms=at_ms)
    newest = evidence.batches_of(partition)[-1].seq
    evidence.attempts.append(attempt(*told, (partition, newest, 0), **more))


PLANTED: list[tuple[str, str, Plant, str]] = [
    (
        "L1",
        "accepted while another redemption stood",
        lambda e: log_and_tell(e, 0, R(REDEEM, 5, 40, 2), ACCEPTED, 40, 5, 2, "accepted"),
        f"redemption {id_of(40).hex()} was accepted at 0/7/0 while redemption {id_of(5).hex()} at 0/1/4 stood",
    ),
    (
        "L1",
        "accepted after it was voided",
        lambda e: log_and_tell(e, 0, R(REDEEM, 10, 40, 2), ACCEPTED, 40, 10, 2, "accepted"),
        f"voucher 1-10: redemption {id_of(40).hex()} was accepted at 0/7/0 while void",
    ),
    (
        "L1",
        "accepted again by the id that was taken back",
        lambda e: (
            log_and_tell(e, 0, R(REVERSE, 3, 41, 2, claim=23), ACCEPTED, 41, 3, 2, "reversed", kind="reverse"),
            log_and_tell(e, 0, R(REDEEM, 3, 42, 1, claim=3), ACCEPTED, 42, 3, 1, "accepted"),
        ),
        f"voucher 1-3: redemption {id_of(42).hex()} was accepted at 0/8/0, though it had been taken back before",
    ),
    (
        "L1",
        "the same voucher in two partitions",
        lambda e: log_and_tell(e, 1, R(REDEEM, 5, 40, 2), ACCEPTED, 40, 5, 2, "accepted"),
        "voucher 1-5 has records in partition 0 and at 1/3/0",
    ),
    (
        "L1",
        "a reversal of what does not stand",
        lambda e: log_and_tell(e, 0, R(REVERSE, 3, 43, 1, claim=3), ACCEPTED, 43, 3, 1, "reversed", kind="reverse"),
        f"voucher 1-3: reversal {id_of(43).hex()} took effect at 0/7/0 while redemption {id_of(23).hex()}",
    ),
    (
        "L2",
        "a journal claims an acceptance that never was",
        lambda e: e.attempts.append(attempt(44, 20, 1, "accepted", (0, 3, 1))),
        f"voucher 1-20: redemption {id_of(44).hex()} was told accepted (told 0/3/1), but the log has never seen it",
    ),
    (
        "L2",
        "an acceptance without a position that never was",
        lambda e: e.attempts.append(attempt(44, 20, 1, "accepted", None)),
        "was told accepted (told no position), but the log has never seen it",
    ),
    (
        "L2",
        "told yes, logged no",
        lambda e: change_attempt(e, 22, verdict="accepted"),
        f"voucher 1-2: redemption {id_of(22).hex()} was told accepted at 0/2/1, where the log says already_redeemed",
    ),
    (
        "L2",
        "an acknowledged acceptance that the log lost",
        lambda e: e.reseal(1, 1, [R(REDEEM, 70, 70, 2)], derive=True, verdicts=bytes(1)),
        f"voucher 1-71: redemption {id_of(71).hex()} was told accepted (told 1/1/1), but the log has never seen it",
    ),
    (
        "L2",
        "another voucher's acceptance",
        lambda e: change_attempt(e, 5, voucher="1-6"),
        f"voucher 1-6: redemption {id_of(5).hex()} was told accepted at 0/1/4, where the log names voucher 1-5",
    ),
    (
        "L2",
        "another place",
        lambda e: change_attempt(e, 5, position=(0, 1, 5)),
        "was told accepted (told 0/1/5), but the log holds it at 0/1/4 as accepted",
    ),
    (
        "L2",
        "a look-up that told of a reversal nobody made",
        lambda e: e.attempts.append(attempt(5, 5, 1, "reversed", (0, 1, 4), kind="lookup")),
        f"voucher 1-5: look-up of {id_of(5).hex()} was told reversed at 0/1/4, where the log says accepted",
    ),
    (
        "L3",
        "a redemption nobody sent",
        lambda e: e.add(0, [R(REDEEM, 30, 60, 3)], bytes(1)),
        f"voucher 1-30: redemption {id_of(60).hex()} is logged at 0/7/0 from terminal 3, and nobody sent it",
    ),
    (
        "L3",
        "a redemption of an attempt that was dropped",
        lambda e: e.add(1, [R(REDEEM, 73, 73, 2)], bytes(1)),
        f"voucher 1-73: redemption {id_of(73).hex()} is logged at 1/3/0 from terminal 2, and nobody sent it",
    ),
    (
        "L3",
        "logged more often than sent",
        lambda e: e.add(0, [R(REDEEM, 5, 5, 1)], bytes((REPEATED,))),
        f"redemption {id_of(5).hex()} is logged at 0/7/0 from terminal 1, and it was sent 1 times and is there 2 times",
    ),
    (
        "L4",
        "Valkey forgot a redemption",
        lambda e: change_held(e, 5, lambda held: None),
        "1-5, last changed at 0/1/4: the log makes it redeemed by 636c6169 in batch 1 (partition 0), Valkey holds no",
    ),
    (
        "L4",
        "Valkey holds a redemption the log has not",
        lambda e: e.held.append(Held(b"{0}v1:0", b"40", e.held[0].value)),
        "voucher 1-40: the log makes it nothing, Valkey holds redeemed",
    ),
    (
        "L4",
        "Valkey forgot what was settled",
        lambda e: change_held(e, 3, lambda held: held._replace(value=held.value[:32])),
        "voucher 1-3, last changed at 0/3/0: the log makes it redeemed by 636c6169 in batch 3 and reversed",
    ),
    (
        "L4",
        "Valkey names another campaign for a code",
        lambda e: setattr(e, "held", [h._replace(value=b"\0" * 12) if len(h.value) == 12 else h for h in e.held]),
        "the code of voucher 1-120, last changed at",
    ),
    (
        "L4",
        "a key that is none of ours",
        lambda e: e.held.append(Held(b"{0}other", b"1", b"x")),
        "Valkey holds the key {0}other, which no voucher has",
    ),
    (
        "L4",
        "Valkey's head is behind",
        lambda e: e.heads.update({0: (5, b"t" * 16)}),
        "partition 0: the log ends at batch 6, Valkey at 5",
    ),
    (
        "L4",
        "Valkey's head is on another chain",
        lambda e: e.heads.update({1: (e.heads[1][0], b"t" * 16)}),
        "on another chain",
    ),
    (
        "L4",
        "the index forgot an id",
        lambda e: change_index(e, 5, lambda row: None),
        f"index.db: voucher 1-5: id {id_of(5).hex()} is at 0/1/4 in the log, nowhere in the index",
    ),
    (
        "L4",
        "the index points at the repeat",
        lambda e: change_index(e, 1, lambda row: row._replace(seq=2, within=0)),
        f"index.db: voucher 1-1: id {id_of(1).hex()} is at 0/1/0 in the log, 0/2/0 in the index",
    ),
    (
        "L4",
        "the index knows what the log does not",
        lambda e: e.index.append(Indexed(id_of(77), 0, 1, 1, False)),
        f"index.db: id {id_of(77).hex()} is 0/1/1 in the index, not in the log",
    ),
    (
        "L5",
        "one redemption too many in a store's total",
        lambda e: change_total(e, 1),
        "console.db: redemptions accepted of campaign 1 in store s1: 9 counted, 8 in the log",
    ),
    (
        "L5",
        "a terminal counted in another store",
        lambda e: e.control.stores.update({3: "s1"}),
        "console.db: redemptions unknown_code of campaign 0 in store s1: 0 counted, 1 in the log",
    ),
    ("L6", "a batch is missing", lambda e: drop_batch(e, 0, 3), "partition 0, batch 3: missing"),
    (
        "L6",
        "a batch of another chain",
        lambda e: e.reseal(0, 3, prev=b"x" * 16),
        "partition 0, batch 3: does not follow the batch before it",
    ),
    (
        "L6",
        "a verdict changed where it lies",
        lambda e: change_batch(e, 0, 4, verdicts=bytes((0, EXPIRED, EXPIRED))),
        "partition 0, batch 4: its checksum does not match",
    ),
    (
        "L6",
        "a control batch is missing",
        lambda e: drop_batch(e, 0xFFFF, 1) or e.batches.insert(0, Stored(0xFFFF, 2, b"", b"", b"", b"", None)),
        "partition control, batch 1: missing",
    ),
    (
        "L6",
        "a batch that cannot be read",
        lambda e: change_batch(e, 0, 6, payload=b"short", crc=None),
        "partition 0, batch 6: its payload has no header",
    ),
    (
        "L7",
        "a generator saw two answers",
        lambda e: change_attempt(e, 5, answers_differ=True),
        f"voucher 1-5: redemption {id_of(5).hex()} was told accepted and, when it was sent again, something else",
    ),
    (
        "L7",
        "two attempts with one id were told two things",
        lambda e: (
            e.add(0, [R(REDEEM, 5, 5, 1)], bytes((USED,))),
            e.attempts.append(attempt(5, 5, 1, "already_redeemed", (0, 7, 0), intended_us=9_000_000)),
        ),
        f"voucher 1-5: redemption {id_of(5).hex()} was told accepted, and later already_redeemed",
    ),
    (
        "L7",
        "the log refuses what it had accepted",
        lambda e: (e.add(0, [R(REDEEM, 5, 5, 1)], bytes((USED,))), change_attempt(e, 5, sends=2)),
        f"voucher 1-5: redemption {id_of(5).hex()} was accepted at 0/1/4, then already_redeemed at 0/7/0",
    ),
    (
        "L7",
        "an accepted id took effect on a second voucher",
        lambda e: (e.add(0, [R(REDEEM, 31, 5, 1, claim=61)], bytes(1)), change_attempt(e, 5, sends=2)),
        f"voucher 1-5: id {id_of(5).hex()} took effect at 0/1/4 and, on voucher 1-31, at 0/7/0",
    ),
    (
        "L7",
        "a first answer again, of which there is no first",
        lambda e: log_and_tell(e, 0, R(REDEEM, 31, 61, 1), REPEATED, 61, 31, 1, "accepted"),
        f"voucher 1-31: redemption {id_of(61).hex()} was repeated at 0/7/0, and was never accepted before",
    ),
    (
        "L8",
        "accepted before the beginning",
        lambda e: log_and_tell(e, 0, R(REDEEM, 31, 61, 1), ACCEPTED, 61, 31, 1, "accepted", at_ms=START_MS - 1001),
        f"voucher 1-31: redemption {id_of(61).hex()} was accepted at 0/7/0, 1 ms before its campaign begins",
    ),
    (
        "L8",
        "accepted after the end",
        lambda e: log_and_tell(e, 0, R(REDEEM, 31, 61, 1), ACCEPTED, 61, 31, 1, "accepted", at_ms=START_MS + 66_000),
        f"voucher 1-31: redemption {id_of(61).hex()} was accepted at 0/7/0, 6000 ms after its campaign ended",
    ),
    (
        "L8",
        "accepted for a campaign that never was",
        lambda e: e.add(0, [R(REDEEM, 31, 61, 1, campaign=9)], bytes(1), derive=False),
        f"voucher 9-31: redemption {id_of(61).hex()} was accepted at 0/7/0, and its campaign was never created",
    ),
    (
        "L9",
        "told no after a time-out, while the first send had been accepted",
        lambda e: change_attempt(e, 71, verdict="already_redeemed", sends=2),
        f"voucher 1-71: redemption {id_of(71).hex()} was told already_redeemed, but took effect at 1/1/1",
    ),
    (
        "L9",
        "an unanswered attempt took effect twice",
        lambda e: e.add(0, [R(REDEEM, 31, 70, 2, claim=61)], bytes(1)),
        f"id {id_of(70).hex()} took effect at",
    ),
    (
        "L10",
        "a voucher that was never issued",
        lambda e: log_and_tell(e, 1, R(REDEEM, 200, 61, 1), ACCEPTED, 61, 200, 1, "accepted"),
        f"voucher 1-200 was never issued, and redemption {id_of(61).hex()} at 1/3/0 stood",
    ),
    (
        "L10",
        "voided while redeemed",
        lambda e: e.add(0, [R(VOID, 5, 51, 0)], bytes(1), derive=False),
        f"voucher 1-5 was voided at 0/7/0 while redemption {id_of(5).hex()} at 0/1/4 stood",
    ),
    (
        "L10",
        "issues that share serials",
        lambda e: e.control.campaigns[1].issued.append((50, 2)),
        "campaign 1: the issues from serial 1 and 50 share serials",
    ),
    (
        "L10",
        "more redeemed than issued",
        lambda e: setattr(e.control.campaigns[1], "issued", [(1, 8)]),
        "was never issued",
    ),
    (
        "L10",
        "one code imported twice",
        lambda e: (
            e.add(0, [R(IMPORT, 121, 0, 0)], bytes(1), derive=False)
            or e.add(1, [R(IMPORT, 121, 0, 0)], bytes(1), derive=False)
        ),
        "the code of voucher 1-121 was imported a second time at",
    ),
]
