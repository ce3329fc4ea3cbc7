"""Offline acceptance: what a till may accept while it has no connection, and what an acceptance broke. Pure.

A grant is what tills of one store are told while they are connected: public keys, and for each campaign that allows it
the caps, the hours and the serials. A campaign's caps bound, for one terminal, what it has accepted and not yet
settled, so at no time is more at risk than terminals times caps.

An acceptance has happened, so no rule here refuses one. What it broke is logged with it, in these words:

    terminal_revoked  its terminal was revoked before it was told
    not_signed        its code carries no right signature, so the till could not know it was genuine
    not_allowed       its campaign allows none
    not_eligible      its campaign is not for this store
    outside_window    at a time at which window or hours allow no redemption, or after the campaign was closed
    beyond_count, beyond_value, beyond_minutes   the caps
    clock             accepted before the last contact, or in the future
"""

import msgspec

from eventstore.offline_events import OfflinePolicy
from gateway.campaign import Campaign, Outlet, is_eligible, is_open, openings
from gateway.directory import Directory
from gateway.messages import Fact, Grant, OfflineOffer
from gateway.money import money_text

RENEW_MS = 3_600_000  # connected tills are told anew at least so often
CLOCK_MS_MAX = 120_000  # how far a till's idea of the gateway's time may be ahead
# A grant is one message, and a till reads no more than 256 KiB: 64 offers of 64 pairs twice are 150 KiB.
OFFERS_MAX = 64  # the newest: a till that takes more kinds of voucher at once has not been seen
SPANS_MAX = 64  # of serials; ranges are issued side by side, so more than a few are odd
OPENS_MAX = 64  # stretches of hours: three a day for three weeks
MINUTE_MS = 60_000


class Outage(msgspec.Struct):
    """What one terminal has settled on one connection, by campaign: more than the caps was never allowed at once."""

    counts: dict[int, int] = {}
    values: dict[int, int] = {}

    def add(self, campaign: int, value_minor: int) -> None:
        self.counts[campaign] = self.counts.get(campaign, 0) + 1
        self.values[campaign] = self.values.get(campaign, 0) + value_minor


def policy_of(campaign: Campaign) -> OfflinePolicy | None:
    """The campaign's policy, if any terminal may accept anything under it; a cap at 0 allows nothing."""
    policy = campaign.offer.offline
    if policy is None or not (policy.count_max and policy.value_minor_max and policy.minutes_max):
        return None
    return policy


def is_granted(campaign: Campaign, now_ms: int) -> bool:
    """Whether tills may accept this campaign offline from now on."""
    open_still = not campaign.paused and campaign.closed_ms is None and now_ms < campaign.offer.ends_ms
    return open_still and policy_of(campaign) is not None and bool(campaign.signed.starts)


def grant_of(directory: Directory, store: str, keys: dict[int, bytes], now_ms: int) -> Grant:
    """What the tills of a store may accept offline from now on."""
    outlet = directory.outlet(store)
    campaigns = [one for one in directory.campaigns.values() if is_granted(one, now_ms) and is_eligible(one, outlet)]
    minutes = max((one.offer.offline.minutes_max for one in campaigns if one.offer.offline), default=0)
    until_ms = now_ms + minutes * MINUTE_MS + RENEW_MS
    return Grant(now_ms, until_ms, keys, [_offer_of(one, now_ms, until_ms) for one in campaigns[-OFFERS_MAX:]])


def _offer_of(campaign: Campaign, now_ms: int, until_ms: int) -> OfflineOffer:
    offer, policy = campaign.offer, campaign.offer.offline
    assert policy is not None
    spans = list(zip(campaign.signed.starts, campaign.signed.ends, strict=True))
    if len(spans) > SPANS_MAX:  # the signature says as much; this says it of whole numbers only
        spans = [(spans[0][0], spans[-1][1])]
    value = f", {money_text(offer.value_minor, offer.currency)}" if offer.value_minor else ""
    return OfflineOffer(
        campaign=campaign.number,
        offer=offer.title + value,
        value_minor=offer.value_minor,
        currency=offer.currency,
        opens=openings(offer, now_ms, until_ms)[:OPENS_MAX],
        issued=spans,
        count_max=policy.count_max,
        value_minor_max=policy.value_minor_max,
        minutes_max=policy.minutes_max,
    )


def is_same(one: Grant, other: Grant) -> bool:
    """Whether two grants allow the same, but for how long they are good."""
    return msgspec.structs.replace(one, server_ms=0, until_ms=0, offers=_timeless(one)) == msgspec.structs.replace(
        other, server_ms=0, until_ms=0, offers=_timeless(other)
    )


def _timeless(grant: Grant) -> list[OfflineOffer]:
    return [msgspec.structs.replace(offer, opens=[]) for offer in grant.offers]


def breaches(
    campaign: Campaign, outlet: Outlet, fact: Fact, before: Outage, *, revoked: bool, signed: bool, now_ms: int
) -> tuple[str, ...]:
    """What an acceptance broke, in the order of the table above. `before`: what this connection brought already."""
    offer, policy = campaign.offer, policy_of(campaign)
    in_time = offer.starts_ms <= fact.accepted_ms < offer.ends_ms and is_open(offer, _sane(fact.accepted_ms))
    closed = campaign.closed_ms is not None and campaign.closed_ms <= fact.contact_ms
    count = before.counts.get(campaign.number, 0) + 1
    value = before.values.get(campaign.number, 0) + offer.value_minor
    offline_ms = fact.accepted_ms - fact.contact_ms
    found = {
        "terminal_revoked": revoked,
        "not_signed": not signed,
        "not_allowed": policy is None,
        "not_eligible": not is_eligible(campaign, outlet),
        "outside_window": not in_time or closed,
        "beyond_count": policy is not None and count > policy.count_max,
        "beyond_value": policy is not None and value > policy.value_minor_max,
        "beyond_minutes": policy is not None and offline_ms > policy.minutes_max * MINUTE_MS,
        "clock": offline_ms < 0 or fact.accepted_ms > now_ms + CLOCK_MS_MAX,
    }
    return tuple(name for name, broken in found.items() if broken)


def _sane(moment_ms: int) -> int:
    """A till's number as a moment that a calendar has."""
    return min(max(moment_ms, 0), 4_102_444_800_000)
