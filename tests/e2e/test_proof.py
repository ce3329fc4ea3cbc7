"""The proof holds for what happened, and says which equality fails when any of its three sources is bent."""

import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import msgspec
import pytest
import redis.asyncio
from core_world import World, new_id, wall_ms, world

from eventstore.events import REDEEM, REVERSE
from eventstore.log import Batch, Head
from eventstore.vouchers import voucher_field, voucher_key
from gateway.lane import Asked
from gateway.messages import PUBLIC, Position, Redeem, Reverse, Verdict
from gateway.proof import Proof, prove
from gateway.proof_equalities import Told, ToldReversal, kept, redeemed_in

CHAIN = "log_chain_verified"
TOLD = "accepted_in_log_is_accepted_at_tills"
HELD = "accepted_less_reversed_is_held_in_valkey"
ONCE = "no_voucher_accepted_twice"
REBUILT = "state_rebuilt_from_log_is_live_state"
PLACED = "every_answer_stands_in_the_log_at_its_place"
EQUALITIES = {CHAIN, TOLD, HELD, ONCE, REBUILT, PLACED}


class Played(World):
    """A world whose answers are written down as tills would."""

    told: list[Told]
    valkey: redis.asyncio.Redis

    async def scan_at(self, terminal: int, scan: Redeem) -> Verdict:
        asked = await self.redeem(terminal, scan)
        self.told = [one for one in self.told if one.redemption_id != scan.redemption_id.hex()]
        verdict = PUBLIC[asked.codes[0]]
        assert verdict is not None
        self.told.append(Told("till", scan.redemption_id.hex(), verdict, place_of(asked), asked.at_ms))
        return verdict

    async def take_back(self, terminal: int, scan: Redeem) -> None:
        reversal = Reverse(new_id(), scan.redemption_id, wall_ms(), scan)
        assert await self.reverse(terminal, reversal) is Verdict.ACCEPTED
        found = await self.core.desk.find(reversal.reversal_id)
        assert found is not None
        told = ToldReversal(
            reversal.reversal_id.hex(), Verdict.REVERSED, Position(found.partition, found.seq, found.index)
        )
        index = next(n for n, one in enumerate(self.told) if one.redemption_id == scan.redemption_id.hex())
        self.told[index] = msgspec.structs.replace(self.told[index], reversals=(told,))

    async def proof(self, told: Sequence[Told] | None = None) -> Proof:
        return await prove(self.core.log, self.valkey, self.told if told is None else told)


def place_of(asked: Asked) -> Position:
    (_, partition, seq, index, _), *_ = asked.places
    return Position(partition, seq, index)


def failing(proof: Proof) -> set[str]:
    assert {each.name for each in proof.equalities} == EQUALITIES
    bad = {each.name for each in proof.equalities if not each.holds}
    assert all(each.difference or each.numbers for each in proof.equalities if not each.holds)
    assert proof.holds == (not bad)
    return bad


@pytest.fixture(params=[1, 3])
async def day(tmp_path: Path, valkey_endpoint: str, request: pytest.FixtureRequest) -> AsyncIterator[Played]:
    """Vouchers 1-9: 1-5 redeemed, 1 told twice, 2 tried again elsewhere, 3 reversed and used again, 6 voided."""
    async with (
        world(tmp_path, valkey_endpoint, partitions=request.param) as made,
        redis.asyncio.Redis.from_url(valkey_endpoint) as client,
    ):
        played = Played(made.core, made.seen)
        played.told, played.valkey = [], client
        await play(played, await played.codes(9))
        yield played


async def play(day: Played, codes: Sequence[str]) -> None:
    scans = [day.scan(code) for code in codes]
    for n, scan in enumerate(scans[:5]):
        assert await day.scan_at(1 + n % 2, scan) is Verdict.ACCEPTED
    assert await day.scan_at(1, scans[0]) is Verdict.ACCEPTED
    assert await day.scan_at(2, day.scan(codes[1])) is Verdict.ALREADY_REDEEMED
    await day.take_back(1, scans[2])
    assert await day.scan_at(2, day.scan(codes[2])) is Verdict.ACCEPTED
    spot = await day.core.desk.identify(codes[5])
    assert spot is not None
    await day.core.desk.void("test", spot.campaign, spot.serial, "misprint", "v1")
    assert await day.scan_at(1, day.scan(codes[5])) is Verdict.VOIDED


async def test_what_happened_is_proven(day: Played) -> None:
    proof = await day.proof()
    assert failing(proof) == set()
    numbers = {each.name: each.numbers for each in proof.equalities}
    assert numbers[HELD] == {"accepted": 6, "reversed": 1, "held in Valkey": 5, "distinct vouchers": 5}
    assert numbers[TOLD] == {"in the log": 6, "told to tills": 6}
    assert proof.verdicts == {"accepted": 6, "repeated": 1, "already_redeemed": 1, "voided": 1}


async def test_a_yes_that_no_till_heard_is_seen(day: Played) -> None:
    assert failing(await day.proof(day.told[1:])) == {TOLD}
    unanswered = [msgspec.structs.replace(day.told[0], verdict=None, place=None), *day.told[1:]]
    assert failing(await day.proof(unanswered)) == {TOLD}


async def test_a_yes_that_the_log_does_not_hold_is_seen(day: Played) -> None:
    invented = Told("till", "ab" * 16, Verdict.ACCEPTED, day.told[0].place)
    assert failing(await day.proof([*day.told, invented])) == {TOLD, PLACED}


async def test_the_right_number_with_another_id_is_seen(day: Played) -> None:
    swapped = [msgspec.structs.replace(day.told[0], redemption_id="cd" * 16), *day.told[1:]]
    assert failing(await day.proof(swapped)) == {TOLD, PLACED}


async def test_a_place_or_a_verdict_that_the_log_contradicts_is_seen(day: Played) -> None:
    moved = [msgspec.structs.replace(day.told[0], place=Position(0, 999, 0)), *day.told[1:]]
    assert failing(await day.proof(moved)) == {PLACED}
    nowhere = [msgspec.structs.replace(day.told[0], place=None), *day.told[1:]]
    assert failing(await day.proof(nowhere)) == {PLACED}
    refused = next(n for n, one in enumerate(day.told) if one.verdict == Verdict.ALREADY_REDEEMED)
    softened = list(day.told)
    softened[refused] = msgspec.structs.replace(day.told[refused], verdict=int(Verdict.EXPIRED))
    assert failing(await day.proof(softened)) == {PLACED}


async def test_a_redemption_that_valkey_lost_or_invented_is_seen(day: Played) -> None:
    key, fields = await holding(day)
    lost = next(field for field, value in fields.items() if value[:1] == b"R")
    await day.valkey.hdel(key, lost)
    assert failing(await day.proof()) == {HELD, REBUILT}
    await day.valkey.hset(key, lost, fields[lost])
    assert failing(await day.proof()) == set()
    await day.valkey.hset(voucher_key(0, 1, 900), voucher_field(900), fields[lost])
    assert failing(await day.proof()) == {HELD, REBUILT}


async def test_another_time_in_valkey_is_seen(day: Played) -> None:
    """The same vouchers are held, but not to the byte."""
    key, fields = await holding(day)
    field, value = next(iter(fields.items()))
    await day.valkey.hset(key, field, value[:-1] + bytes([value[-1] ^ 1]))
    assert failing(await day.proof()) == {REBUILT}


async def test_a_head_in_valkey_that_is_not_the_logs_is_seen(day: Played) -> None:
    (key, *_) = await day.valkey.keys("*head")
    head = await day.valkey.get(key)
    await day.valkey.set(key, bytes(16) + head[16:])
    assert failing(await day.proof()) == {REBUILT}


async def holding(day: Played) -> tuple[bytes, dict[bytes, bytes]]:
    """A hash of the live state with a redeemed voucher in it."""
    async for key in day.valkey.scan_iter(match="*v1:*"):
        fields = await day.valkey.hgetall(key)
        if redeemed_in({key: fields}):
            return key, fields
    raise AssertionError("nothing is redeemed")


class Bent:
    """A log reader that hands out one batch changed."""

    def __init__(self, log: object, change: object) -> None:
        self._log, self._change = log, change

    @property
    def partitions(self) -> int:
        return self._log.partitions  # type: ignore[attr-defined, no-any-return]

    async def head(self, partition: int) -> Head:
        return await self._log.head(partition)  # type: ignore[attr-defined, no-any-return]

    async def read(self, partition: int, first_seq: int, limit: int) -> list[Batch]:
        batches = await self._log.read(partition, first_seq, limit)  # type: ignore[attr-defined]
        return [self._change(batch) for batch in batches]  # type: ignore[operator]

    async def close(self) -> None:
        """The log is closed by whoever opened it."""


async def test_a_chain_that_does_not_join_is_seen(day: Played) -> None:
    def change(batch: Batch) -> Batch:
        return msgspec.structs.replace(batch, prev=b"x" * 16) if batch.seq == 2 and batch.verdicts else batch

    assert CHAIN in failing(await prove(Bent(day.core.log, change), day.valkey, day.told))


async def test_a_second_yes_for_one_voucher_in_the_log_is_seen(day: Played) -> None:
    """The refusal of voucher 2 becomes a second acceptance: no fold would take it, and the count does not either."""

    def change(batch: Batch) -> Batch:
        return msgspec.structs.replace(batch, verdicts=batch.verdicts.replace(bytes([21]), b"\0"))

    bad = failing(await prove(Bent(day.core.log, change), day.valkey, day.told))
    assert {CHAIN, ONCE, TOLD} <= bad


def test_verdicts_of_reversals_have_their_own_public_words() -> None:
    from gateway.proof_equalities import _public

    assert [_public(REVERSE, byte) for byte in (0, 1, 2, 41)] == [3, 3, 3, 41]
    assert [_public(REDEEM, byte) for byte in (0, 2, 13, 21)] == [0, 0, 12, 21]


def test_the_program_says_what_is_wrong_with_its_input(tmp_path: Path) -> None:
    run = subprocess.run(
        [sys.executable, "-m", "gateway.proof", str(tmp_path)], input="{not json\n", capture_output=True, text=True
    )
    assert run.returncode == 1
    assert "standard input is not what" in run.stderr
    assert "Traceback" not in run.stderr


def test_a_journal_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    for content, reason in ((None, "No such file"), (b"scribble", "not a journal")):
        journal = tmp_path / "journal.bin"
        if content is not None:
            journal.write_bytes(content)
        run = subprocess.run([sys.executable, "-m", "devices.journal", str(journal)], capture_output=True, text=True)
        assert run.returncode == 1
        assert str(journal) in run.stderr
        assert reason in run.stderr
        assert "Traceback" not in run.stderr


def test_what_is_left_of_a_purged_campaign_is_no_difference() -> None:
    mine, gone = b"R" * 32, b"\0\0\0\2" + b"\0" * 8
    held = {b"{0}v1:0": {b"3": mine}, b"{0}v2:0": {b"3": mine}, b"{1}v22:7": {b"1": mine}, b"{1}r0a": {b"x": gone}}
    codes = {b"{0}rff": {b"x": gone, b"y": b"\0\0\0\1" + b"\0" * 8}}
    assert kept(held, {2}) == {b"{0}v1:0": {b"3": mine}, b"{1}v22:7": {b"1": mine}}
    assert kept(codes, {2}) == {b"{0}rff": {b"y": b"\0\0\0\1" + b"\0" * 8}}
    assert kept(held | codes, set()) == held | codes
