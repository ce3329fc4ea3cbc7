"""The tills' stream against a whole gateway: answers, faults of every kind, and who may stay connected."""

import asyncio
import itertools
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
from core_world import DAY_MS, new_id, offer, until
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from stream_world import TILLS, Closed, Site, TillClient, site

from eventstore import events as e
from gateway import stream_till
from gateway.core import wall_ms
from gateway.messages import (
    SCANS_PER_MESSAGE_MAX,
    SUBPROTOCOL,
    SUBPROTOCOL_JSON,
    Detail,
    Hello,
    Proof,
    Redeem,
    RedeemMany,
    Reverse,
    Verdict,
    Verdicts,
)
from gateway.money import money_text

PROTOCOLS = (SUBPROTOCOL, SUBPROTOCOL_JSON)


@pytest.fixture
async def here(tmp_path: Path, valkey_endpoint: str) -> AsyncIterator[Site]:
    async with site(tmp_path / "data", valkey_endpoint) as made:
        yield made


# --- answers ---


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_scans_are_redeemed_once_and_the_answer_says_where(here: Site, protocol: str) -> None:
    first, second = await here.w.codes(2)
    async with here.till(1, protocol) as till, here.till(2, protocol) as other:
        scans = [here.w.scan(first), here.w.scan(second), here.w.scan("T1nonsense")]
        answer = await till.redeem(*scans)
        assert list(answer.codes) == [0, 0, Verdict.UNREADABLE]
        assert sum(place.count for place in answer.places) == 3
        assert all(place.seq > 0 for place in answer.places)
        assert abs(answer.at_ms - wall_ms()) < 60_000
        assert "34 expected" in (answer.details[2].note or "")
        assert set(answer.details) == {2}
        assert await till.verdict(here.w.scan("8888 no such code")) == (Verdict.UNKNOWN_CODE, Detail())
        assert list((await till.redeem(*scans[:2])).codes) == [0, 0], "a retry hears its first answer"
        verdict, detail = await other.verdict(here.w.scan(first))
        assert verdict is Verdict.ALREADY_REDEEMED
        assert detail.winner is not None
        assert (detail.winner.store, detail.winner.terminal, detail.winner.at_ms) == ("s1", "*01", answer.at_ms)


async def test_an_accepted_voucher_that_comes_alone_says_what_it_is_worth(here: Site) -> None:
    await here.w.write(
        e.CampaignCreated(campaign=9, slug="tea", offer=offer(stores=("s1",), kind="gift", value_minor=0))
    )
    first, second, third = await here.w.codes(3)
    (gift,) = await here.w.codes(1, "tea", "tea")
    async with here.till(1) as till:
        _, detail = await till.verdict(here.w.scan(first))
        worth = here.w.directory.campaigns[1].offer
        assert detail == Detail(offer=f"{worth.title}, {money_text(worth.value_minor, worth.currency)}")
        assert (await till.verdict(here.w.scan(gift)))[1].offer == worth.title
        assert (await till.redeem(here.w.scan(second), here.w.scan(third))).details == {}, "a backlog has no reader"


async def test_who_was_first_is_told_only_where_the_campaign_is_valid(here: Site) -> None:
    await here.w.write(e.CampaignCreated(campaign=9, slug="tea", offer=offer(stores=("s1", "s2"))))
    (signed,) = await here.w.codes(1, "tea", "tea")
    await here.w.core.desk.import_codes("op", "tea", ["GROUP-BUY-0001"], "i1")
    codes = (signed, "GROUP-BUY-0001")
    async with here.till(1) as first, here.till(2) as other, here.till(3) as stranger:
        assert [(await first.verdict(here.w.scan(code)))[0] for code in codes] == [Verdict.ACCEPTED] * 2
        for asked in (codes[:1], codes[1:], codes):
            told = await other.redeem(*map(here.w.scan, asked))
            hidden = await stranger.redeem(*map(here.w.scan, asked))
            assert set(told.codes) == set(hidden.codes) == {Verdict.ALREADY_REDEEMED}
            winners = [told.details[at].winner for at in range(len(asked))]
            assert [winner.store for winner in winners if winner] == ["s1"] * len(asked)
            assert hidden.details == {}


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_a_reversal_undoes_and_says_so(here: Site, protocol: str) -> None:
    (code,) = await here.w.codes(1)
    async with here.till(1, protocol) as till:
        scan = here.w.scan(code)
        await till.redeem(scan)
        undo = Reverse(new_id(), scan.redemption_id, wall_ms(), scan)
        answer = await till.reverse(undo, Reverse(new_id(), new_id(), wall_ms()), Reverse(b"x", new_id(), 0))
        assert list(answer.codes) == [Verdict.REVERSED, Verdict.NOT_FOUND, Verdict.UNREADABLE]
        assert "reversal_id has 1 bytes" in (answer.details[2].note or "")
        assert list((await till.reverse(undo)).codes) == [Verdict.REVERSED]
        assert list((await till.redeem(scan)).codes) == [Verdict.REVERSED], "the late retry stays reversed"
        assert list((await till.redeem(here.w.scan(code))).codes) == [0]


async def test_an_empty_message_gets_an_empty_answer(here: Site) -> None:
    async with here.till(1) as till:
        assert (await till.redeem()).codes == b""
        assert (await till.reverse()).codes == b""


async def test_tills_racing_for_one_code_hear_who_was_first(here: Site) -> None:
    codes = await here.w.codes(20)
    async with asyncio.TaskGroup() as group:
        ready = asyncio.Barrier(TILLS)

        async def race(number: int) -> list[Verdicts]:
            async with here.till(number) as till:
                await ready.wait()
                return [await till.redeem(here.w.scan(code)) for code in codes]

        racers = [group.create_task(race(number)) for number in range(1, TILLS + 1)]
    for at in range(len(codes)):
        answers = {number: racer.result()[at] for number, racer in enumerate(racers, 1)}
        winners = [number for number, answer in answers.items() if answer.codes[0] == Verdict.ACCEPTED]
        assert len(winners) == 1
        won = answers.pop(winners[0])
        for answer in answers.values():
            assert answer.codes[0] == Verdict.ALREADY_REDEEMED
            winner = answer.details[0].winner
            assert winner is not None
            assert (winner.store, winner.at_ms) == (f"s{winners[0]}", won.at_ms)


async def test_a_refusal_for_a_time_names_the_time(here: Site) -> None:
    now_ms = wall_ms()
    later = offer(starts_ms=now_ms + DAY_MS, ends_ms=now_ms + 2 * DAY_MS, stores=("s1",))
    await here.w.write(e.CampaignCreated(campaign=2, slug="later", offer=later))
    (code,) = await here.w.codes(1, "later")
    async with here.till(1) as till:
        verdict, detail = await till.verdict(here.w.scan(code))
        assert verdict is Verdict.NOT_YET_VALID
        assert "UTC+8" in (detail.note or "")


# --- bad input ---


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_a_malformed_scan_does_not_spoil_its_neighbours(here: Site, protocol: str) -> None:
    good, fine = await here.w.codes(2)
    async with here.till(1, protocol) as till:
        scans = [here.w.scan(good), ["not an id", 5], [new_id(), 77, 0], "nothing", here.w.scan(fine), [new_id(), good]]
        await till.send(("redeem", 9, scans))
        answer = await till.next(Verdicts)
        assert answer.ref == 9
        assert list(answer.codes) == [0, *[Verdict.UNREADABLE] * 3, 0, Verdict.UNREADABLE]
        notes = {index: detail.note or "" for index, detail in answer.details.items()}
        assert set(notes) == {1, 2, 3, 5}
        assert "`code`" in notes[2]
        assert "array" in notes[3]
        assert good not in "".join(notes.values())
        await till.send(("reverse", 10, [["x"], [new_id(), new_id(), 0]]))
        assert list((await till.next(Verdicts)).codes) == [Verdict.UNREADABLE, Verdict.NOT_FOUND]


@pytest.mark.parametrize(
    ("message", "code", "name"),
    (
        (("redeem", "one", []), 1007, "malformed"),
        (("redeem", -1, []), 1008, "malformed"),
        (("redeem", 2**63, []), 1008, "malformed"),
        (("teapot", 1, []), 1007, "malformed"),
        ({"redeem": 1}, 1007, "malformed"),
        (None, 1007, "malformed"),
        (Hello(1, "again"), 1008, "out_of_turn"),
        (Proof(b"again"), 1008, "out_of_turn"),
        (RedeemMany(1, [Redeem(b"i" * 16, "c", 0)] * (SCANS_PER_MESSAGE_MAX + 1)), 1008, "too_many"),
        (("redeem", 1, [0] * (SCANS_PER_MESSAGE_MAX + 1)), 1008, "too_many"),
    ),
)
@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_a_message_outside_the_contract_ends_only_its_own_connection(
    here: Site, protocol: str, message: object, code: int, name: str
) -> None:
    async with here.till(1, protocol) as till, here.till(2) as neighbour:
        await till.send(message)
        closed = await till.ended()
        assert (closed.code, [notice.code for notice in closed.notices]) == (code, [name])
        assert (await neighbour.verdict(here.w.scan("x y z")))[0] is Verdict.UNKNOWN_CODE


async def test_text_where_bytes_were_agreed_is_refused(here: Site) -> None:
    async with here.till(1) as till:
        await till.ws.send_str("hello")
        closed = await till.ended()
        assert (closed.code, closed.notices[0].code) == (1003, "wrong_encoding")


async def test_a_message_that_is_too_large_is_refused(here: Site) -> None:
    async with here.till(1) as till:
        await till.raw(b"\0" * (1 << 19))
        assert (await till.ended()).code == 1009


async def test_every_field_may_hold_nonsense(here: Site) -> None:
    strange = [
        Redeem(b"", "a b", 0),
        Redeem(b"x" * 17, "a b", 0),
        Redeem(new_id(), "", 0),
        Redeem(new_id(), "x" * 5000, 0),
        Redeem(new_id(), "a\0b\x1d\ud7ff", 0),
        Redeem(new_id(), "a b", -1),
        Redeem(new_id(), "a b", 2**63),
        Redeem(new_id(), "a b", 0, -7),
        Redeem(new_id(), "a b", 0, 2**62),
        Redeem(new_id(), "a b", 0, 1, "m" * 65),
        Redeem(new_id(), "a b", 0, 1, None, "c" * 65),
    ]
    async with here.till(1) as till:
        answer = await till.redeem(*strange)
        assert len(answer.codes) == len(strange)
        assert set(answer.codes) <= {Verdict.UNREADABLE, Verdict.UNKNOWN_CODE}
        (code,) = await here.w.codes(1)
        assert (await till.verdict(here.w.scan(code)))[0] is Verdict.ACCEPTED


_leaves = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.text(max_size=20) | st.binary(max_size=20)
_trees = st.recursive(_leaves, lambda inner: st.lists(inner, max_size=5), max_leaves=20)
_messages = st.tuples(
    st.sampled_from(["redeem", "reverse", "hello", "proof", ""]), _leaves, st.lists(_trees, max_size=4)
)
_contents = st.binary(max_size=60) | _messages.map(msgspec.msgpack.encode) | _trees.map(msgspec.msgpack.encode)


async def _replied(till: TillClient, content: bytes) -> Verdicts | Closed:
    try:
        await till.raw(content)
        return await till.next(Verdicts)
    except Closed as closed:
        return closed


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(_contents, min_size=1, max_size=4))
async def test_any_bytes_end_in_an_answer_or_a_notice(here: Site, contents: list[bytes]) -> None:
    async with here.till(3) as till:
        for content in contents:
            reply = await _replied(till, content)
            if isinstance(reply, Closed):
                assert reply.code in (1007, 1008)
                assert reply.notices
                break
            assert set(reply.codes) <= set(Verdict)
    assert not here.w.core.troubles()


# --- limits ---


async def _send_without_end(till: TillClient, scans: list[Redeem]) -> None:
    for ref in itertools.count():
        await till.send(RedeemMany(ref, scans))
        await asyncio.sleep(0)


@pytest.mark.timeout(180)  # where the kernel stops such a line for good, only its own time-out ends it, after 30 s
async def test_a_till_that_does_not_read_is_cut_off(here: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream_till, "BUFFER_BYTES_MAX", 1 << 14)
    async with here.till(1) as till, here.till(2) as neighbour:
        till.stop_reading()
        here.shrink_buffers()
        with pytest.raises(ConnectionError):
            await _send_without_end(till, [Redeem(b"", "x", 0)] * SCANS_PER_MESSAGE_MAX)
        assert (await neighbour.verdict(here.w.scan("x y z")))[0] is Verdict.UNKNOWN_CODE


async def test_many_unanswered_messages_wait_and_are_all_answered(here: Site) -> None:
    count = stream_till.UNANSWERED_MAX // stream_till.MESSAGE_WEIGHT * 4
    codes = await here.w.codes(count)
    async with here.till(1) as till:
        frames = here.gateway.stream._tills[1]._frames
        assert frames is not None
        assert frames.take is not None, "its messages are taken past aiohttp's queue"
        for ref, code in enumerate(codes):
            await till.send(RedeemMany(ref, [here.w.scan(code)]))
        answers = [await till.next(Verdicts) for _ in codes]
        assert sorted(answer.ref for answer in answers) == list(range(count))
        assert {answer.codes for answer in answers} == {b"\0"}


async def test_after_a_long_stall_every_connection_is_closed(here: Site) -> None:
    async with here.till(1) as till:
        here.w.core.on_stall(6.0)
        assert (await till.ended()).code == 1006
    await until(lambda: not here.gateway.stream.connected())
    async with here.till(1) as again:
        assert (await again.verdict(here.w.scan("x y z")))[0] is Verdict.UNKNOWN_CODE
