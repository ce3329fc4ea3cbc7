"""What may be lost by accepting offline: at worst, and by tills that are out of contact now. Pure.

A campaign's caps bound what one terminal has accepted and not settled, so the worst loss of a campaign is its terminals
times what one may accept: the smaller of the value cap and the count cap times a voucher's value. It is lost only if
every one of those vouchers was redeemed elsewhere as well.
"""

from collections.abc import Mapping, Set

import msgspec

from gateway.campaign import Campaign, is_eligible
from gateway.directory import Directory, Terminal
from gateway.offline_rules import is_granted, policy_of


class CampaignRisk(msgspec.Struct, frozen=True):
    """One campaign that allows offline acceptance. Money in minor units of `currency`."""

    campaign: str
    currency: str
    granted: bool  # tills may accept it from now on; else only those that were told before
    terminals: int  # enrolled, in stores that it is for
    count_max: int
    value_minor_max: int
    minutes_max: int
    terminal_minor: int  # what one terminal may lose
    worst_minor: int
    silent: int  # of the terminals, those out of contact now
    silent_minor: int  # what those may have accepted
    conflicts: int  # so far
    conflicts_minor: int  # and what they were worth


class Total(msgspec.Struct, frozen=True):
    """All campaigns of one currency."""

    currency: str
    worst_minor: int
    silent_minor: int
    conflicts_minor: int


class SilentTerminal(msgspec.Struct, frozen=True):
    """A terminal that is not connected to this gateway."""

    terminal: int
    store: str
    label: str
    since_ms: int  # when it left; 0: it was not here since this gateway started


class Exposure(msgspec.Struct, frozen=True):
    """`since_ms`: when this gateway started; it knows of no contact before."""

    at_ms: int
    since_ms: int
    campaigns: list[CampaignRisk]
    totals: list[Total]
    silent: list[SilentTerminal]


def exposure_of(
    directory: Directory, here: Set[int], left_ms: Mapping[int, int], *, since_ms: int, now_ms: int
) -> Exposure:
    """`here`: terminals that are connected; `left_ms`: when those that were here since `since_ms` left."""
    campaigns = [one for one in directory.campaigns.values() if policy_of(one) is not None and not one.purged]
    terminals = [one for one in directory.terminals.values() if one.public_key is not None and not one.revoked]
    risks, concerned = [], set()
    for campaign in campaigns:
        own = [one for one in terminals if is_eligible(campaign, directory.outlet(one.store))]
        silent = [one.number for one in own if one.number not in here]
        concerned.update(silent)
        risks.append(_risk(directory, campaign, len(own), len(silent), now_ms))
    rows = [_silent(directory.terminals[number], left_ms) for number in concerned]
    rows.sort(key=lambda row: (row.since_ms, row.terminal))
    return Exposure(now_ms, since_ms, risks, _totals(risks), rows)


def _risk(directory: Directory, campaign: Campaign, terminals: int, silent: int, now_ms: int) -> CampaignRisk:
    offer, policy = campaign.offer, policy_of(campaign)
    assert policy is not None
    one_minor = min(policy.value_minor_max, policy.count_max * offer.value_minor)
    conflicts = sum(event.campaign == campaign.number for event in directory.conflicts.values())
    return CampaignRisk(
        campaign=campaign.slug,
        currency=offer.currency,
        granted=is_granted(campaign, now_ms),
        terminals=terminals,
        count_max=policy.count_max,
        value_minor_max=policy.value_minor_max,
        minutes_max=policy.minutes_max,
        terminal_minor=one_minor,
        worst_minor=terminals * one_minor,
        silent=silent,
        silent_minor=silent * one_minor,
        conflicts=conflicts,
        conflicts_minor=conflicts * offer.value_minor,
    )


def _totals(risks: list[CampaignRisk]) -> list[Total]:
    return [
        Total(
            currency,
            sum(risk.worst_minor for risk in risks if risk.currency == currency),
            sum(risk.silent_minor for risk in risks if risk.currency == currency),
            sum(risk.conflicts_minor for risk in risks if risk.currency == currency),
        )
        for currency in sorted({risk.currency for risk in risks})
    ]


def _silent(terminal: Terminal, left_ms: Mapping[int, int]) -> SilentTerminal:
    return SilentTerminal(terminal.number, terminal.store, terminal.label, left_ms.get(terminal.number, 0))
