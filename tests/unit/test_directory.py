"""Folding control events: what each leaves behind, that history may be read again, and that it is fast enough."""

import time
from collections.abc import Iterable

import msgspec
import pytest

from eventstore import events as e
from eventstore.events import Control, ControlEvent, Offer
from gateway.directory import Directory
from gateway.roles import Principal

NOW_MS = 1_762_128_000_000
HASH, OTHER_HASH = b"h" * 32, b"i" * 32
OFFER = Offer(
    title="Noodles",
    kind="prepaid",
    value_minor=1250,
    currency="CNY",
    starts_ms=NOW_MS,
    ends_ms=NOW_MS + 86_400_000,
    stores=("far-1",),
    alliance="east",
    channel="app",
)


def issued(first: int, count: int, request_id: str, kind: str = "signed") -> e.VouchersIssued:
    return e.VouchersIssued(campaign=7, kind=kind, first_serial=first, count=count, request_id=request_id)


def offered(terminal: int, token_hash: bytes) -> e.TerminalOffered:
    return e.TerminalOffered(
        terminal=terminal,
        store="bar-1",
        label="Till 1",
        token_hash=token_hash,
        expires_ms=NOW_MS + 1000,
    )


def token(token_id: str, token_hash: bytes, role: str, scope: str) -> e.TokenCreated:
    return e.TokenCreated(token_id=token_id, token_hash=token_hash, role=role, scope=scope, label=role)


HISTORY: tuple[ControlEvent, ...] = (
    e.DeploymentInitialised(deployment_id="d", partitions=1),
    e.MerchantAdded(merchant="bar", title="Bar"),
    e.MerchantAdded(merchant="far", title="Far"),
    e.AllianceDefined(alliance="east", merchants=("bar", "far")),
    e.StoreOpened(store="bar-1", merchant="bar", title="Bar One"),
    e.StoreOpened(store="far-1", merchant="far", title="Far One"),
    e.KeyAdded(key_id=1),
    e.KeyAdded(key_id=2),
    e.KeyRetired(key_id=1),
    e.CampaignCreated(campaign=7, slug="noodles", offer=OFFER),
    issued(1, 100, "r1"),
    issued(101, 5, "r2", "typed"),
    issued(106, 10, "r3"),
    e.CampaignPaused(campaign=7),
    e.CampaignResumed(campaign=7),
    offered(5, HASH),
    e.TerminalEnrolled(terminal=5, public_key=b"k" * 32),
    e.TerminalLocked(terminal=5, until_ms=NOW_MS + 50),
    token("t1", b"a" * 32, "merchant", "bar"),
    token("t2", b"b" * 32, "terminal", "5"),
    e.AllianceDefined(alliance="east", merchants=("bar",)),
    e.IdReused(redemption_id=bytes(16), first=(0, 1, 0), second=(0, 2, 0)),
)


def folded(history: Iterable[ControlEvent], directory: Directory | None = None) -> Directory:
    directory = directory or Directory()
    for event in history:
        directory.apply(Control("test", (event,)), directory.control_seq + 1, NOW_MS)
    return directory


def after(*events: ControlEvent) -> Directory:
    return folded(events, folded(HISTORY))


def test_parties_and_alliances() -> None:
    directory = folded(HISTORY)
    assert directory.deployment == HISTORY[0]
    assert directory.outlet("bar-1").alliances == {"east"}
    assert directory.outlet("far-1").alliances == frozenset()  # left when the alliance was defined anew
    assert directory.outlet("far-1").merchant == "far"
    assert directory.merchants_of(directory.campaigns[7]) == {"bar", "far"}
    assert (directory.live_keys, directory.retired_keys) == ({2}, {1})


def test_a_campaign_is_found_by_number_and_by_slug() -> None:
    directory = folded(HISTORY)
    assert directory.campaign("7") is directory.campaign("noodles") is directory.campaigns[7]
    assert [directory.campaign(text) for text in ("8", "soup", "", "٧", "-7", "0")] == [None] * 6


def test_a_campaign_through_its_life() -> None:
    assert not folded(HISTORY).campaigns[7].paused
    assert after(e.CampaignPaused(campaign=7)).campaigns[7].paused
    closed = after(e.CampaignClosed(campaign=7))
    assert (closed.campaigns[7].closed_ms, closed.campaigns[7].purged) == (NOW_MS, False)
    assert folded((e.CampaignPurged(campaign=7),), closed).campaigns[7].purged


def test_issued_serials_by_kind_and_by_request() -> None:
    directory = folded(HISTORY)
    campaign = directory.campaigns[7]
    assert [s for s in range(130) if campaign.issued("signed").holds(s)] == [*range(1, 101), *range(106, 116)]
    assert [s for s in range(130) if campaign.issued("typed").holds(s)] == [*range(101, 106)]
    assert not campaign.issued("foreign").starts
    assert directory.next_serial(7) == 116
    assert directory.issued_as(7, "r2") == issued(101, 5, "r2", "typed")
    assert directory.issued_as(8, "r2") is None
    assert directory.issued_as(7, "r4") is None


def test_a_range_below_the_others_lowers_no_next_serial() -> None:
    assert after(issued(0, 1, "r9")).next_serial(7) == 116


def test_next_numbers() -> None:
    assert (Directory().next_campaign_number(), Directory().next_terminal_number()) == (1, 1)
    directory = folded(HISTORY)
    assert (directory.next_campaign_number(), directory.next_terminal_number()) == (8, 6)


def test_an_enrolment_token_is_good_once_and_not_for_ever() -> None:
    directory = folded((*HISTORY, offered(6, OTHER_HASH)))
    assert directory.enrolling(HASH, NOW_MS) is None
    assert directory.enrolling(OTHER_HASH, NOW_MS + 999) is directory.terminals[6]
    assert directory.enrolling(OTHER_HASH, NOW_MS + 1000) is None
    folded((offered(6, b"j" * 32),), directory)  # a newer token replaces it
    assert directory.enrolling(OTHER_HASH, NOW_MS) is None
    folded((e.TerminalRevoked(terminal=6),), directory)
    assert directory.enrolling(b"j" * 32, NOW_MS) is None


def test_locks_and_unlocks() -> None:
    assert folded(HISTORY).terminals[5].locked_until_ms == NOW_MS + 50
    assert after(e.TerminalUnlocked(terminal=5)).terminals[5].locked_until_ms == 0


def test_who_holds_a_token() -> None:
    directory = folded(HISTORY)
    till = Principal("terminal", "bar", 5, "bar-1")
    assert directory.principal_of_token(b"a" * 32) == Principal("merchant", "bar")
    assert directory.principal_of_token(b"b" * 32) == till == directory.principal_of_terminal(5)
    assert directory.principal_of_token(b"c" * 32) is None
    assert directory.principal_of_terminal(6) is None
    assert after(e.TokenRevoked(token_id="t1")).principal_of_token(b"a" * 32) is None
    revoked = after(e.TerminalRevoked(terminal=5))
    assert revoked.principal_of_token(b"b" * 32) is None
    assert revoked.principal_of_terminal(5) is None


def test_reading_history_again_changes_nothing() -> None:
    once = folded(HISTORY)
    twice = folded(HISTORY)
    for seq, event in enumerate(HISTORY, start=1):
        twice.apply(Control("test", (event,)), seq, NOW_MS + seq)
    assert once == twice
    whole = Directory()
    whole.apply(Control("test", HISTORY), 1, NOW_MS)
    assert msgspec.structs.replace(whole, control_seq=len(HISTORY)) == once


def test_a_gap_is_a_bug() -> None:
    directory = folded(HISTORY)
    with pytest.raises(AssertionError, match="control batch 24 after 22"):
        directory.apply(Control("test", ()), len(HISTORY) + 2, NOW_MS)


def test_a_copy_goes_its_own_way() -> None:
    directory = folded(HISTORY)
    before = msgspec.json.encode(directory.campaigns[7])
    twin = directory.copied()
    changes = (
        e.CampaignClosed(campaign=7),
        e.MerchantAdded(merchant="new", title="New"),
        e.KeyRetired(key_id=2),
        issued(500, 1, "r9"),
        e.TerminalRevoked(terminal=5),
    )
    folded(changes, twin)
    assert directory == folded(HISTORY) != twin
    assert msgspec.json.encode(directory.campaigns[7]) == before


def test_ten_thousand_events_fold_within_a_second() -> None:
    parties = [
        event
        for n in range(1000)
        for event in (
            e.MerchantAdded(merchant=f"m{n}", title="M"),
            e.StoreOpened(store=f"s{n}", merchant=f"m{n}", title="S"),
        )
    ]
    alliances = [
        e.AllianceDefined(alliance="east", merchants=tuple(f"m{m}" for m in range(n, n + 500))) for n in range(200)
    ]
    campaign = [e.CampaignCreated(campaign=7, slug="noodles", offer=OFFER)]
    tills = [offered(n, n.to_bytes(16, "big")) for n in range(1, 1001)]
    ranges = [  # alternating kinds: no two ranges of a kind ever join
        issued(10 * n, 10, f"r{n}", "signed" if n % 2 else "typed") for n in range(6800)
    ]
    history = (*parties, *alliances, *campaign, *tills, *ranges)
    assert len(history) >= 10_000
    started_s = time.process_time()
    directory = folded(history)
    assert time.process_time() - started_s < 1.0
    assert directory.next_serial(7) == 68_000
