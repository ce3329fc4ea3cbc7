"""The simulator's model of Valkey against the real one: the same calls get the same replies, one by one."""

import asyncio
import os
import random
from collections import deque
from typing import Any

import hiredis
import msgspec
import pytest
import redis
from core_world import connector
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis.exceptions import RedisError
from sim.valkey_model import ModelValkey

from eventstore.events import IMPORT, RECORD, REDEEM, REVERSE, VOID, encode_records
from eventstore.log import EMPTY_HEAD, Batch, Head
from eventstore.snapshot import dump
from eventstore.vouchers import REGISTRY_VALUE, registry_key, voucher_key
from gateway.claims import Claimed, ValkeyArbiter, keyed_of
from gateway.pipe import ArbiterLost, ArbiterRefused

AT_MS = 1_700_000_000_000
SERIALS = (1, 2, 64)
CODES = tuple(bytes([number]) * 16 for number in range(1, 5))


WANTED = [
    *((voucher_key(0, campaign, serial), b"%d" % (serial % 64)) for campaign in (1, 2) for serial in SERIALS),
    *((registry_key(0, code), code) for code in CODES),
]


class Scan(msgspec.Struct, frozen=True):
    op: int
    campaign: int
    serial: int
    who: int
    static: int


class Call(msgspec.Struct, frozen=True):
    """One call of the arbiter; `number` means what the call makes of it."""

    what: str
    scans: tuple[Scan, ...] = ()
    number: int = 0


SCANS = st.builds(
    Scan,
    st.sampled_from((REDEEM, REDEEM, REDEEM, REVERSE, REVERSE, VOID, IMPORT)),
    st.sampled_from((0, 1, 1, 1, 1, 2)),
    st.sampled_from(SERIALS),
    st.integers(1, 14),
    st.sampled_from((0, 0, 0, 0, 4, 4, 10, 22, 30, 34)),
)
WEAR = st.builds(
    Scan, st.sampled_from((REVERSE, REVERSE, REDEEM)), st.just(1), st.just(1), st.integers(1, 14), st.just(0)
)
BATCHES = st.one_of(st.lists(SCANS, max_size=12), st.lists(WEAR, min_size=4, max_size=12)).map(tuple)
CALLS = st.one_of(
    st.builds(Call, st.just("claim"), BATCHES),
    st.builds(Call, st.just("claim"), BATCHES, st.integers(-1, 2)),
    st.builds(Call, st.just("claim"), BATCHES),
    st.builds(Call, st.sampled_from(("restore", "stream", "rebuild")), number=st.integers(0, 9)),
    st.builds(Call, st.sampled_from(("begin", "wipe", "load", "load", "finish")), number=st.integers(0, 9)),
    st.builds(Call, st.sampled_from(("flush", "starve", "forget", "delete")), number=st.integers(0, 9)),
)


class DirectConnection:
    """The client library's connection, answered by a model on the spot."""

    is_connected = True
    socket_timeout = None

    def __init__(self, server: ModelValkey) -> None:
        self._server, self._parser = server, hiredis.Reader()
        self._replies: deque[Any] = deque()
        self._arrived = asyncio.Event()

    async def connect(self) -> None:
        pass

    async def send_packed_command(self, command: list[bytes], check_health: bool) -> None:
        self._parser.feed(command[0])
        try:
            self._replies.append(self._server.execute(self._parser.gets()))
        except RedisError as error:
            self._replies.append(error)
        self._arrived.set()

    async def read_response(self, disable_decoding: bool) -> Any:
        while not self._replies:
            self._arrived.clear()
            await self._arrived.wait()
        reply = self._replies.popleft()
        if isinstance(reply, RedisError):
            raise reply
        return reply

    async def disconnect(self, nowait: bool) -> None:
        pass


def packed(scan: Scan) -> bytes:
    code = CODES[scan.who % len(CODES)]
    campaign = scan.campaign or (1 if scan.op == IMPORT else 0)
    claim_id = scan.who.to_bytes(16, "big")
    return RECORD.pack(scan.op, scan.static, 1, 0, campaign, scan.serial, code, claim_id, 5, AT_MS, 1)


class Pair:
    """Two arbiters that are asked the same; the log as it would be, for restore and rebuild."""

    def __init__(self, url: str, model: ModelValkey) -> None:
        self._url, self._model = url, model
        modelled: Any = lambda: DirectConnection(model)  # noqa: E731
        self.arbiters = (
            ValkeyArbiter(lambda: connector(url), lambda partition: None),
            ValkeyArbiter(modelled, lambda partition: None),
        )
        self.batches: list[Batch] = []
        self.durable_most = 0
        self._tips = 0

    async def same(self, method: str, *args: Any, **named: Any) -> Any:
        replies = []
        for arbiter in self.arbiters:
            try:
                replies.append(await getattr(arbiter, method)(*args, **named))
            except (ArbiterRefused, ArbiterLost) as error:
                replies.append(type(error))
        assert replies[0] == replies[1], (method, args, replies)
        return replies[0]

    async def do(self, call: Call) -> None:
        await getattr(self, f"_{call.what}")(call)
        head = await self.same("head", 0)
        await self.same("load_progress", 0)
        wanted = [
            (voucher_key(0, campaign, serial), b"%d" % (serial % 64)) for campaign in (1, 2) for serial in SERIALS
        ]
        await self.same("lookup", 0, [*wanted, *((registry_key(0, code), code) for code in CODES)])
        if isinstance(head, Head) and head.seq:
            await self.same("stream", 0, max(1, self.durable_most), head.seq)

    async def _claim(self, call: Call) -> None:
        self._tips += 1
        tip = self._tips.to_bytes(16, "big")
        head = await self.same("head", 0)
        durable_seq = max(0, head.seq + call.number - 1) if call.number else 0
        payload = encode_records([packed(scan) for scan in call.scans], {}, received_ms=AT_MS + self._tips)
        at_ms = AT_MS + self._tips
        reply = await self.same(
            "claim", 0, payload, keyed_of(0, payload), tip=tip, at_ms=at_ms, durable_seq=durable_seq
        )
        if isinstance(reply, Claimed):
            self.durable_most = max(self.durable_most, durable_seq)
            self.batches.append(Batch(0, reply.seq, reply.prev, tip, payload, reply.verdicts))

    async def _restore(self, call: Call) -> None:
        if self.batches:
            await self.same("restore", self.batches[-1 - call.number % len(self.batches)])

    async def _stream(self, call: Call) -> None:
        await self.same("stream", 0, max(1, self.durable_most), self.durable_most + call.number)

    async def _rebuild(self, call: Call) -> None:
        hashes = {
            voucher_key(0, 1, 64 * number): {b"1": b"R" * 32, b"2": bytes(32)} for number in range(call.number % 4)
        }
        hashes |= {registry_key(0, CODES[0]): {CODES[0]: REGISTRY_VALUE.pack(1, 7)}}
        head = EMPTY_HEAD if call.number == 0 else Head(call.number, b"h" * 16)
        await self.same("rebuild", 0, hashes.items(), head, b"t" * 16)

    async def _raw(self, *args: Any) -> None:
        await self.same("_call", 0, "FCALL", *args)

    async def _begin(self, call: Call) -> None:
        await self._raw("tillgate_load_begin_1", 2, "{0}head", "{0}load", b"%d" % (call.number % 2) * 16)

    async def _wipe(self, call: Call) -> None:
        keys = ("{0}head", "{0}load", "{0}v1:0", "{0}log")
        await self._raw("tillgate_load_wipe_1", len(keys), *keys, b"%d" % (call.number % 2) * 16)

    async def _load(self, call: Call) -> None:
        keys = ("{0}head", "{0}load", "{0}v1:0", "{0}v1:1")
        token = b"%d" % (call.number % 2) * 16
        await self._raw(
            "tillgate_load_1",
            len(keys),
            *keys,
            token,
            dump({b"1": b"R" * 32}),
            dump({b"0": b"V" * 32, b"1": b"r" * 32}),
        )

    async def _finish(self, call: Call) -> None:
        value = b"x" * 16 + b"%d" % call.number if call.number > 4 else b""
        await self._raw("tillgate_load_finish_1", 2, "{0}head", "{0}load", b"%d" % (call.number % 2) * 16, value)

    async def _flush(self, call: Call) -> None:
        self._model.wipe(functions=False)
        with redis.Redis.from_url(self._url) as client:
            client.flushall()

    async def _starve(self, call: Call) -> None:
        """Out of memory for one claim."""
        with redis.Redis.from_url(self._url) as client:
            client.config_set("maxmemory", "1")
            self._model.out_of_memory = True
            try:
                await self._claim(Call("claim", (Scan(REDEEM, 1, 1, 1, 0),)))
            finally:
                client.config_set("maxmemory", "0")
                self._model.out_of_memory = False

    async def _forget(self, call: Call) -> None:
        await self.same("forget_codes", 0, 1 + call.number % 2)

    async def _delete(self, call: Call) -> None:
        await self.same("delete", 0, [voucher_key(0, 1, 64 * (call.number % 2))])


def drawn(choose: random.Random) -> Call:
    """A call of a long life: many claims on few vouchers, little else."""
    what = choose.choices(("claim", "restore", "stream", "rebuild", "forget", "flush"), (60, 4, 3, 1, 1, 1))[0]
    ops, statics = (REDEEM, REDEEM, REVERSE, REVERSE, REVERSE, VOID, IMPORT), (0, 0, 0, 0, 0, 10, 22, 30)
    scans = [
        Scan(choose.choice(ops), choose.randint(0, 2), choose.choice(SERIALS), choose.randint(1, 40), static)
        for static in choose.choices(statics, k=choose.randint(0, 9))
    ]
    return Call(what, tuple(scans), 0 if what == "claim" else choose.randint(0, 9))


@pytest.mark.parametrize("seed", range(4))
async def test_model_and_valkey_agree_for_long(valkey_endpoint: str, seed: int) -> None:
    choose = random.Random(seed)
    await agree(valkey_endpoint, [drawn(choose) for _ in range(200)])


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(calls=st.lists(CALLS, min_size=5, max_size=50))
async def test_model_and_valkey_agree(valkey_endpoint: str, calls: list[Call]) -> None:
    await agree(valkey_endpoint, calls)


async def agree(valkey_endpoint: str, calls: list[Call]) -> None:
    with redis.Redis.from_url(valkey_endpoint) as client:
        client.flushall()
    pair = Pair(valkey_endpoint, ModelValkey(lambda: False))
    for arbiter in pair.arbiters:
        await arbiter.check(0)
    try:
        for call in calls:
            await pair.do(call)
    finally:
        for arbiter in pair.arbiters:
            await arbiter.close()


async def test_the_model_takes_back_whole_commands() -> None:
    """What a rollback leaves is what stood there after the earlier command."""
    model = ModelValkey(lambda: True)
    modelled: Any = lambda: DirectConnection(model)  # noqa: E731
    arbiter = ValkeyArbiter(modelled, lambda partition: None)
    await arbiter.check(0)
    states = []
    for number in range(4, 40):
        states.append((model.writes, _picture(model)))
        scans = [Scan(REDEEM, 1, number % 7, number, 0), Scan(REVERSE, 1, (number + 3) % 7, number - 2, 0)]
        payload = encode_records([packed(scan) for scan in scans], {}, received_ms=AT_MS)
        await arbiter.claim(0, payload, keyed_of(0, payload), tip=os.urandom(16), at_ms=AT_MS, durable_seq=0)
        if number % 10 == 0:
            await arbiter.rebuild(0, {b"{0}v1:0": {b"1": b"R" * 32}}.items(), Head(number, b"t" * 16), os.urandom(16))
    replica = model.copied()
    for server in (replica, model):
        for writes, picture in reversed(states):
            server.roll_back(writes)
            assert _picture(server) == picture
    await arbiter.close()


def _picture(model: ModelValkey) -> str:
    flat = [sorted(table.items()) for table in (model.strings, model.newest)]
    tables = (model.hashes, model.streams)
    return repr((flat, [sorted((key, sorted(inner.items())) for key, inner in table.items()) for table in tables]))
