"""What a redemption would be told now, without making one. Guessing by preview counts like guessing by scan."""

import msgspec

from eventstore.vouchers import ENTRY_BYTES, REDEEMED, VOIDED
from gateway.codes import Refused
from gateway.desk import Desk
from gateway.directory import Terminal
from gateway.identity import Spot
from gateway.messages import Verdict
from gateway.redeem import Redeemer


class Previewed(msgspec.Struct, frozen=True):
    """What a redemption would be told now."""

    verdict: Verdict
    spot: Spot | None = None
    entry: bytes | None = None
    note: str | None = None


async def preview(desk: Desk, redeemer: Redeemer, terminal: Terminal, code: str) -> Previewed:
    """Changes nothing, except that unknown and forged codes count. Raises ArbiterLost, ArbiterRefused."""
    named = await desk.identify(code)
    if named is None:
        return Previewed(Verdict.UNRESOLVED)
    if isinstance(named, Refused):
        if redeemer.is_locked(terminal):
            return Previewed(Verdict.TERMINAL_LOCKED)
        if named.verdict is not Verdict.UNREADABLE:
            redeemer.count_guess(terminal, redeemer.ring.tag(code).to_bytes(8, "big"))
        return Previewed(named.verdict, note=named.why if named.verdict is Verdict.UNREADABLE else None)
    verdict = redeemer.judge(terminal, named)
    value = await desk.value(named.campaign, named.serial)
    if value[:1] in (REDEEMED, VOIDED):
        held = Verdict.ALREADY_REDEEMED if value[:1] == REDEEMED else Verdict.VOIDED
        if verdict is Verdict.ACCEPTED or held < verdict:
            return Previewed(held, named, value[:ENTRY_BYTES])
    return Previewed(verdict, named)
