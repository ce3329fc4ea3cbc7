"""Which control events may be written: asked of the directory at the control head, just before the append.

The append names that head, so two gateways that check at once cannot both be right: one of them is refused by
the log, folds what it missed, and asks again.
"""

from collections.abc import Sequence
from typing import assert_never

import msgspec

from eventstore import events as e
from eventstore.events import Control, ControlEvent
from eventstore.log import PARTITIONS_MAX
from eventstore.offline_events import OfflineConflict
from gateway.campaign import CODE_KINDS, SIGNED, Campaign
from gateway.codes import CAMPAIGN_MAX, SERIAL_MAX
from gateway.directory import Directory, Rejected, Terminal
from gateway.offer_rules import check_offer, check_range, check_text_id, check_title
from gateway.roles import ROLES, Bound

TERMINAL_MAX = 2**32 - 1  # u32 in records
KEY_ID_MAX = 255  # one byte of a signed code
LOCK_MS_MAX = 86_400_000  # a lock is soft: longer than a day is a revocation
ENROLMENT_MS_MAX = 30 * 86_400_000  # a printed enrolment code that lies about longer is a risk, not a plan
MERCHANTS_MAX = 10_000  # of one alliance: the event stays below 400 kB
REQUEST_ID_CHARS_MAX = 64  # a UUID with dashes takes 36
HASH_BYTES = (16, 64)  # what blake2b may be asked for, and nothing weaker
PUBLIC_KEY_BYTES = 32  # Ed25519, RFC 8032


def check(directory: Directory, events: Sequence[ControlEvent], *, now_ms: int) -> Rejected | None:
    """Why these events may not be written together after what `directory` holds, or None if they may.

    Each is checked as if those before it had happened. Of several, the field says which: `events[3].slug`.
    """
    if not events:
        return Rejected("events", "there is nothing to write")
    trial = directory if len(events) == 1 else directory.copied()
    for index, event in enumerate(events):
        rejected = check_event(trial, event, now_ms=now_ms)
        if rejected is not None:
            return rejected if len(events) == 1 else _inside(f"events[{index}].", rejected)
        if len(events) > 1:
            trial.apply(Control("", (event,)), trial.control_seq + 1, now_ms)
    return None


def check_event(directory: Directory, event: ControlEvent, *, now_ms: int) -> Rejected | None:
    """Why this event may not be written after what `directory` holds, or None if it may."""
    match event:
        case e.DeploymentInitialised():
            return _check_deployment(directory, event)
        case e.MerchantAdded() | e.StoreOpened() | e.AllianceDefined():
            return _check_party(directory, event)
        case e.CampaignCreated():
            return _check_new_campaign(directory, event)
        case e.CampaignPaused() | e.CampaignResumed() | e.CampaignClosed() | e.CampaignPurged():
            campaign = directory.campaigns.get(event.campaign)
            return _check_campaign_step(campaign, event, now_ms) if campaign else _no_campaign(event.campaign)
        case e.VouchersIssued():
            return _check_issue(directory, event)
        case e.TerminalOffered():
            return _check_offered(directory, event, now_ms)
        case e.TerminalEnrolled() | e.TerminalRevoked() | e.TerminalLocked() | e.TerminalUnlocked():
            terminal = directory.terminals.get(event.terminal)
            if terminal is None:
                return Rejected("terminal", f"there is no terminal {event.terminal}")
            return _check_terminal_step(directory, terminal, event, now_ms)
        case e.TokenCreated():
            return _check_new_token(directory, event)
        case e.TokenRevoked():
            return _check_token_revoked(directory, event)
        case e.KeyAdded() | e.KeyRetired():
            return _check_key(directory, event)
        case e.IdReused():
            return _check_id_reused(event)
        case OfflineConflict():
            return _check_conflict(directory, event)
        case _:
            assert_never(event)


def _inside(prefix: str, rejected: Rejected) -> Rejected:
    return msgspec.structs.replace(rejected, field=prefix + rejected.field)


def _check_deployment(directory: Directory, event: e.DeploymentInitialised) -> Rejected | None:
    if directory.deployment is not None or directory.control_seq:
        return Rejected("deployment_id", "this deployment is initialised already")
    if not event.deployment_id:
        return Rejected("deployment_id", "is missing")
    return check_range("partitions", event.partitions, 1, PARTITIONS_MAX)


# --- merchants, stores, alliances ---------------------------------------------------------------------------


def _check_party(directory: Directory, event: e.MerchantAdded | e.StoreOpened | e.AllianceDefined) -> Rejected | None:
    match event:
        case e.MerchantAdded():
            rejected = check_text_id("merchant", event.merchant) or check_title("title", event.title)
            return rejected or _taken("merchant", event.merchant, event.merchant in directory.merchants)
        case e.StoreOpened():
            rejected = check_text_id("store", event.store) or check_title("title", event.title)
            rejected = rejected or _taken("store", event.store, event.store in directory.stores)
            return rejected or _check_merchant(directory, "merchant", event.merchant)
        case e.AllianceDefined():
            return check_text_id("alliance", event.alliance) or _check_members(directory, event.merchants)


def _taken(field: str, name: str, taken: bool) -> Rejected | None:
    return Rejected(field, f"{name} exists already") if taken else None


def _check_merchant(directory: Directory, field: str, merchant: str) -> Rejected | None:
    return None if merchant in directory.merchants else Rejected(field, f"there is no merchant {merchant!r}")


def _check_members(directory: Directory, merchants: tuple[str, ...]) -> Rejected | None:
    if not 1 <= len(merchants) <= MERCHANTS_MAX:
        return Rejected("merchants", f"name 1 to {MERCHANTS_MAX} merchants, not {len(merchants)}")
    if len(set(merchants)) < len(merchants):
        return Rejected("merchants", "a merchant is named twice")
    for index, merchant in enumerate(merchants):
        if rejected := _check_merchant(directory, f"merchants[{index}]", merchant):
            return rejected
    return None


# --- campaigns and issue ------------------------------------------------------------------------------------


def _check_new_campaign(directory: Directory, event: e.CampaignCreated) -> Rejected | None:
    if rejected := check_range("campaign", event.campaign, 1, CAMPAIGN_MAX):
        return rejected
    if event.campaign in directory.campaigns:
        return Rejected("campaign", f"number {event.campaign} is taken")
    if rejected := check_text_id("slug", event.slug):
        return rejected
    if event.slug.isdigit():
        return Rejected("slug", "must not be digits only: it would look like a campaign's number")
    if event.slug in directory.numbers:
        return Rejected("slug", f"{event.slug} is or was the name of campaign {directory.numbers[event.slug]}")
    rejected = check_offer(event.offer) or _check_offer_parties(directory, event.offer)
    return _inside("offer.", rejected) if rejected else None


def _check_offer_parties(directory: Directory, offer: e.Offer) -> Rejected | None:
    for index, store in enumerate(offer.stores):
        if store not in directory.stores:
            return Rejected(f"stores[{index}]", f"there is no store {store}")
    if offer.alliance is not None and offer.alliance not in directory.alliances:
        return Rejected("alliance", f"there is no alliance {offer.alliance}")
    return None


def _no_campaign(number: int) -> Rejected:
    return Rejected("campaign", f"there is no campaign {number}")


def _check_campaign_step(
    campaign: Campaign,
    event: e.CampaignPaused | e.CampaignResumed | e.CampaignClosed | e.CampaignPurged,
    now_ms: int,
) -> Rejected | None:
    if isinstance(event, e.CampaignPurged):
        return _check_purge(campaign, now_ms)
    if campaign.closed_ms is not None:
        return Rejected("campaign", f"{campaign.slug} is closed")
    if isinstance(event, e.CampaignPaused) and campaign.paused:
        return Rejected("campaign", f"{campaign.slug} is paused already")
    if isinstance(event, e.CampaignResumed) and not campaign.paused:
        return Rejected("campaign", f"{campaign.slug} is not paused")
    return None


def _check_purge(campaign: Campaign, now_ms: int) -> Rejected | None:
    if campaign.purged:
        return Rejected("campaign", f"{campaign.slug} is purged already")
    if campaign.closed_ms is None:
        return Rejected("campaign", f"{campaign.slug} is not closed")
    wait_ms = campaign.closed_ms + campaign.offer.dispute_ms - now_ms
    if wait_ms > 0:
        hours = -(-wait_ms // 3_600_000)
        return Rejected("campaign", f"the dispute period of {campaign.slug} ends in {hours} h")
    return None


def _check_issue(directory: Directory, event: e.VouchersIssued) -> Rejected | None:
    campaign = directory.campaigns.get(event.campaign)
    if campaign is None:
        return _no_campaign(event.campaign)
    if campaign.closed_ms is not None:
        return Rejected("campaign", f"{campaign.slug} is closed")
    if event.kind not in CODE_KINDS:
        return Rejected("kind", f"must be one of {', '.join(CODE_KINDS)}")
    if event.kind == SIGNED and not directory.live_keys:
        return Rejected("kind", "no signing key is in use; add one first")
    return _check_request_id(directory, event) or _check_span(campaign, event.first_serial, event.count)


def _check_request_id(directory: Directory, event: e.VouchersIssued) -> Rejected | None:
    request_id = event.request_id
    if not (0 < len(request_id) <= REQUEST_ID_CHARS_MAX and request_id.isprintable()):
        return Rejected("request_id", f"must be 1 to {REQUEST_ID_CHARS_MAX} printable characters")
    if earlier := directory.issued_as(event.campaign, request_id):
        return Rejected("request_id", f"issued serials {earlier.first_serial} and on, {earlier.count} in all")
    return None


def _check_span(campaign: Campaign, first_serial: int, count: int) -> Rejected | None:
    rejected = check_range("first_serial", first_serial, 0, SERIAL_MAX) or check_range(
        "count", count, 1, SERIAL_MAX + 1 - first_serial
    )
    if rejected is None and any(campaign.issued(kind).overlaps(first_serial, count) for kind in CODE_KINDS):
        return Rejected("first_serial", f"some serials of {first_serial} + {count} are issued already")
    return rejected


# --- terminals ----------------------------------------------------------------------------------------------


def _check_offered(directory: Directory, event: e.TerminalOffered, now_ms: int) -> Rejected | None:
    if rejected := check_range("terminal", event.terminal, 1, TERMINAL_MAX) or check_title("label", event.label):
        return rejected
    if event.store not in directory.stores:
        return Rejected("store", f"there is no store {event.store!r}")
    earlier = directory.terminals.get(event.terminal)
    if earlier and (earlier.public_key or earlier.revoked or earlier.store != event.store):
        return Rejected("terminal", f"number {event.terminal} is taken")
    if event.token_hash in directory.enrolments:
        return Rejected("token_hash", "this enrolment token is in use")
    rejected = check_range("token_hash", len(event.token_hash), *HASH_BYTES)
    return rejected or check_range("expires_ms", event.expires_ms, now_ms + 1, now_ms + ENROLMENT_MS_MAX)


def _check_terminal_step(
    directory: Directory,
    terminal: Terminal,
    event: e.TerminalEnrolled | e.TerminalRevoked | e.TerminalLocked | e.TerminalUnlocked,
    now_ms: int,
) -> Rejected | None:
    if terminal.revoked:
        return Rejected("terminal", f"terminal {terminal.number} is revoked")
    match event:
        case e.TerminalEnrolled():
            return _check_enrolled(directory, terminal, event.public_key, now_ms)
        case e.TerminalLocked():
            return check_range("until_ms", event.until_ms, now_ms + 1, now_ms + LOCK_MS_MAX)
        case e.TerminalUnlocked() if terminal.locked_until_ms <= now_ms:
            return Rejected("terminal", f"terminal {terminal.number} is not locked")
        case _:
            return None


def _check_enrolled(directory: Directory, terminal: Terminal, public_key: bytes, now_ms: int) -> Rejected | None:
    if terminal.public_key is not None:
        return Rejected("terminal", f"terminal {terminal.number} is enrolled already")
    if now_ms >= terminal.token_expires_ms:
        return Rejected("terminal", "the enrolment token has expired; ask for a new one")
    if len(public_key) != PUBLIC_KEY_BYTES:
        return Rejected("public_key", f"must be {PUBLIC_KEY_BYTES} bytes, is {len(public_key)}")
    if any(other.public_key == public_key for other in directory.terminals.values()):
        return Rejected("public_key", "belongs to another terminal: each device makes its own key")
    return None


# --- tokens, keys, notes ------------------------------------------------------------------------------------


def _check_new_token(directory: Directory, event: e.TokenCreated) -> Rejected | None:
    if rejected := check_text_id("token_id", event.token_id) or check_title("label", event.label):
        return rejected
    if event.token_id in directory.token_hashes:
        return Rejected("token_id", f"{event.token_id} exists already")
    if event.token_hash in directory.tokens:
        return Rejected("token_hash", "this token exists already")
    rejected = check_range("token_hash", len(event.token_hash), *HASH_BYTES)
    return rejected or _check_scope(directory, event.role, event.scope)


def _check_scope(directory: Directory, role: str, scope: str) -> Rejected | None:
    if role not in ROLES:
        return Rejected("role", f"must be one of {', '.join(ROLES)}")
    match ROLES[role].bound:
        case Bound.MERCHANT:
            return _check_merchant(directory, "scope", scope)
        case Bound.CHANNEL:
            return check_text_id("scope", scope)
        case Bound.TERMINAL:
            known = any(str(number) == scope and not t.revoked for number, t in directory.terminals.items())
            return None if known else Rejected("scope", f"there is no terminal {scope!r} in use")
        case Bound.NOTHING:
            return Rejected("scope", f"must be empty: {role} sees the whole deployment") if scope else None


def _check_token_revoked(directory: Directory, event: e.TokenRevoked) -> Rejected | None:
    token_hash = directory.token_hashes.get(event.token_id)
    if token_hash is None:
        return Rejected("token_id", f"there is no token {event.token_id!r}")
    if directory.tokens[token_hash].revoked:
        return Rejected("token_id", f"{event.token_id} is revoked already")
    return None


def _check_key(directory: Directory, event: e.KeyAdded | e.KeyRetired) -> Rejected | None:
    live, retired = event.key_id in directory.live_keys, event.key_id in directory.retired_keys
    if isinstance(event, e.KeyRetired):
        return None if live else Rejected("key_id", f"key {event.key_id} is not in use")
    if live or retired:
        return Rejected("key_id", f"key {event.key_id} {'is' if live else 'was'} in use; ids are never reused")
    return check_range("key_id", event.key_id, 0, KEY_ID_MAX)


def _check_id_reused(event: e.IdReused) -> Rejected | None:
    if len(event.redemption_id) != len(e.NO_ID):
        return Rejected("redemption_id", f"must be {len(e.NO_ID)} bytes")
    return Rejected("second", "names the same place as the first") if event.first == event.second else None


def _check_conflict(directory: Directory, event: OfflineConflict) -> Rejected | None:
    if event.campaign not in directory.campaigns:
        return _no_campaign(event.campaign)
    if event.redemption_id in directory.conflicts:
        return Rejected("redemption_id", "this conflict is written already")
    return None
