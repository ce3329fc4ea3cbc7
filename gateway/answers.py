"""What an integrator's till is told, built from what the log recorded. Pure.

The text of an answer depends on little more than its verdict, so texts are kept by what they depend on; only an answer
that names a moment (when somebody else redeemed the voucher) is worded anew.
"""

import functools

from eventstore.events import Offer
from gateway.campaign import Campaign, is_eligible, next_legal_ms
from gateway.directory import Directory, Terminal
from gateway.messages import PUBLIC, Answer, Position, Verdict, Winner
from gateway.money import money_text
from gateway.texts import cashier_text, moment_text, reversal_text

TEXTS_KEPT_MAX = 1024  # one for each verdict and each campaign's value: more campaigns than run at once
NO_ANSWER = int(Verdict.UNRESOLVED)
_REVERSED_BYTES = (Verdict.ACCEPTED, Verdict.TOMBSTONED, Verdict.REPEATED)  # of a reversal: it took effect
_TAKEN = (Verdict.ALREADY_REDEEMED, Verdict.CONFLICT)  # the ones that have a winner
_HIDE_VOUCHER = (Verdict.UNKNOWN_CODE, Verdict.UNREADABLE, Verdict.ID_REUSED, Verdict.TERMINAL_LOCKED)
_KIND_REDEEMED = ord("R")


def public_verdict(byte: int) -> Verdict:
    """What is told for a logged byte."""
    public = PUBLIC[byte]
    assert public is not None, f"verdict byte {byte}"
    return public


def winner_of(directory: Directory, entry: bytes | None) -> Winner | None:
    """Who redeemed a voucher, from the entry that stands in the way (eventstore.vouchers has its layout).

    None for a void: that was no till's doing.
    """
    if entry is None or entry[0] != _KIND_REDEEMED:
        return None
    return winner_at(directory, int.from_bytes(entry[17:21], "big"), int.from_bytes(entry[21:27], "big"))


def winner_at(directory: Directory, number: int, at_ms: int) -> Winner | None:
    """A redemption at terminal `number`, the terminal masked to its last two digits."""
    terminal = directory.terminals.get(number)
    return None if terminal is None else Winner(terminal.store, f"*{number % 100:02d}", at_ms)


def note_of(verdict: Verdict, offer: Offer, at_ms: int) -> str | None:
    """The moment that goes with a refusal at `at_ms`, in the campaign's time zone."""
    match verdict:
        case Verdict.NOT_YET_VALID | Verdict.OUTSIDE_HOURS:
            moment_ms = next_legal_ms(offer, at_ms)
        case Verdict.EXPIRED:
            moment_ms = offer.ends_ms
        case _:
            return None
    return None if moment_ms is None else moment_text(moment_ms, offer.time_zone)


@functools.lru_cache(maxsize=TEXTS_KEPT_MAX)
def _accepted_texts(value_minor: int, currency: str) -> tuple[str, str]:
    value = money_text(value_minor, currency)
    accepted = Verdict.ACCEPTED
    return cashier_text(accepted, "en", value=value), cashier_text(accepted, "zh", value=value)


@functools.cache
def _plain_texts(verdict: Verdict) -> tuple[str, str]:
    return cashier_text(verdict, "en"), cashier_text(verdict, "zh")


@functools.cache
def _reversal_texts(verdict: Verdict) -> tuple[str, str]:
    return reversal_text(verdict, "en"), reversal_text(verdict, "zh")


def accepted(redemption_id: str, campaign: Campaign, serial: int, at_ms: int, position: Position | None) -> Answer:
    """The answer of a redemption that stands."""
    offer = campaign.offer
    text_en, text_zh = _accepted_texts(offer.value_minor, offer.currency)
    return Answer(
        redemption_id=redemption_id,
        verdict="accepted",
        text_en=text_en,
        text_zh=text_zh,
        at_ms=at_ms,
        position=position,
        voucher_id=f"{campaign.number}-{serial}",
        campaign=campaign.slug,
        value_minor=offer.value_minor,
        currency=offer.currency,
    )


def refused(
    redemption_id: str,
    byte: int,
    *,
    at_ms: int,
    position: Position | None,
    directory: Directory,
    terminal: Terminal,
    named: tuple[int, int] | None,
    winner: Winner | None,
    note: str | None,
) -> Answer:
    """The answer of a redemption that did not take effect, or no longer stands.

    `named` is the (campaign, serial) of a genuine code. It and the `winner` are told only where the campaign is valid
    in the asker's store and the verdict admits that the code is one: a till learns nothing of vouchers not for it.
    """
    verdict = public_verdict(byte)
    campaign = directory.campaigns.get(named[0]) if named and verdict not in _HIDE_VOUCHER else None
    zone = "UTC" if campaign is None else campaign.offer.time_zone
    if verdict is Verdict.TERMINAL_LOCKED:
        note = moment_text(terminal.locked_until_ms, zone) if terminal.locked_until_ms > at_ms else None
    elif campaign is not None and note is None:
        note = note_of(verdict, campaign.offer, at_ms)
    shown = campaign if campaign and is_eligible(campaign, directory.outlet(terminal.store)) else None
    winner = winner if shown and verdict in _TAKEN else None
    text_en, text_zh = _texts(verdict, winner, note, zone)
    return Answer(
        redemption_id=redemption_id,
        verdict=verdict.name.lower(),
        text_en=text_en,
        text_zh=text_zh,
        at_ms=at_ms,
        position=position,
        voucher_id=f"{shown.number}-{named[1]}" if shown and named else None,
        campaign=shown.slug if shown else None,
        winner=winner,
        note=note,
    )


def _texts(verdict: Verdict, winner: Winner | None, note: str | None, zone: str) -> tuple[str, str]:
    if winner is None and note is None:
        return _plain_texts(verdict)
    return (
        cashier_text(verdict, "en", winner=winner, note=note, time_zone=zone),
        cashier_text(verdict, "zh", winner=winner, note=note, time_zone=zone),
    )


def unresolved(redemption_id: str) -> Answer:
    """Nothing is known: the same request, with the same id, may be sent again."""
    text_en, text_zh = _plain_texts(Verdict.UNRESOLVED)
    return Answer(redemption_id, "unresolved", retry=True, text_en=text_en, text_zh=text_zh)


def reversal(redemption_id: str, byte: int, *, at_ms: int, position: Position | None, note: str | None) -> Answer:
    """The answer to a reversal that was asked for; `byte` is what its own record got."""
    undone = byte in _REVERSED_BYTES
    verdict = Verdict.REVERSED if undone else public_verdict(byte)
    # What undid a redemption and what came before it are told apart in words only.
    worded = Verdict.ACCEPTED if undone and byte != Verdict.TOMBSTONED else verdict
    text_en, text_zh = _reversal_texts(worded)
    return Answer(
        redemption_id=redemption_id,
        verdict=verdict.name.lower(),
        text_en=text_en,
        text_zh=text_zh,
        at_ms=at_ms,
        position=position,
        note=note,
    )
