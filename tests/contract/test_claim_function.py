"""The claim function in Valkey against a naive model and against the fold, record by record."""

import os
import struct
from collections.abc import AsyncIterator, Sequence

import msgspec
import pytest
from core_world import connector
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from eventstore.events import IMPORT, NO_ID, RECORD, REDEEM, REVERSE, VOID, encode_records
from eventstore.log import EMPTY_HEAD, Batch, Head
from eventstore.snapshot import dump
from eventstore.vouchers import apply_batch, empty_state, head_value
from gateway.claims import Behind, Claimed, ValkeyArbiter, keyed_of
from gateway.messages import SETTLED_MAX, Verdict
from gateway.pipe import ArbiterRefused

OPS = {"redeem": REDEEM, "reverse": REVERSE, "void": VOID}
AT_MS = 1_700_000_000_000
LOADED = dump({b"1": b"x"})


class Step(msgspec.Struct, frozen=True):
    op: str
    serial: int
    who: int  # which claim id
    static: int

    @property
    def is_fact(self) -> bool:
        return self.op == "redeem" and self.static == Verdict.CONFLICT


FACTS = st.builds(Step, st.just("redeem"), st.integers(60, 63), st.integers(1, 14), st.just(Verdict.CONFLICT))
STATICS = st.sampled_from([0, 0, 0, 0, Verdict.TERMINAL_LOCKED, Verdict.NOT_ELIGIBLE, Verdict.EXPIRED])
STEPS = st.builds(Step, st.sampled_from([*OPS, "redeem", "redeem"]), st.integers(60, 66), st.integers(1, 14), STATICS)
CALL = st.lists(st.one_of(STEPS, STEPS, FACTS), min_size=1, max_size=8)


class Model:
    """The rule in the plainest words: a holder, and what became of each settled id."""

    def __init__(self) -> None:
        self.holder: dict[int, tuple[str, int]] = {}
        self.settled: dict[int, dict[int, str]] = {}

    def answer(self, step: Step) -> Verdict:
        holder, settled = self.holder.get(step.serial), self.settled.setdefault(step.serial, {})
        if step.op == "reverse":
            return self._reverse(step, holder, settled)
        if holder is not None and holder[1] == step.who:
            return Verdict.REPEATED
        if step.who in settled:
            return Verdict.CONFLICT_AGAIN if settled[step.who] == "lost" else Verdict.REVERSED
        if step.is_fact and holder is not None:
            settled[step.who] = "lost"
            return Verdict.CONFLICT
        if step.is_fact:
            self.holder[step.serial] = (step.op, step.who)
            return Verdict.ACCEPTED
        reasons = [step.static] if step.static else []
        if holder is not None:
            reasons.append(Verdict.ALREADY_REDEEMED if holder[0] == "redeem" else Verdict.VOIDED)
        elif len(settled) >= SETTLED_MAX:
            reasons.append(Verdict.TOO_MANY_REVERSALS)
        if reasons:
            return Verdict(min(reasons))
        self.holder[step.serial] = (step.op, step.who)
        return Verdict.ACCEPTED

    def _reverse(self, step: Step, holder: tuple[str, int] | None, settled: dict[int, str]) -> Verdict:
        if step.who in settled or holder == ("void", step.who):
            return Verdict.REPEATED
        if step.static:
            return Verdict(step.static)
        if holder == ("redeem", step.who):
            del self.holder[step.serial]
            settled[step.who] = "reversed"
            return Verdict.ACCEPTED
        entries = len(settled) + (holder is not None)
        if entries >= SETTLED_MAX:
            return Verdict.TOO_MANY_REVERSALS
        settled[step.who] = "tombstoned"
        return Verdict.TOMBSTONED


def packed(step: Step) -> bytes:
    claim_id = step.who.to_bytes(16, "big")
    return RECORD.pack(OPS[step.op], step.static, 1, 0, 7, step.serial, os.urandom(16), claim_id, 5, AT_MS, 1)


@pytest.fixture
async def arbiter(valkey_endpoint: str) -> AsyncIterator[ValkeyArbiter]:
    made = ValkeyArbiter(lambda: connector(valkey_endpoint), lambda partition: None)
    await made.check(0)
    yield made
    await made.close()


async def claim(arbiter: ValkeyArbiter, head: Head, records: Sequence[bytes], durable_seq: int = 0) -> Batch:
    payload, tip = encode_records(records, {}, received_ms=AT_MS), os.urandom(16)
    reply = await arbiter.claim(0, payload, keyed_of(0, payload), tip=tip, at_ms=AT_MS, durable_seq=durable_seq)
    assert isinstance(reply, Claimed)
    assert (reply.seq, reply.prev) == (head.seq + 1, head.tip)
    return Batch(0, reply.seq, reply.prev, tip, payload, reply.verdicts)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(calls=st.lists(CALL, max_size=12))
async def test_verdicts_are_the_model_s_and_state_is_the_fold_s(valkey_endpoint: str, calls: list[list[Step]]) -> None:
    arbiter = ValkeyArbiter(lambda: connector(valkey_endpoint), lambda partition: None)
    await arbiter.check(0)
    await arbiter.rebuild(0, (), EMPTY_HEAD, b"t")
    model, state, head = Model(), empty_state(1), EMPTY_HEAD
    for steps in calls:
        batch = await claim(arbiter, head, [packed(step) for step in steps])
        assert [Verdict(byte) for byte in batch.verdicts] == [model.answer(step) for step in steps]
        apply_batch(state, batch)
        head = Head(batch.seq, batch.tip)
    for key, fields in state.hashes.items():
        _, values = await arbiter.lookup(0, [(key, field) for field in fields])
        assert values == list(fields.values())
    if head.seq:
        held = await arbiter.stream(0, 1, head.seq)
        assert (held[-1].seq, held[-1].tip) == (head.seq, head.tip)
    await arbiter.close()


async def test_restore_leaves_what_the_claim_left(arbiter: ValkeyArbiter) -> None:
    steps = [Step("redeem", 1, 1, 0), Step("redeem", 2, 2, 0), Step("reverse", 1, 1, 0), Step("void", 3, 9, 0)]
    head, batches, state = EMPTY_HEAD, [], empty_state(1)
    for step in [*steps, Step("reverse", 4, 4, 0), Step("redeem", 2, 3, 0)]:
        batches.append(await claim(arbiter, head, [packed(step)]))
        head = Head(batches[-1].seq, batches[-1].tip)
        apply_batch(state, batches[-1])
    assert await arbiter.rebuild(0, (), EMPTY_HEAD, b"t")
    assert await arbiter.head(0) == EMPTY_HEAD
    for batch in batches:
        assert await arbiter.restore(batch) == Head(batch.seq, batch.tip)
    assert await arbiter.restore(batches[2]) == head, "a batch that does not join changes nothing"
    for key, fields in state.hashes.items():
        _, values = await arbiter.lookup(0, [(key, field) for field in fields])
        assert values == list(fields.values())


async def test_a_claim_on_a_valkey_that_is_behind_writes_nothing(arbiter: ValkeyArbiter) -> None:
    payload = encode_records([packed(Step("redeem", 1, 1, 0))], {}, received_ms=AT_MS)
    reply = await arbiter.claim(0, payload, keyed_of(0, payload), tip=b"t" * 16, at_ms=AT_MS, durable_seq=3)
    assert reply == Behind(EMPTY_HEAD)
    assert await arbiter.head(0) == EMPTY_HEAD


async def test_no_claim_while_a_rebuild_stands(arbiter: ValkeyArbiter) -> None:
    await arbiter._call(0, "FCALL", "tillgate_load_begin_1", 2, "{0}head", "{0}load", "mine")
    payload = encode_records([packed(Step("redeem", 1, 1, 0))], {}, received_ms=AT_MS)
    reply = await arbiter.claim(0, payload, keyed_of(0, payload), tip=b"t" * 16, at_ms=AT_MS, durable_seq=0)
    assert isinstance(reply, Behind)
    assert await arbiter._call(0, "FCALL", "tillgate_load_finish_1", 2, "{0}head", "{0}load", "other", "x") == 0


async def test_a_rebuild_that_lost_its_token_is_refused(arbiter: ValkeyArbiter) -> None:
    head = Head(3, b"t" * 16)
    await arbiter._call(0, "FCALL", "tillgate_load_begin_1", 2, "{0}head", "{0}load", "mine")
    assert await arbiter.rebuild(0, {b"{0}v1:0": {b"1": b"R" * 32}}.items(), head, b"second")
    loaded = await arbiter._call(0, "FCALL", "tillgate_load_1", 3, "{0}head", "{0}load", "{0}v1:0", "mine", LOADED)
    assert loaded == 0
    assert await arbiter._call(0, "GET", "{0}head") == head_value(head)


async def test_a_rebuild_that_was_overtaken_deletes_nothing(arbiter: ValkeyArbiter) -> None:
    """Its wipe goes through the keys page by page, and may still be at it when the other rebuild is done."""
    await arbiter._call(0, "FCALL", "tillgate_load_begin_1", 2, "{0}head", "{0}load", "first")
    head = Head(3, b"t" * 16)
    assert await arbiter.rebuild(0, {b"{0}v1:0": {b"1": b"R" * 32}}.items(), head, b"second")
    wiped = await arbiter._call(0, "FCALL", "tillgate_load_wipe_1", 3, "{0}head", "{0}load", "{0}v1:0", "first")
    assert wiped == 0
    assert await arbiter.lookup(0, [(b"{0}v1:0", b"1")]) == (head, [b"R" * 32])


async def test_a_rebuild_wipes_any_number_of_keys_at_once(arbiter: ValkeyArbiter) -> None:
    keys = [b"{0}v1:%d" % n for n in range(2_500)]
    head = Head(3, b"t" * 16)
    assert await arbiter.rebuild(0, [(key, {b"1": b"R" * 32}) for key in keys], head, b"first")
    await arbiter._call(0, "FCALL", "tillgate_load_begin_1", 2, "{0}head", "{0}load", "mine")
    wipe = ("FCALL", "tillgate_load_wipe_1", 2 + 2_499, "{0}head", "{0}load", *keys[:2_499], "mine")
    assert await arbiter._call(0, *wipe) == 1
    assert await arbiter._call(0, "EXISTS", *keys) == 1


async def test_a_rebuild_shows_its_progress(arbiter: ValkeyArbiter) -> None:
    assert await arbiter.load_progress(0) is None
    await arbiter._call(0, "FCALL", "tillgate_load_begin_1", 2, "{0}head", "{0}load", "mine")
    seen = {await arbiter.load_progress(0)}
    await arbiter._call(0, "FCALL", "tillgate_load_wipe_1", 3, "{0}head", "{0}load", "{0}v1:0", "mine")
    seen.add(await arbiter.load_progress(0))
    await arbiter._call(0, "FCALL", "tillgate_load_1", 3, "{0}head", "{0}load", "{0}v1:0", "mine", LOADED)
    seen.add(await arbiter.load_progress(0))
    assert len(seen) == 3
    await arbiter._call(0, "FCALL", "tillgate_load_finish_1", 2, "{0}head", "{0}load", "mine", "")
    assert await arbiter.load_progress(0) is None


async def test_what_is_loaded_is_there_in_its_smallest_form(arbiter: ValkeyArbiter) -> None:
    """64 vouchers as pieces, as a fold leaves them, and values that have more of a history, or are of codes."""
    values = {b"%d" % n: b"R" + os.urandom(31) for n in range(64)}
    pieces = b"".join(bytes((int(field), 1, 0xA0)) + value + b"\x21" for field, value in values.items())
    long = {b"1": b"R" * 32 + b"r" * 32, b"63": b"t" * 320}
    codes = {os.urandom(16): os.urandom(12) for _ in range(30)}
    hashes = {b"{0}v1:0": pieces, b"{0}v1:1": long, b"{0}rabcd": codes, b"{0}v1:%d" % (1 << 34): pieces[:36]}
    await arbiter._call(0, "SET", "{0}v1:1", "whatever was left there")
    assert await arbiter.rebuild(0, hashes.items(), Head(1, b"t" * 16), b"t")
    for key, expected in ((b"{0}v1:0", values), (b"{0}v1:1", long), (b"{0}rabcd", codes)):
        told = await arbiter._call(0, "HGETALL", key)
        assert (told if isinstance(told, dict) else dict(zip(told[::2], told[1::2], strict=True))) == expected
    assert await arbiter._call(0, "OBJECT", "ENCODING", b"{0}v1:0") == b"listpack"
    assert await arbiter._call(0, "HLEN", b"{0}v1:%d" % (1 << 34)) == 1


async def test_a_large_hash_loads_whole(arbiter: ValkeyArbiter) -> None:
    fields = {b"%d" % n: os.urandom(12) for n in range(2500)}
    assert await arbiter.rebuild(0, {b"{0}r00": fields}.items(), Head(1, b"t" * 16), b"t")
    _, values = await arbiter.lookup(0, [(b"{0}r00", field) for field in fields])
    assert values == list(fields.values())


async def test_out_of_memory_refuses_the_call_whole(arbiter: ValkeyArbiter) -> None:
    await arbiter._call(0, "CONFIG", "SET", "maxmemory", "1")
    try:
        with pytest.raises(ArbiterRefused, match="maxmemory"):
            await claim(arbiter, EMPTY_HEAD, [packed(Step("redeem", 1, 1, 0))])
        assert await arbiter.head(0) == EMPTY_HEAD
    finally:
        await arbiter._call(0, "CONFIG", "SET", "maxmemory", "0")


async def test_a_stream_that_is_ahead_stops_the_claim_before_any_state(arbiter: ValkeyArbiter) -> None:
    await arbiter._call(0, "XADD", "{0}log", "5-0", "d", "x")
    with pytest.raises(ArbiterRefused):
        await claim(arbiter, EMPTY_HEAD, [packed(Step("redeem", 1, 1, 0))])
    assert await arbiter.head(0) == EMPTY_HEAD
    assert await arbiter._call(0, "EXISTS", "{0}v7:0") == 0


async def test_imports_are_added_repeated_or_duplicates(arbiter: ValkeyArbiter) -> None:
    def row(campaign: int, serial: int, name: bytes) -> bytes:
        return RECORD.pack(IMPORT, 0, 0, 0, campaign, serial, name.ljust(16), NO_ID, 0, 0, 1)

    batch = await claim(arbiter, EMPTY_HEAD, [row(7, 1, b"a"), row(7, 2, b"b"), row(7, 3, b"a"), row(8, 1, b"b")])
    assert [Verdict(byte).name for byte in batch.verdicts] == ["ACCEPTED", "ACCEPTED", "REPEATED", "DUPLICATE"]
    state = empty_state(1)
    apply_batch(state, batch)
    key = next(iter(state.hashes))
    _, values = await arbiter.lookup(0, [(key, field) for field in state.hashes[key]])
    assert values == list(state.hashes[key].values())


async def test_an_old_stream_is_trimmed_behind_the_durable_head_only(arbiter: ValkeyArbiter) -> None:
    head = EMPTY_HEAD
    for n in range(1, 400):
        batch = await claim(arbiter, head, [packed(Step("redeem", n, 1, 0))], durable_seq=min(300, head.seq))
        head = Head(batch.seq, batch.tip)
    held = [batch.seq for batch in await arbiter.stream(0, 1, head.seq)]
    assert held[-1] == 399
    assert set(range(300, 400)) <= set(held)
    assert held[0] > 1


def test_the_map_is_little_endian_and_from_four_on() -> None:
    records = [packed(Step("redeem", serial, 1, 0)) for serial in (1, 2, 64, 1)]
    keyed = keyed_of(0, encode_records(records, {}, received_ms=1))
    assert keyed.keys == [b"{0}v7:0", b"{0}v7:1"]
    assert keyed.map == struct.pack("<4H", 4, 4, 5, 4)
