"""May this till accept this voucher while it has no connection? Pure.

Theory of operation. While it is connected a till is given a grant: public keys, and for each campaign that allows it
caps, hours and issued serials. A cap bounds what this till has accepted of a campaign and the gateway has not settled
yet, so a line that comes and goes resets nothing. What time it is, is the gateway's time at the last contact and what
has passed since by a clock that nobody sets (CLOCK_BOOTTIME). Over a reboot only the wall clock is left; where that
cannot be right, nothing is accepted. Every refusal is a reason with words of its own (offline_words).
"""

import enum
import re
from collections.abc import Sequence

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from devices.records import OfflineAccepted, Record
from gateway.messages import OFFLINE_CONTEXT, Grant, OfflineOffer

CLOCK_OFF_MS_MAX = 300_000  # a wall clock that was this wrong while there was a gateway is not asked after a reboot
SIGNATURE_BYTES = 64
_FOLD_WIDTH = {0xFF01 + n: 0x21 + n for n in range(94)}
# A signed code of ours, with or without the signature that makes it an offline one (gateway.offline_codes).
_is_code = re.compile(r"(T1([0-9A-V]{32}))(?:\.([0-9A-V]{103}))?").fullmatch
_identifier = re.compile(r"\A\][A-Za-z][0-9A-F](?:\\[0-9]{6})?")


class Why(enum.StrEnum):
    """Why a scan was not accepted offline; each is a text's key."""

    USED_HERE = "offline_used_here"
    NOT_VERIFIABLE = "offline_not_verifiable"
    STRANGE_KEY = "offline_strange_key"
    BAD_SIGNATURE = "offline_bad_signature"
    NOT_ALLOWED = "offline_not_allowed"
    NOT_ISSUED = "offline_not_issued"
    CLOCK = "offline_clock"
    TOO_LONG = "offline_too_long"
    EXPIRED = "offline_expired"
    NOT_NOW = "offline_not_now"
    COUNT = "offline_count"
    VALUE = "offline_value"


class Code(msgspec.Struct, frozen=True):
    """What a text of ours spells. Nothing of it is checked yet."""

    key_id: int
    campaign: int
    serial: int
    signed: bytes  # what the signature is over
    signature: bytes  # empty: it has none

    @property
    def voucher(self) -> bytes:
        return self.campaign.to_bytes(4, "big") + self.serial.to_bytes(5, "big")


class Contact(msgspec.Struct, array_like=True, frozen=True):
    """What was known of the time when a gateway last told it, and when one was last heard of."""

    server_ms: int  # the gateway's clock at the moment of the other three
    wall_ms: int
    boot_ms: int  # since the machine started
    boot: str  # which start of the machine
    heard_ms: int  # the newest sign of a gateway, by the gateway's clock


class Now(msgspec.Struct, frozen=True):
    """This machine's clocks."""

    wall_ms: int
    boot_ms: int
    boot: str


class Refusal(msgspec.Struct, frozen=True):
    """`words`: numbers for the cashier, the same in every language."""

    why: Why
    words: str = ""


def code_of(text: str) -> Code | None:
    """What a scanned text spells, if it is a signed code of ours."""
    text = _identifier.sub("", text.translate(_FOLD_WIDTH).strip()).strip().upper()
    found = _is_code(text)
    if found is None:
        return None
    number = int(found[2], 32)
    spelled = int(found[3], 32) if found[3] else 0
    if spelled >> 8 * SIGNATURE_BYTES:
        return None
    signature = spelled.to_bytes(SIGNATURE_BYTES, "big") if found[3] else b""
    named = number >> 80
    return Code(named >> 72, named >> 40 & (1 << 32) - 1, named & (1 << 40) - 1, found[1].encode(), signature)


def time_of(contact: Contact, now: Now, newest_scan_ms: int) -> int | None:
    """The gateway's time now; None when this machine cannot know it. `newest_scan_ms`: of the journal, wall clock."""
    if now.boot == contact.boot:
        return contact.server_ms + max(0, now.boot_ms - contact.boot_ms)
    was_wrong = abs(contact.server_ms - contact.wall_ms) > CLOCK_OFF_MS_MAX
    is_behind = now.wall_ms < max(contact.wall_ms, newest_scan_ms)
    return None if was_wrong or is_behind else contact.server_ms + now.wall_ms - contact.wall_ms


def judge(
    code: Code | None,
    grant: Grant,
    contact: Contact,
    now_ms: int | None,
    *,
    given: Record | None,
    untold: Sequence[OfflineAccepted],
) -> OfflineOffer | Refusal:
    """The offer under which a code may be accepted at the gateway's time `now_ms` (None: it is not known), or why not.

    `given`: the redemption for which this till gave this voucher's value before; `untold`: what it has accepted of the
    same campaign and not settled.
    """
    if given is not None:
        return Refusal(Why.USED_HERE)
    offer = _genuine(code, grant)
    if isinstance(offer, Refusal):
        return offer
    if now_ms is None:
        return Refusal(Why.CLOCK)
    return _in_time(offer, grant, contact, now_ms) or _within_caps(offer, untold) or offer


def _genuine(code: Code | None, grant: Grant) -> OfflineOffer | Refusal:
    if code is None or not code.signature:
        return Refusal(Why.NOT_VERIFIABLE)
    public_key = grant.keys.get(code.key_id)
    if public_key is None:
        return Refusal(Why.STRANGE_KEY)
    if not _is_signed(code, public_key):
        return Refusal(Why.BAD_SIGNATURE)
    offer = next((one for one in grant.offers if one.campaign == code.campaign), None)
    if offer is None:
        return Refusal(Why.NOT_ALLOWED)
    if not any(start <= code.serial < end for start, end in offer.issued):
        return Refusal(Why.NOT_ISSUED)
    return offer


def _is_signed(code: Code, public_key: bytes) -> bool:
    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(code.signature, OFFLINE_CONTEXT + code.signed)
    except (InvalidSignature, ValueError):  # ValueError: a public key that is none
        return False
    return True


def _in_time(offer: OfflineOffer, grant: Grant, contact: Contact, now_ms: int) -> Refusal | None:
    minutes = max(0, now_ms - contact.heard_ms) // 60_000
    if now_ms - contact.heard_ms > offer.minutes_max * 60_000 or now_ms >= grant.until_ms:
        return Refusal(Why.TOO_LONG, f"{minutes} / {offer.minutes_max} min")
    if any(start <= now_ms < end for start, end in offer.opens):
        return None
    is_over = not any(now_ms < start for start, _ in offer.opens)
    return Refusal(Why.EXPIRED if is_over else Why.NOT_NOW)


def _within_caps(offer: OfflineOffer, untold: Sequence[OfflineAccepted]) -> Refusal | None:
    if len(untold) >= offer.count_max:
        return Refusal(Why.COUNT, f"{len(untold)} / {offer.count_max}")
    value_minor = sum(fact.value_minor for fact in untold) + offer.value_minor
    return Refusal(Why.VALUE) if value_minor > offer.value_minor_max else None
