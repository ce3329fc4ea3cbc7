"""What a till sends next: batches, retries with the same id, order against reversals, and a gateway that misbehaves."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from devices.outbox import (
    ANSWER_TIMEOUT_MS,
    FLIGHTS_MAX,
    RETRY_MS_MAX,
    Outbox,
    PeerFault,
    backoff_ms,
    uuid7,
)
from devices.till import GIVEN_UP
from gateway.messages import (
    CODE_CHARS_MAX,
    SCANS_PER_MESSAGE_MAX,
    Detail,
    Place,
    Position,
    Redeem,
    RedeemMany,
    Reverse,
    ReverseMany,
    Verdict,
    Verdicts,
    Winner,
)
from gateway.stream import MESSAGE_BYTES_MAX


def an_id(n: int) -> bytes:
    return n.to_bytes(16, "big")


def redeem(n: int) -> Redeem:
    return Redeem(an_id(n), f"CODE{n}", 1000 + n)


def reverse(n: int, of: int) -> Reverse:
    return Reverse(an_id(n), an_id(of), 2000, redeem(of))


def answer(message: RedeemMany | ReverseMany, *codes: Verdict, seq: int = 5) -> Verdicts:
    return Verdicts(message.ref, bytes(codes), 9000, [Place(0, seq, 0, len(codes))], {})


def an_outbox(count: int) -> Outbox:
    outbox = Outbox()
    for n in range(count):
        outbox.add_redeem(redeem(n), b"hash %d" % n, now_ms=0)
    return outbox


def test_everything_that_waits_goes_in_full_messages() -> None:
    outbox = an_outbox(SCANS_PER_MESSAGE_MAX * 2 + 1)
    messages = outbox.messages_due(0)
    assert [len(m.scans) for m in messages if isinstance(m, RedeemMany)] == [256, 256, 1]
    assert [scan for m in messages if isinstance(m, RedeemMany) for scan in m.scans] == [redeem(n) for n in range(513)]
    assert outbox.messages_due(0) == [], "in flight is not due"


@pytest.mark.parametrize("char", ("A", "\N{CJK UNIFIED IDEOGRAPH-4E2D}", "\N{PARTY POPPER}"))
@pytest.mark.parametrize("length", (36, 1024, CODE_CHARS_MAX))
def test_no_message_is_larger_than_a_gateway_takes(char: str, length: int) -> None:
    outbox, asked = Outbox(), 2 * SCANS_PER_MESSAGE_MAX
    for n in range(asked):
        scan = Redeem(n.to_bytes(16, "big"), char * length, (1 << 48) - 1)
        if n % 2:
            outbox.add_redeem(scan, b"", 0)
        else:
            reversal = Reverse(an_id(1000 + n), scan.redemption_id, (1 << 48) - 1, scan, GIVEN_UP)
            outbox.add_reverse(reversal, b"reversing", 0)
    sent: list[bytes] = []
    while len(sent) < asked:
        messages = outbox.messages_due(0)
        assert messages
        for message in messages:
            assert len(msgspec.msgpack.encode(message)) <= MESSAGE_BYTES_MAX
            sent += ids_of(message)
            outbox.take(answer(message, *[Verdict.ACCEPTED] * len(ids_of(message))), 0, 0.5)
    assert len(set(sent)) == asked
    assert len(outbox) == 0


def test_usual_codes_are_not_cut_by_size() -> None:
    outbox = Outbox()
    for n in range(SCANS_PER_MESSAGE_MAX):
        outbox.add_redeem(Redeem(an_id(n), "T1" + "0" * 60, 5), b"", 0)
    assert len(outbox.messages_due(0)) == 1


def test_a_backlog_waits_for_room() -> None:
    outbox = an_outbox(SCANS_PER_MESSAGE_MAX * (FLIGHTS_MAX + 1))
    first = outbox.messages_due(0)
    assert len(first) == FLIGHTS_MAX
    assert outbox.next_due_ms() == ANSWER_TIMEOUT_MS
    outbox.take(answer(first[0], *[Verdict.ACCEPTED] * 256), 1, 0.5)
    assert outbox.next_due_ms() == 0
    assert len(outbox.messages_due(1)) == 1


def test_answers_carry_place_and_detail() -> None:
    outbox = an_outbox(3)
    [message] = outbox.messages_due(0)
    winner = Winner("store-2", "**1", 77)
    places = [Place(0, 8, 4, 2), Place(1, 3, 0, 1)]
    codes = bytes([Verdict.ACCEPTED, Verdict.ALREADY_REDEEMED, Verdict.EXPIRED])
    verdicts = Verdicts(message.ref, codes, 9000, places, {1: Detail(winner), 2: Detail(note="yesterday")})
    answers = outbox.take(verdicts, 1, 0.5)
    assert [(a.redemption_id, a.verdict) for a in answers] == [(an_id(n), codes[n]) for n in range(3)]
    assert [a.place for a in answers] == [Position(0, 8, 4), Position(0, 8, 5), Position(1, 3, 0)]
    assert (answers[1].winner, answers[2].note, answers[0].at_ms) == (winner, "yesterday", 9000)
    assert len(outbox) == 0
    assert outbox.next_due_ms() is None


def test_unanswered_goes_again_with_the_same_id_and_a_late_answer_counts() -> None:
    outbox = an_outbox(1)
    [first] = outbox.messages_due(0)
    assert outbox.next_due_ms() == ANSWER_TIMEOUT_MS
    [second] = outbox.messages_due(ANSWER_TIMEOUT_MS)
    assert (second.ref, second.scans) != (first.ref, [])
    assert isinstance(first, RedeemMany)
    assert isinstance(second, RedeemMany)
    assert second.scans == first.scans
    assert [a.verdict for a in outbox.take(answer(first, Verdict.ACCEPTED), 5000, 0.5)] == [Verdict.ACCEPTED]
    assert outbox.take(answer(second, Verdict.ACCEPTED), 5001, 0.5) == [], "told once"


def test_a_late_unsure_answer_does_not_recall_what_is_in_flight() -> None:
    outbox = an_outbox(1)
    [first] = outbox.messages_due(0)
    [second] = outbox.messages_due(ANSWER_TIMEOUT_MS)
    outbox.take(answer(first, Verdict.UNRESOLVED, seq=0), 5000, 0.0)
    assert outbox.messages_due(6000) == []
    assert len(outbox.take(answer(second, Verdict.ACCEPTED), 6000, 0.5)) == 1


def test_a_silent_gateway_is_left() -> None:
    outbox = an_outbox(1)
    outbox.messages_due(0)
    outbox.messages_due(ANSWER_TIMEOUT_MS)
    with pytest.raises(PeerFault, match="no answer for 8 s"):
        outbox.messages_due(2 * ANSWER_TIMEOUT_MS)
    outbox.connection_lost(8001)
    [again] = outbox.messages_due(8001)
    assert isinstance(again, RedeemMany)
    assert again.scans == [redeem(0)]


def test_unresolved_is_asked_again_later_and_later() -> None:
    outbox = an_outbox(1)
    now_ms, waits = 0, []
    for _ in range(10):
        [message] = outbox.messages_due(now_ms)
        [unsure] = outbox.take(answer(message, Verdict.UNRESOLVED, seq=0), now_ms, 0.999)
        assert (unsure.verdict, unsure.place) == (Verdict.UNRESOLVED, None)
        due_ms = outbox.next_due_ms()
        assert due_ms is not None
        assert outbox.messages_due(due_ms - 1) == []
        waits.append(due_ms - now_ms)
        now_ms = due_ms
    assert waits == sorted(waits)
    assert waits[0] < 100 < waits[-1] <= RETRY_MS_MAX


def test_a_further_read_hurries_what_waits_but_not_what_flies() -> None:
    outbox = an_outbox(1)
    [message] = outbox.messages_due(0)
    outbox.hurry(an_id(0), 1)
    assert outbox.messages_due(1) == []
    outbox.take(answer(message, Verdict.UNRESOLVED, seq=0), 2, 0.9)
    outbox.hurry(an_id(0), 3)
    assert len(outbox.messages_due(3)) == 1


def test_giving_up_ends_the_asking_and_asks_for_the_reversal() -> None:
    outbox = an_outbox(1)
    [message] = outbox.messages_due(0)
    outbox.add_reverse(reverse(90, of=0), b"hash 0", 10)
    [asked] = outbox.messages_due(10)
    assert isinstance(asked, ReverseMany)
    assert asked.reversals == [reverse(90, of=0)]
    assert outbox.take(answer(message, Verdict.ACCEPTED), 11, 0.5) == [], "given up: nobody is told yes"
    [undone] = outbox.take(answer(asked, Verdict.REVERSED), 12, 0.5)
    assert (undone.is_reversal, undone.asked_id, undone.redemption_id) == (True, an_id(90), an_id(0))
    assert len(outbox) == 0


def test_a_code_whose_reversal_is_open_waits_for_it() -> None:
    outbox = Outbox()
    outbox.add_reverse(reverse(90, of=1), b"same", 0)
    outbox.add_redeem(Redeem(an_id(2), "CODE1", 5), b"same", 0)
    outbox.add_redeem(redeem(3), b"other", 0)
    reversal, other = outbox.messages_due(0)
    assert isinstance(reversal, ReverseMany)
    assert isinstance(other, RedeemMany)
    assert other.scans == [redeem(3)]
    assert outbox.is_held(an_id(2))
    outbox.take(answer(reversal, Verdict.TERMINAL_LOCKED), 1, 0.0)
    assert outbox.is_held(an_id(2)), "a locked terminal does not end a reversal"
    [reversal] = outbox.messages_due(100)
    outbox.take(answer(reversal, Verdict.ACCEPTED), 101, 0.5)
    [held] = outbox.messages_due(101)
    assert isinstance(held, RedeemMany)
    assert [scan.redemption_id for scan in held.scans] == [an_id(2)]
    assert not outbox._reversing, "a daemon that runs for a year keeps no code it is done with"


@pytest.mark.parametrize(
    "verdicts",
    (
        Verdicts(99, b"\0", 1, [Place(0, 1, 0, 1)], {}),
        Verdicts(1, b"", 1, [], {}),
        Verdicts(1, b"\0\0", 1, [Place(0, 1, 0, 2)], {}),
        Verdicts(1, b"\0", 1, [], {}),
        Verdicts(1, b"\0", 1, [Place(0, 1, 0, 1 << 40), Place(0, 1, 0, 1 - (1 << 40))], {}),
    ),
)
def test_an_answer_that_does_not_fit_is_the_gateways_fault_and_loses_nothing(verdicts: Verdicts) -> None:
    outbox = an_outbox(1)
    outbox.messages_due(0)
    with pytest.raises(PeerFault):
        outbox.take(verdicts, 1, 0.5)
    outbox.connection_lost(2)
    assert len(outbox.messages_due(2)) == 1


@given(steps=st.lists(st.sampled_from(("answer", "unsure", "lose", "wait", "scan", "give up")), max_size=60))
def test_every_id_is_asked_until_answered_and_never_after(steps: list[str]) -> None:
    outbox, now_ms, count = Outbox(), 0, 0
    flying: list[RedeemMany | ReverseMany] = []
    open_ids: set[bytes] = set()
    for step in steps:
        if step == "scan":
            outbox.add_redeem(redeem(count), b"hash %d" % count, now_ms)
            open_ids.add(an_id(count))
            count += 1
        elif step == "give up" and count and an_id(count - 1) in open_ids:
            outbox.add_reverse(reverse(1000 + count, of=count - 1), b"hash %d" % (count - 1), now_ms)
            open_ids = open_ids - {an_id(count - 1)} | {an_id(1000 + count)}
        elif step == "lose":
            outbox.connection_lost(now_ms)
            flying.clear()
        elif step == "wait":
            now_ms += RETRY_MS_MAX
            try:
                sent = outbox.messages_due(now_ms)
            except PeerFault:
                outbox.connection_lost(now_ms)
                flying.clear()
                sent = outbox.messages_due(now_ms)
            assert {x for m in sent for x in ids_of(m)} <= open_ids
            flying += sent
        elif flying:
            message = flying.pop(0)
            verdict = Verdict.ACCEPTED if step == "answer" else Verdict.UNRESOLVED
            told = outbox.take(answer(message, *[verdict] * len(ids_of(message))), now_ms, 0.5)
            assert {a.asked_id for a in told} <= open_ids
            open_ids -= {a.asked_id for a in told if a.verdict == Verdict.ACCEPTED}
        assert len(outbox) == len(open_ids)
    outbox.connection_lost(now_ms)
    due = {x for m in outbox.messages_due(now_ms + RETRY_MS_MAX) for x in ids_of(m)}
    assert due == open_ids


def ids_of(message: RedeemMany | ReverseMany) -> list[bytes]:
    if isinstance(message, RedeemMany):
        return [scan.redemption_id for scan in message.scans]
    return [one.reversal_id for one in message.reversals]


@given(attempts=st.integers(1, 100), spread=st.floats(0, 1, exclude_max=True))
def test_backoff_is_bounded_and_never_zero(attempts: int, spread: float) -> None:
    assert 25 <= backoff_ms(attempts, 100, 5000, spread) <= 5000
    assert backoff_ms(attempts, 100, 5000, spread) <= 100 * 2 ** (attempts - 1)


@given(now_ms=st.integers(0, (1 << 48) - 1), random=st.binary(min_size=10, max_size=10))
def test_uuid7_has_its_fields_where_rfc_9562_says(now_ms: int, random: bytes) -> None:
    made = uuid7(now_ms, random)
    assert int.from_bytes(made[:6], "big") == now_ms
    assert made[6] >> 4 == 7
    assert made[8] >> 6 == 0b10
    assert len(made) == 16


def test_uuid7_of_rfc_9562_appendix() -> None:
    # Appendix A.6: 2022-02-22T19:22:22Z, rand_a 0xCC3, rand_b 0x18C4DC0C0C07398F
    random = bytes([0xFC, 0xC3]) + (0x18C4DC0C0C07398F).to_bytes(8, "big")
    assert uuid7(0x017F22E279B0, random).hex() == "017f22e279b07cc398c4dc0c0c07398f"
