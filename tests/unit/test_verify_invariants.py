"""verify holds for a whole run; every invariant is seen to fail, with the right counterexample, when it is broken."""

import msgspec
import pytest
from load_planted import PLANTED, Plant, log_and_tell
from load_world import ACCEPTED, START_MS, Evidence, id_of, record

from eventstore.events import REDEEM
from gateway.messages import Answer, Position

R = record


def test_a_whole_run_holds() -> None:
    found = Evidence().judged()
    assert [one.name for one in found.values() if not one.holds] == []
    assert found["L10"].compared == {"issued": 150, "active": 138, "redeemed": 11, "expired": 0, "void": 1}
    assert found["L9"].compared["never answered"] == 2
    assert found["L9"].compared["of these accepted"] == found["L9"].compared["never arrived"] == 1
    assert found["L3"].compared["records"] == 20


@pytest.mark.parametrize(
    ("name", "plant", "counterexample"), [pytest.param(n, p, c, id=f"{n} {what}") for n, what, p, c in PLANTED]
)
def test_a_planted_break_is_found(name: str, plant: Plant, counterexample: str) -> None:
    evidence = Evidence()
    plant(evidence)
    found = evidence.judged()[name]
    assert found.holds is False, found
    assert found.broken >= 1
    assert counterexample in found.counterexample


def test_every_invariant_was_seen_to_fail() -> None:
    assert {name for name, *_ in PLANTED} == {f"L{n}" for n in range(1, 11)}


def test_what_cannot_be_told_is_said() -> None:
    evidence = Evidence()
    evidence.valkey, evidence.totals, evidence.offered = "it does not run", [], len(evidence.attempts) + 1
    found = evidence.judged()
    unknown = {name: one.why for name, one in found.items() if one.holds is None}
    assert unknown.keys() == {"L2", "L3", "L4", "L5", "L7", "L9"}
    assert unknown["L4"] == "it does not run"
    assert unknown["L2"] == "the journals hold 24 attempts, and the run offered 25"
    assert "no gateway kept totals" in unknown["L5"]


def test_what_others_did_before_the_run_is_no_phantom() -> None:
    evidence = Evidence()
    evidence.is_whole = False
    evidence.add(0, [R(REDEEM, 30, 60, 9)], bytes(1), derive=False)  # a terminal of nobody's here
    evidence.add(0, [R(REDEEM, 31, 61, 3)], bytes(1), derive=False, at_ms=START_MS - 1001)
    found = evidence.judged()["L3"]
    assert (found.holds, found.compared["of others"]) == (True, 2)
    evidence.add(0, [R(REDEEM, 32, 62, 3)], bytes(1), derive=False)
    assert id_of(62).hex() in evidence.judged()["L3"].counterexample


def test_a_log_that_is_all_older_than_the_run_proves_nothing() -> None:
    evidence = Evidence()
    for batch in evidence.batches_of(0) + evidence.batches_of(1):
        early = batch.payload[:8] + (START_MS - 5000).to_bytes(8, "big") + batch.payload[16:]
        evidence.reseal(batch.partition, batch.seq, payload=early)
    found = evidence.judged()["L3"]
    assert (found.holds, found.why) == (None, "the log dates all its records before the run: do the clocks differ?")


def test_a_scan_decided_before_the_end_may_be_logged_a_moment_after_it() -> None:
    evidence = Evidence()
    late_ms = START_MS + 60_000 + 40
    log_and_tell(evidence, 0, R(REDEEM, 31, 61, 1), ACCEPTED, 61, 31, 1, "accepted", at_ms=late_ms)
    found = evidence.judged()["L8"]
    assert (found.holds, found.compared["decided before the end, logged after"]) == (True, 1)


def test_a_closed_campaign_has_no_active_vouchers_and_a_purged_one_none_in_valkey() -> None:
    evidence = Evidence()
    evidence.control.campaigns[1].closed = evidence.control.campaigns[1].purged = True
    evidence.held = []
    found = evidence.judged()
    assert found["L4"].holds, found["L4"]
    assert found["L10"].compared == {"issued": 150, "active": 0, "redeemed": 11, "expired": 138, "void": 1}


@pytest.mark.parametrize(
    ("number", "verdict", "place", "says"),
    (
        (5, "accepted", (0, 1, 4), ""),
        (5, "accepted", (0, 1, 5), "is at 0/1/4 in the log, and the gateway answers 0/1/5"),
        (5, "voided", (0, 1, 4), "is accepted in the log at 0/1/4, and the gateway answers voided"),
        (5, None, None, "is at 0/1/4 in the log, and the gateway knows none"),
        (72, "accepted", (0, 1, 4), "is not in the log, and the gateway answers accepted"),
    ),
)
def test_a_gateway_that_is_asked_again_must_say_what_the_log_says(
    number: int, verdict: str | None, place: tuple[int, int, int] | None, says: str
) -> None:
    right = {
        **{n: ("accepted", (0, 1, n - 1)) for n in (1, 2, 4, 5, 6, 7, 8)},
        3: ("reversed", (0, 1, 2)),
        22: ("already_redeemed", (0, 2, 1)),
        23: ("accepted", (0, 3, 0)),
        24: ("reversed", (0, 3, 2)),
        25: ("expired", (0, 4, 1)),
        26: ("unknown_code", (0, 4, 2)),
        27: ("conflict", (0, 5, 0)),
        28: ("accepted", (0, 5, 1)),
        70: ("accepted", (1, 1, 0)),
        71: ("accepted", (1, 1, 1)),
        number: (verdict, place),
    }
    evidence = Evidence()

    def answer(redemption_id: bytes) -> bytes | None:
        told, where = right.get(int.from_bytes(redemption_id[12:], "big"), (None, None))
        if told is None:
            return None
        return msgspec.json.encode(Answer(redemption_id.hex(), told, position=Position(*where or (0, 0, 0))))

    evidence.answer = answer
    found = evidence.judged()["L7"]
    assert (found.holds, found.compared["asked now"]) == (not says, 19)
    assert says in found.counterexample


def test_answers_that_are_not_the_same_bytes_are_seen() -> None:
    evidence, turns = Evidence(), iter(range(1000))
    evidence.answer = lambda redemption_id: b"%d" % next(turns)
    found = evidence.judged()["L7"]
    assert "was asked for twice, and the answers are not the same to the byte" in found.counterexample


def test_no_code_stands_in_a_counterexample() -> None:
    for _, _, plant, _ in PLANTED:
        evidence = Evidence()
        plant(evidence)
        assert b"cccc".hex() not in repr(evidence.judged()), "the keyed hash of a code"
