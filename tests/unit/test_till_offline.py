"""What a till accepts without a connection: durable before the yes, under the caps, never twice, and told as facts."""

import io
import os
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from devices.feedback import tail_of
from devices.framing import Frame, Signal
from devices.journal import Journal
from devices.offline import Now
from devices.offline_desk import FILE_NAME, LINK_DEAD_MS, OfflineDesk
from devices.outbox import Outbox
from devices.screen import TextScreen
from devices.till import Till
from gateway.codes import CodeKeys, KeyRing
from gateway.messages import (
    FactMany,
    Grant,
    OfflineOffer,
    Place,
    RedeemMany,
    ReverseMany,
    Verdict,
    Verdicts,
    Welcome,
)
from gateway.offline_codes import OfflineKeys

KEYS = CodeKeys(keys={1: b"k" * 32}, active=1, pepper=b"p" * 32)
RING, SIGNER = KeyRing(KEYS), OfflineKeys(KEYS)
NOW_MS = 1_800_000_000_000
HOUR_MS = 3_600_000
OFFER = OfflineOffer(
    7, "Noodle soup, 18.00 CNY", 1800, "CNY", [(NOW_MS - HOUR_MS, NOW_MS + 9 * HOUR_MS)], [(1, 100)], 3, 9000, 60
)
GRANT = Grant(NOW_MS, NOW_MS + 10 * HOUR_MS, SIGNER.public_keys, [OFFER])


def code(serial: int, campaign: int = 7) -> str:
    return SIGNER.signed(next(RING.mint(1, campaign, serial, 1)))


class Clocks:
    """This machine's clocks, as a test sets them."""

    def __init__(self) -> None:
        self.now = Now(NOW_MS + 250, 5_000_000, "first")

    def __call__(self) -> Now:
        return self.now

    def pass_ms(self, ms: int) -> None:
        self.now = Now(self.now.wall_ms + ms, self.now.boot_ms + ms, self.now.boot)

    def reboot(self, wall_ms: int) -> None:
        self.now = Now(wall_ms, 9000, self.now.boot + "'")


class Desk:
    """One till on a state directory, its clocks, and what it sends."""

    def __init__(self, directory: Path, clocks: Clocks) -> None:
        self.clocks, self.journal, self.outbox = clocks, Journal.open(directory), Outbox()
        self.journal.offline = OfflineDesk(directory, self.journal.offline_secret, clocks)
        self.out = io.StringIO()
        self.till = Till(self.journal, self.outbox, TextScreen(self.out, "en"), "en")
        self.signals: list[Signal] = []
        self.till.sound = lambda source, signal: self.signals.append(signal)
        self.till.resume()
        self.now_ms = 1 << 50

    async def meet(self, grant: Grant = GRANT) -> None:
        self.till.on_welcome(Welcome("s1", NOW_MS, "en"))
        await self.till.on_grant(msgspec.structs.replace(grant, server_ms=NOW_MS))

    def lose(self) -> None:
        self.till.on_link_lost("cut")
        self.clocks.pass_ms(LINK_DEAD_MS)

    async def scan(self, text: str, source: str = "lane1") -> str:
        return await self.till.take_read(source, Frame(text.encode()))

    def sent(self) -> list[RedeemMany | ReverseMany | FactMany]:
        self.now_ms += 10_000
        return self.outbox.messages_due(self.now_ms)

    async def answer(self, message: RedeemMany | ReverseMany | FactMany, *verdicts: Verdict) -> None:
        place = Place(0, 1, 0, len(verdicts))
        told = Verdicts(message.ref, bytes(verdicts), 1, [place], {})
        await self.till.on_answers(self.outbox.take(told, self.now_ms, 0.5))


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    one = Desk(tmp_path, Clocks())
    await one.meet()
    one.lose()
    yield one
    await one.journal.close()


async def test_a_voucher_is_accepted_offline_and_told_as_a_fact(desk: Desk) -> None:
    said = await desk.scan(code(1))
    assert "ACCEPTED OFFLINE" in said
    assert "Noodle soup, 18.00 CNY" in said
    assert "◆" in desk.out.getvalue().splitlines()[-1]
    assert desk.signals == [Signal.GOOD]
    desk.till.on_welcome(Welcome("s1", NOW_MS, "en"))
    [message] = desk.sent()
    assert isinstance(message, FactMany)
    [fact] = message.facts
    assert (fact.redeem.code, fact.accepted_ms, fact.contact_ms) == (code(1), NOW_MS + LINK_DEAD_MS, NOW_MS)
    await desk.answer(message, Verdict.ACCEPTED)
    assert "SETTLED" in desk.out.getvalue().splitlines()[-1]
    assert desk.journal.ledger.open_count() == 0
    assert desk.sent() == []


async def test_a_conflict_is_told_as_one(desk: Desk) -> None:
    await desk.scan(code(1))
    [message] = desk.sent()
    await desk.answer(message, Verdict.CONFLICT)
    assert "CONFLICT: accepted offline" in desk.out.getvalue().splitlines()[-1]


async def test_it_is_on_disk_before_the_yes_and_told_after_a_kill(tmp_path: Path) -> None:
    clocks = Clocks()
    killed = Desk(tmp_path, clocks)
    await killed.meet()
    killed.lose()
    killed.till._tell_offline = lambda *_: pytest.fail("said")  # type: ignore[method-assign, assignment]
    with pytest.raises(pytest.fail.Exception):
        await killed.scan(code(1))  # dead between the journal and the yes
    os.close(killed.journal._lock_fd)
    again = Desk(tmp_path, clocks)
    again.lose()
    assert "ALREADY USED HERE" in await again.scan(code(1))
    [message] = again.sent()
    assert isinstance(message, FactMany)
    assert len(message.facts) == 1
    await again.journal.close()


async def test_never_twice_at_the_same_till_not_even_spelled_otherwise_or_after_a_restart(desk: Desk) -> None:
    await desk.scan(code(1))
    assert "read twice" in await desk.scan(code(1))
    assert "ALREADY USED HERE" in await desk.scan(code(1).lower(), "lane2")
    assert "ALREADY USED HERE" in await desk.scan(f"]Q3{code(1)}", "lane2")
    assert desk.signals[-1] is Signal.BAD
    assert len(desk.sent()) == 1


async def test_what_was_accepted_online_is_not_accepted_offline_again(tmp_path: Path) -> None:
    desk = Desk(tmp_path, Clocks())
    await desk.meet()
    await desk.scan(code(1))
    [message] = desk.sent()
    await desk.answer(message, Verdict.ACCEPTED)
    await desk.journal.close()
    desk = Desk(tmp_path, desk.clocks)  # the journal has forgotten the code by now
    desk.lose()
    assert "ALREADY USED HERE" in await desk.scan(code(1))
    assert "ACCEPTED OFFLINE" in await desk.scan(code(2))
    await desk.journal.close()


async def test_a_scan_that_was_under_way_keeps_its_id(tmp_path: Path) -> None:
    desk = Desk(tmp_path, Clocks())
    await desk.meet()
    await desk.scan(code(1))
    [asked] = desk.sent()
    assert isinstance(asked, RedeemMany)
    desk.outbox.connection_lost(desk.now_ms)
    desk.lose()
    assert "ACCEPTED OFFLINE" in await desk.scan(code(1))
    [told] = desk.sent()
    assert isinstance(told, FactMany)
    assert told.facts[0].redeem == asked.scans[0]
    await desk.journal.close()


async def test_an_undone_fact_is_told_before_it_is_undone(desk: Desk) -> None:
    await desk.scan(code(1))
    assert "undoing" in await desk.till.execute("reverse last")
    [told] = desk.sent()
    assert isinstance(told, FactMany), "the reversal waits"
    await desk.answer(told, Verdict.ACCEPTED)
    [undo] = desk.sent()
    assert isinstance(undo, ReverseMany)
    await desk.answer(undo, Verdict.ACCEPTED)
    assert desk.journal.ledger.open_count() == 0
    assert "ACCEPTED OFFLINE" in await desk.scan(code(1), "lane2")


@pytest.mark.parametrize(
    ("text", "says"),
    (
        (code(1)[:34], "can only be checked with a connection"),
        ("1234567890123452", "can only be checked with a connection"),
        (code(1)[:-1] + ("0" if code(1)[-1] != "0" else "1"), "signature is not right"),
        (code(1, campaign=8), "does not allow it here"),
        (code(100), "does not know of this voucher's issue"),
        ("T1" + "V" * 32 + "." + code(1)[35:], "a key this till does not know"),
    ),
)
async def test_what_cannot_be_accepted_is_kept_with_the_reason_and_asked_later(
    desk: Desk, text: str, says: str
) -> None:
    assert says in await desk.scan(text)
    [message] = desk.sent()
    assert isinstance(message, RedeemMany)
    assert desk.signals == [Signal.WAIT]


async def test_the_caps(desk: Desk) -> None:
    for serial in (1, 2, 3):
        assert "ACCEPTED OFFLINE" in await desk.scan(code(serial))
    assert "(3 / 3)" in await desk.scan(code(4))
    [facts, scans] = desk.sent()
    await desk.answer(facts, *[Verdict.ACCEPTED] * 3)
    await desk.answer(scans, Verdict.ALREADY_REDEEMED)
    assert "ACCEPTED OFFLINE" in await desk.scan(code(5)), "what is settled is at risk no more"
    dear = msgspec.structs.replace(OFFER, value_minor_max=2 * 1800)
    await desk.meet(msgspec.structs.replace(GRANT, offers=[dear]))
    desk.lose()
    assert "ACCEPTED OFFLINE" in await desk.scan(code(6))
    assert "reached its value" in await desk.scan(code(7))


async def test_minutes_hours_and_the_end(desk: Desk) -> None:
    desk.clocks.pass_ms(HOUR_MS)
    assert "(60 / 60 min)" in await desk.scan(code(1))
    patient = msgspec.structs.replace(OFFER, minutes_max=100_000, opens=[(NOW_MS + HOUR_MS, NOW_MS + 2 * HOUR_MS)])
    await desk.meet(msgspec.structs.replace(GRANT, offers=[patient]))
    desk.lose()
    assert "not valid at this hour" in await desk.scan(code(2))
    desk.clocks.pass_ms(HOUR_MS)
    assert "ACCEPTED OFFLINE" in await desk.scan(code(3))
    desk.clocks.pass_ms(HOUR_MS)
    assert "time is over" in await desk.scan(code(4))
    desk.clocks.pass_ms(8 * HOUR_MS)
    assert "too long without" in await desk.scan(code(5))


async def test_a_short_cut_puts_nothing_at_risk(tmp_path: Path) -> None:
    desk = Desk(tmp_path, Clocks())
    await desk.meet()
    desk.till.on_link_lost("restart")
    desk.clocks.pass_ms(LINK_DEAD_MS - 1)
    assert "heard and kept" in await desk.scan(code(1))
    await desk.journal.close()


async def test_without_a_grant_everything_is_as_before(tmp_path: Path) -> None:
    desk = Desk(tmp_path, Clocks())
    desk.lose()
    assert "heard and kept" in await desk.scan(code(1))
    await desk.meet(msgspec.structs.replace(GRANT, offers=[]))
    desk.lose()
    assert "heard and kept" in await desk.scan(code(2))
    await desk.journal.close()


async def test_a_reboot_leaves_only_the_wall_clock_and_it_must_be_believable(tmp_path: Path) -> None:
    clocks = Clocks()
    desk = Desk(tmp_path, clocks)
    await desk.meet()
    desk.lose()
    await desk.journal.close()
    for wall_ms, says in (
        (NOW_MS - 86_400_000, "clock cannot be trusted"),
        (NOW_MS + HOUR_MS // 2, "ACCEPTED OFFLINE"),
    ):
        clocks.reboot(wall_ms)
        desk = Desk(tmp_path, clocks)
        desk.lose()
        assert says in await desk.scan(code(1))
        [record] = desk.journal.ledger.open_records()
        await desk.till.execute(f"give-up {tail_of(record.redemption_id)[1:]}")
        await desk.journal.close()
        (tmp_path / "journal.bin").unlink()


async def test_a_file_that_was_edited_allows_nothing(tmp_path: Path) -> None:
    desk = Desk(tmp_path, Clocks())
    await desk.meet()
    await desk.journal.close()
    content = bytearray((tmp_path / FILE_NAME).read_bytes())
    content[40] ^= 1
    (tmp_path / FILE_NAME).write_bytes(content)
    desk = Desk(tmp_path, desk.clocks)
    desk.lose()
    assert "heard and kept" in await desk.scan(code(1))
    await desk.journal.close()
