"""Real tills and a real gateway: the grant over the wire, the line cut, vouchers accepted, told and settled."""

import asyncio
import io
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from cli_world import Shell, serving
from core_world import offer, until
from stream_world import Site, device, site

from devices.config import TerminalConfig
from devices.framing import Frame
from devices.journal import Journal
from devices.offline import Now
from devices.offline_desk import LINK_DEAD_MS, OfflineDesk, clocks
from devices.outbox import Outbox
from devices.screen import TextScreen
from devices.till import Till
from devices.uplink import Uplink
from eventstore.events import CampaignCreated, CampaignPaused, CampaignResumed
from eventstore.offline_events import OfflinePolicy
from gateway.messages import Grant

POLICY = OfflinePolicy(count_max=2, value_minor_max=5000, minutes_max=30)


class Lane:
    """One till, as `tillgate terminal run` puts it together, whose line a test can cut."""

    def __init__(self, directory: Path, number: int, url: str) -> None:
        self.journal, self.outbox, self.out = Journal.open(directory), Outbox(), io.StringIO()
        self.ahead_ms = 0
        self.journal.offline = OfflineDesk(directory, self.journal.offline_secret, self._clocks)
        self.till = Till(self.journal, self.outbox, TextScreen(self.out, "en"), "en")
        config = TerminalConfig(gateways=[url], terminal=number, state_directory=str(directory))
        self.uplink = Uplink(config, device(number).sign, self.outbox, self.till)
        self.till.wake = self.uplink.wake
        self.till.resume()
        self._line: asyncio.Task[None] | None = None

    def _clocks(self) -> Now:
        now = clocks()
        return Now(now.wall_ms + self.ahead_ms, now.boot_ms + self.ahead_ms, now.boot)

    def connect(self) -> None:
        self._line = asyncio.create_task(self.uplink.run())

    async def cut(self) -> None:
        """The line is dead, for longer than a gateway takes to restart."""
        assert self._line is not None
        self._line.cancel()
        await asyncio.gather(self._line, return_exceptions=True)
        self.outbox.connection_lost(time.monotonic_ns() // 1_000_000)
        self.till.on_link_lost("cut")
        self.ahead_ms += LINK_DEAD_MS

    async def granted(self) -> Grant:
        await until(lambda: self.journal.offline._kept is not None)
        kept = self.journal.offline._kept
        assert kept is not None
        return kept.grant

    async def scan(self, code: str) -> str:
        return await self.till.take_read("lane1", Frame(code.encode()))

    async def settled(self, *told: str) -> None:
        """Nothing is open any more and the cashier was told: that comes a turn of the loop after the journal has it."""
        await until(
            lambda: not self.journal.ledger.open_count() and all(words in self.out.getvalue() for words in told)
        )


@asynccontextmanager
async def lane(directory: Path, number: int, url: str) -> AsyncIterator[Lane]:
    made = Lane(directory, number, url)
    made.connect()
    try:
        yield made
    finally:
        if made._line is not None:
            made._line.cancel()
            await asyncio.gather(made._line, return_exceptions=True)
        await made.journal.close()


async def offline_codes(made: Site, count: int) -> list[str]:
    await made.w.write(CampaignCreated(campaign=2, slug="tea", offer=offer(offline=POLICY)))
    key = made.w.core.facts.keys
    issued = await made.w.core.desk.issue("test", "tea", count, "r1")
    return [key.signed(code) for code in made.w.core.ring.mint(1, issued.campaign, issued.first_serial, count)]  # type: ignore[union-attr]


async def test_two_tills_accept_the_same_voucher_offline_and_both_hear_what_it_came_to(
    tmp_path: Path, valkey_endpoint: str
) -> None:
    async with site(tmp_path / "data", valkey_endpoint) as made:
        codes = await offline_codes(made, 4)
        url = made.gateway.url
        async with lane(tmp_path / "one", 1, url) as one, lane(tmp_path / "two", 2, url) as two:
            for each in (one, two):
                grant = await each.granted()
                assert [(o.campaign, o.count_max, o.issued) for o in grant.offers] == [(2, 2, [(1, 5)])]
                await each.cut()
                assert "ACCEPTED OFFLINE" in await each.scan(codes[0])
            assert "ACCEPTED OFFLINE" in await two.scan(codes[1])
            assert "(2 / 2)" in await two.scan(codes[2])
            one.connect()
            await one.settled("SETTLED")
            two.connect()
            await two.settled("CONFLICT: accepted offline", "Used at s1, till *01")
            [event] = made.w.directory.conflicts.values()
            assert (event.terminal, event.first_terminal) == (2, 1)
            await two.cut()
            assert "ACCEPTED OFFLINE" in await two.scan(codes[3]), "what is settled fills no cap"


async def test_a_pause_takes_the_grant_back_at_once(tmp_path: Path, valkey_endpoint: str) -> None:
    async with site(tmp_path / "data", valkey_endpoint) as made:
        codes = await offline_codes(made, 1)
        async with lane(tmp_path / "one", 1, made.gateway.url) as one:
            assert (await one.granted()).offers
            await made.w.write(CampaignPaused(campaign=2))
            await until(lambda: one.journal.offline._kept and not one.journal.offline._kept.grant.offers)
            await made.w.write(CampaignResumed(campaign=2))
            await until(lambda: one.journal.offline._kept and one.journal.offline._kept.grant.offers)
            await one.cut()
            assert "ACCEPTED OFFLINE" in await one.scan(codes[0])


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Shell:
    made = Shell(tmp_path_factory.mktemp("exposure") / "data")
    assert made("init").code == 0
    return made


OFFER = """
title = "Noodle soup"
kind = "prepaid"
value = "18.00 CNY"
starts = 2020-01-01T00:00:00+08:00
ends = 2035-01-01T00:00:00+08:00
stores = ["nk-1"]
offline = { count = 20, value = "200.00 CNY", minutes = 120 }
"""


def test_exposure_on_the_command_line(shell: Shell, tmp_path: Path) -> None:
    with serving(shell.data):
        assert "nothing can be lost" in shell("exposure").err
        (tmp_path / "offer.toml").write_text(OFFER)
        for args in (
            ("merchant", "add", "noodle-king", "--title", "Noodle King"),
            ("store", "open", "nk-1", "--merchant", "noodle-king", "--title", "Noodle King 1"),
            ("campaign", "create", "noodles", "--file", tmp_path / "offer.toml"),
        ):
            told = shell(*args)
            assert told.code == 0, told.err
        shell.json("voucher", "issue", "noodles", "--count", 2, "--out", tmp_path / "codes.csv")
        lines = (tmp_path / "codes.csv").read_text().splitlines()
        assert all(len(line.partition(",")[2]) == 138 for line in lines[1:])
        found = shell.json("exposure")
        [risk] = found["campaigns"]
        assert (risk["campaign"], risk["terminals"], risk["terminal_minor"], risk["worst_minor"]) == (
            "noodles",
            0,
            20_000,
            0,
        )
        said = shell("exposure").out
        assert "In all: worst loss 0.00 CNY" in said
        assert "20, 200.00 CNY" in said
