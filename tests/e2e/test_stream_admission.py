"""Who may connect to the stream, and who may stay: strangers, revoked terminals, pauses, locks."""

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import msgspec
import pytest
from core_world import until
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from stream_world import Closed, Site, site

from eventstore import events as e
from gateway.core import wall_ms
from gateway.messages import SUBPROTOCOL, RedeemMany, Verdict


@pytest.fixture
async def here(tmp_path: Path, valkey_endpoint: str) -> AsyncIterator[Site]:
    async with site(tmp_path / "data", valkey_endpoint) as made:
        yield made


# --- who is let in ---


async def test_a_stranger_hears_why_and_nobody_else_is_disturbed(here: Site) -> None:
    async with here.till(1) as neighbour:
        for number, key, said in (
            (99, None, "terminal 99 is not enrolled here"),
            (2, Ed25519PrivateKey.generate(), "the signature is not by the key terminal 2"),
            (2**40, None, "not enrolled"),
        ):
            async with here.open() as till:
                with pytest.raises(Closed) as caught:
                    await till.greet(number, key or Ed25519PrivateKey.generate())
                assert caught.value.code == 1008
                assert said in caught.value.notices[0].text
        assert (await neighbour.verdict(here.w.scan("x y z")))[0] is Verdict.UNKNOWN_CODE


@pytest.mark.parametrize("first", (b"\xc1", b"", msgspec.msgpack.encode(RedeemMany(1, [])), bytes(range(200, 250))))
async def test_nothing_is_taken_before_the_greeting(here: Site, first: bytes) -> None:
    async with here.open() as till:
        await till.raw(first)
        closed = await till.ended()
        assert (closed.code, closed.notices[0].code in ("malformed", "out_of_turn")) == (1008, True)


async def test_a_silent_connection_is_closed(here: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.stream.GREETING_S", 0.05)
    async with here.open() as till:
        assert (await till.ended()).notices[0].code == "greeting_timeout"


async def test_an_unknown_subprotocol_is_refused_before_the_upgrade(here: Site) -> None:
    with pytest.raises(aiohttp.WSServerHandshakeError, match="400"):
        await here.session.ws_connect(here.gateway.url + "/v1/stream", protocols=["chat"])
    assert (await here.get("/v1/stream"))[0] == 400


async def test_connections_are_bounded(here: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.stream.CONNECTIONS_MAX", 1)
    async with here.till(1):
        with pytest.raises(aiohttp.WSServerHandshakeError, match="503"):
            await here.session.ws_connect(here.gateway.url + "/v1/stream", protocols=[SUBPROTOCOL])


async def test_a_terminal_that_connects_again_replaces_itself(here: Site) -> None:
    async with here.till(1) as old, here.till(1) as new:
        closed = await old.ended()
        assert (closed.code, closed.notices[0].code) == (1008, "replaced")
        assert (await new.verdict(here.w.scan("x y z")))[0] is Verdict.UNKNOWN_CODE
        assert here.gateway.stream.connected() == {"s1": 1}
    await until(lambda: not here.gateway.stream.connected())


# --- what binds within a second ---


async def test_a_revoked_terminal_is_gone_within_a_second(here: Site) -> None:
    async with here.till(1) as till, here.till(2) as neighbour:
        await here.w.write(e.TerminalRevoked(terminal=1))
        async with asyncio.timeout(1.0):
            closed = await till.ended()
        assert (closed.code, closed.notices[0].code) == (1008, "not_welcome")
        assert (await neighbour.verdict(here.w.scan("x y z")))[0] is Verdict.UNKNOWN_CODE
    async with here.open() as again:
        with pytest.raises(Closed, match="terminal 1 was revoked"):
            await again.greet(1)


async def test_a_revoked_terminal_redeems_nothing_even_before_it_is_swept(here: Site) -> None:
    (code,) = await here.w.codes(1)
    async with here.till(1) as till, here.till(2) as other:
        await here.w.write(e.TerminalRevoked(terminal=1))
        await till.send(RedeemMany(1, [here.w.scan(code)]))
        assert (await till.ended()).notices[0].code == "not_welcome"
        assert (await other.verdict(here.w.scan(code)))[0] is Verdict.ACCEPTED


async def test_a_pause_binds_with_the_next_scan(here: Site) -> None:
    one, two, three = await here.w.codes(3)
    async with here.till(1) as till:
        assert (await till.verdict(here.w.scan(one)))[0] is Verdict.ACCEPTED
        await here.w.write(e.CampaignPaused(campaign=1))
        paused_s = asyncio.get_running_loop().time()
        assert (await till.verdict(here.w.scan(two)))[0] is Verdict.PAUSED
        assert asyncio.get_running_loop().time() - paused_s < 1.0
        await here.w.write(e.CampaignResumed(campaign=1))
        assert (await till.verdict(here.w.scan(three)))[0] is Verdict.ACCEPTED


async def test_guessing_locks_the_terminal_and_an_operator_unlocks_it(here: Site) -> None:
    (code,) = await here.w.codes(1)
    async with here.till(1) as till:
        for _ in range(20):
            assert (await till.verdict(here.w.scan(os.urandom(6).hex() + " x")))[0] is Verdict.UNKNOWN_CODE
        await until(lambda: here.w.directory.terminals[1].locked_until_ms > wall_ms())
        verdict, detail = await till.verdict(here.w.scan(code))
        assert verdict is Verdict.TERMINAL_LOCKED
        assert "UTC" in (detail.note or "")
        await here.w.write(e.TerminalUnlocked(terminal=1))
        assert (await till.verdict(here.w.scan(code)))[0] is Verdict.ACCEPTED
