"""Which control events may be written: each refusal by table."""

from typing import Any

import msgspec
import pytest

from eventstore import events as e
from eventstore.events import Control, ControlEvent, Hours, Offer
from eventstore.offline_events import OfflinePolicy
from gateway.control_rules import LOCK_MS_MAX, check
from gateway.directory import Directory

NOW_MS = 1_762_128_000_000
DAY_MS = 86_400_000
OFFER = Offer(
    title="Noodles",
    kind="prepaid",
    value_minor=1250,
    currency="CNY",
    starts_ms=NOW_MS,
    ends_ms=NOW_MS + 10 * DAY_MS,
    stores=("bar-1",),
    alliance="east",
)
HASH, SECOND_HASH, KEY = b"h" * 32, b"i" * 32, b"k" * 32


def created(campaign: int = 8, slug: str = "soup", **changes: Any) -> e.CampaignCreated:
    return e.CampaignCreated(campaign=campaign, slug=slug, offer=msgspec.structs.replace(OFFER, **changes))


def issued(first: int, count: int, request_id: str = "r2", kind: str = "signed", campaign: int = 7) -> e.VouchersIssued:
    return e.VouchersIssued(campaign=campaign, kind=kind, first_serial=first, count=count, request_id=request_id)


def offered(terminal: int = 7, store: str = "bar-1", **changes: Any) -> e.TerminalOffered:
    plain = e.TerminalOffered(
        terminal=terminal, store=store, label="Till", token_hash=SECOND_HASH, expires_ms=NOW_MS + 1000
    )
    return msgspec.structs.replace(plain, **changes)


def token(**changes: Any) -> e.TokenCreated:
    plain = e.TokenCreated(token_id="t2", token_hash=SECOND_HASH, role="merchant", scope="bar", label="Office")
    return msgspec.structs.replace(plain, **changes)


def enrolled(terminal: int, public_key: bytes = b"n" * 32) -> e.TerminalEnrolled:
    return e.TerminalEnrolled(terminal=terminal, public_key=public_key)


HISTORY: tuple[ControlEvent, ...] = (
    e.DeploymentInitialised(deployment_id="d", partitions=1),
    e.MerchantAdded(merchant="bar", title="Bar"),
    e.AllianceDefined(alliance="east", merchants=("bar",)),
    e.StoreOpened(store="bar-1", merchant="bar", title="Bar One"),
    e.StoreOpened(store="bar-2", merchant="bar", title="Bar Two"),
    e.KeyAdded(key_id=2),
    e.KeyAdded(key_id=1),
    e.KeyRetired(key_id=1),
    created(7, "noodles"),
    issued(1, 100, "r1"),
    created(9, "paused"),
    e.CampaignPaused(campaign=9),
    created(10, "closed"),
    e.CampaignClosed(campaign=10),
    created(11, "purged", dispute_ms=0, reversal_window_ms=0),
    e.CampaignClosed(campaign=11),
    e.CampaignPurged(campaign=11),
    offered(5, token_hash=HASH),
    enrolled(5, KEY),
    offered(6, token_hash=b"j" * 32),
    offered(4, token_hash=b"l" * 32),
    e.TerminalRevoked(terminal=4),
    token(token_id="t1", token_hash=HASH),
    token(token_id="t0", token_hash=b"z" * 32),
    e.TokenRevoked(token_id="t0"),
)


def folded(*events: ControlEvent) -> Directory:
    directory = Directory()
    for seq, event in enumerate(events, start=1):
        assert check(directory, (event,), now_ms=NOW_MS) is None, event
        directory.apply(Control("test", (event,)), seq, NOW_MS)
    return directory


AFTER = folded(*HISTORY)

REJECTED: tuple[tuple[ControlEvent, str], ...] = (
    (e.DeploymentInitialised(deployment_id="e", partitions=1), "deployment_id"),
    (e.MerchantAdded(merchant="bar", title="Bar"), "merchant"),
    (e.MerchantAdded(merchant="Bar", title="Bar"), "merchant"),
    (e.MerchantAdded(merchant="", title="Bar"), "merchant"),
    (e.MerchantAdded(merchant="b" * 33, title="Bar"), "merchant"),
    (e.MerchantAdded(merchant="new\n", title="Bar"), "merchant"),
    (e.MerchantAdded(merchant="new", title=""), "title"),
    (e.MerchantAdded(merchant="new", title="two\nlines"), "title"),
    (e.MerchantAdded(merchant="new", title="t" * 121), "title"),
    (e.StoreOpened(store="bar-1", merchant="bar", title="Again"), "store"),
    (e.StoreOpened(store="b_1", merchant="bar", title="Again"), "store"),
    (e.StoreOpened(store="new-1", merchant="nobody", title="New"), "merchant"),
    (e.AllianceDefined(alliance="West", merchants=("bar",)), "alliance"),
    (e.AllianceDefined(alliance="west", merchants=()), "merchants"),
    (e.AllianceDefined(alliance="west", merchants=("bar", "bar")), "merchants"),
    (e.AllianceDefined(alliance="west", merchants=("bar", "nobody")), "merchants[1]"),
    (created(7), "campaign"),
    (created(0), "campaign"),
    (created(2**32), "campaign"),
    (created(slug="noodles"), "slug"),
    (created(slug="closed"), "slug"),  # a name is never used again
    (created(slug="purged"), "slug"),
    (created(slug="123"), "slug"),
    (created(slug="Soup"), "slug"),
    (created(title=" blank"), "offer.title"),
    (created(kind="loan"), "offer.kind"),
    (created(value_minor=0), "offer.value_minor"),
    (created(value_minor=-1, kind="gift"), "offer.value_minor"),
    (created(value_minor=2**53), "offer.value_minor"),
    (created(currency="cny"), "offer.currency"),
    (created(currency="XXX"), "offer.currency"),
    (created(starts_ms=-1), "offer.starts_ms"),
    (created(ends_ms=10**15), "offer.ends_ms"),
    (created(ends_ms=NOW_MS), "offer.ends_ms"),
    (created(time_zone="Mars/Olympus"), "offer.time_zone"),
    (created(time_zone="../etc/passwd"), "offer.time_zone"),
    (created(time_zone="localtime"), "offer.time_zone"),
    (created(hours=(Hours((1,), 0, 1440), Hours((), 0, 60))), "offer.hours[1]"),
    (created(hours=(Hours((0,), 0, 60),)), "offer.hours[0]"),
    (created(hours=(Hours((8,), 0, 60),)), "offer.hours[0]"),
    (created(hours=(Hours((1, 1), 0, 60),)), "offer.hours[0]"),
    (created(hours=(Hours((1,), 60, 60),)), "offer.hours[0]"),
    (created(hours=(Hours((1,), -1, 60),)), "offer.hours[0]"),
    (created(hours=(Hours((1,), 0, 1441),)), "offer.hours[0]"),
    (created(hours=(Hours((1,), 0, 60),) * 65), "offer.hours"),
    (created(ends_ms=NOW_MS + 1000, hours=(Hours((7,), 0, 60),)), "offer.hours"),  # never open
    (created(stores=(), alliance=None), "offer.stores"),
    (created(stores=("bar-1", "bar-1")), "offer.stores"),
    (created(stores=("bar-1", "BAR")), "offer.stores[1]"),
    (created(stores=("bar-1", "nowhere")), "offer.stores[1]"),
    (created(stores=("bar-1",) * 10_001), "offer.stores"),
    (created(alliance="nobody"), "offer.alliance"),
    (created(alliance=""), "offer.alliance"),
    (created(funder="a\tb"), "offer.funder"),
    (created(channel="The App"), "offer.channel"),
    (created(dispute_ms=-1), "offer.dispute_ms"),
    (created(reversal_window_ms=-1), "offer.reversal_window_ms"),
    (created(reversal_window_ms=DAY_MS + 1, dispute_ms=DAY_MS), "offer.reversal_window_ms"),
    (created(offline=OfflinePolicy(-1, 0, 0)), "offer.offline.count_max"),
    (created(offline=OfflinePolicy(0, 2**53, 0)), "offer.offline.value_minor_max"),
    (created(offline=OfflinePolicy(0, 0, 10_081)), "offer.offline.minutes_max"),
    (e.CampaignPaused(campaign=12), "campaign"),
    (e.CampaignPaused(campaign=9), "campaign"),
    (e.CampaignPaused(campaign=10), "campaign"),
    (e.CampaignResumed(campaign=7), "campaign"),
    (e.CampaignResumed(campaign=10), "campaign"),
    (e.CampaignClosed(campaign=12), "campaign"),
    (e.CampaignClosed(campaign=10), "campaign"),
    (e.CampaignPurged(campaign=12), "campaign"),
    (e.CampaignPurged(campaign=7), "campaign"),
    (e.CampaignPurged(campaign=10), "campaign"),
    (e.CampaignPurged(campaign=11), "campaign"),
    (issued(101, 10, campaign=12), "campaign"),
    (issued(101, 10, campaign=10), "campaign"),
    (issued(101, 10, kind="drawn"), "kind"),
    (issued(101, 10, "r1"), "request_id"),
    (issued(101, 10, ""), "request_id"),
    (issued(101, 10, "r" * 65), "request_id"),
    (issued(100, 1), "first_serial"),
    (issued(100, 1, kind="foreign"), "first_serial"),  # serials are shared by all kinds
    (issued(0, 2), "first_serial"),
    (issued(0, 1000), "first_serial"),
    (issued(-1, 1), "first_serial"),
    (issued(2**40, 1), "first_serial"),
    (issued(2**40 - 1, 2), "count"),
    (issued(101, 0), "count"),
    (offered(0), "terminal"),
    (offered(2**32), "terminal"),
    (offered(5), "terminal"),  # enrolled
    (offered(4), "terminal"),  # revoked
    (offered(6, "bar-2"), "terminal"),  # offered to another store
    (offered(store="nowhere"), "store"),
    (offered(label=""), "label"),
    (offered(token_hash=b"j" * 32), "token_hash"),
    (offered(token_hash=b"short"), "token_hash"),
    (offered(expires_ms=NOW_MS), "expires_ms"),
    (offered(expires_ms=NOW_MS + 31 * DAY_MS), "expires_ms"),
    (enrolled(8), "terminal"),
    (enrolled(5), "terminal"),
    (enrolled(4), "terminal"),
    (enrolled(6, KEY), "public_key"),
    (enrolled(6, b"n" * 31), "public_key"),
    (e.TerminalRevoked(terminal=8), "terminal"),
    (e.TerminalRevoked(terminal=4), "terminal"),
    (e.TerminalLocked(terminal=4, until_ms=NOW_MS + 1), "terminal"),
    (e.TerminalLocked(terminal=5, until_ms=NOW_MS), "until_ms"),
    (e.TerminalLocked(terminal=5, until_ms=NOW_MS + LOCK_MS_MAX + 1), "until_ms"),
    (e.TerminalUnlocked(terminal=5), "terminal"),
    (token(token_id="t1"), "token_id"),
    (token(token_id="T"), "token_id"),
    (token(token_hash=HASH), "token_hash"),
    (token(token_hash=b""), "token_hash"),
    (token(label=""), "label"),
    (token(role="king"), "role"),
    (token(scope=""), "scope"),
    (token(scope="nobody"), "scope"),
    (token(role="admin", scope="bar"), "scope"),
    (token(role="channel", scope=""), "scope"),
    (token(role="terminal", scope="05"), "scope"),
    (token(role="terminal", scope="4"), "scope"),
    (e.TokenRevoked(token_id="t2"), "token_id"),
    (e.TokenRevoked(token_id="t0"), "token_id"),
    (e.KeyAdded(key_id=2), "key_id"),
    (e.KeyAdded(key_id=1), "key_id"),
    (e.KeyAdded(key_id=256), "key_id"),
    (e.KeyRetired(key_id=1), "key_id"),
    (e.KeyRetired(key_id=3), "key_id"),
    (e.IdReused(redemption_id=b"", first=(0, 1, 0), second=(0, 2, 0)), "redemption_id"),
    (e.IdReused(redemption_id=bytes(16), first=(0, 1, 0), second=(0, 1, 0)), "second"),
)


@pytest.mark.parametrize(("event", "field"), REJECTED, ids=str)
def test_rejected(event: ControlEvent, field: str) -> None:
    rejected = check(AFTER, (event,), now_ms=NOW_MS)
    assert rejected is not None
    assert rejected.field == field
    assert rejected.why


ACCEPTED: tuple[ControlEvent, ...] = (
    e.MerchantAdded(merchant="b" * 32, title="面馆"),
    e.StoreOpened(store="0-9", merchant="bar", title="New"),
    e.AllianceDefined(alliance="east", merchants=("bar",)),
    created(2**32 - 1),
    created(stores=()),
    created(alliance=None),
    created(kind="gift", value_minor=0),
    created(hours=(Hours((7,), 0, 1440),), time_zone="America/New_York"),
    created(offline=OfflinePolicy(0, 0, 0), funder="City of Example", channel="app"),
    e.CampaignPaused(campaign=7),
    e.CampaignResumed(campaign=9),
    e.CampaignClosed(campaign=9),
    issued(0, 1),
    issued(101, 1, "r1", campaign=9),
    issued(2**40 - 1, 1, kind="foreign"),
    offered(2**32 - 1),
    offered(6),  # a new token for a terminal that never used its first
    enrolled(6),
    e.TerminalRevoked(terminal=6),
    e.TerminalLocked(terminal=5, until_ms=NOW_MS + 1),
    token(role="terminal", scope="5"),
    token(role="channel", scope="app"),
    token(role="operator", scope=""),
    e.TokenRevoked(token_id="t1"),
    e.KeyAdded(key_id=0),
    e.KeyRetired(key_id=2),
)


@pytest.mark.parametrize("event", ACCEPTED, ids=str)
def test_accepted(event: ControlEvent) -> None:
    assert check(AFTER, (event,), now_ms=NOW_MS) is None


def test_a_purge_waits_for_the_end_of_the_dispute_period() -> None:
    purge, due_ms = e.CampaignPurged(campaign=10), NOW_MS + OFFER.dispute_ms
    early = check(AFTER, (purge,), now_ms=due_ms - 1)
    assert early is not None
    assert early.why == "the dispute period of closed ends in 1 h"
    assert check(AFTER, (purge,), now_ms=due_ms) is None


def test_an_enrolment_token_expires() -> None:
    assert check(AFTER, (enrolled(6),), now_ms=NOW_MS + 999) is None
    assert check(AFTER, (enrolled(6),), now_ms=NOW_MS + 1000) is not None


def test_only_a_lock_that_still_holds_can_be_lifted() -> None:
    locked = folded(*HISTORY, e.TerminalLocked(terminal=5, until_ms=NOW_MS + 100))
    unlock = e.TerminalUnlocked(terminal=5)
    assert check(locked, (unlock,), now_ms=NOW_MS + 99) is None
    assert check(locked, (unlock,), now_ms=NOW_MS + 100) is not None


def test_signed_vouchers_need_a_key_and_others_do_not() -> None:
    keyless = folded(*HISTORY, e.KeyRetired(key_id=2))
    assert check(keyless, (issued(101, 1),), now_ms=NOW_MS) is not None
    assert check(keyless, (issued(101, 1, kind="typed"),), now_ms=NOW_MS) is None


def test_events_written_together_build_on_each_other_and_name_the_wrong_one() -> None:
    shop = (
        e.MerchantAdded(merchant="grill", title="Grill"),
        e.StoreOpened(store="grill-1", merchant="grill", title="Grill One"),
        created(stores=("grill-1",)),
    )
    before = AFTER.copied()
    assert check(AFTER, shop, now_ms=NOW_MS) is None
    rejected = check(AFTER, (*shop, created(12, "soup")), now_ms=NOW_MS)
    assert rejected is not None
    assert rejected.field == "events[3].slug"
    assert before == AFTER  # trying out left no trace
    assert check(AFTER, (), now_ms=NOW_MS) is not None
