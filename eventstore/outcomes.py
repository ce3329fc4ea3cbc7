"""What was asked and what came of it, as one number (`kind`) and as one word. Pure."""

from eventstore.events import IMPORT, REDEEM, REVERSE, VOID

HOUR_MS = 3_600_000
Cell = tuple[str, int, int]  # store, campaign, kind: what counts are kept by


def kind_of(op: int, verdict: int) -> int:
    """The number a cell keeps for what was asked and what came of it."""
    return op << 8 | verdict


def outcome_of(kind: int) -> str:
    """redeemed | repeated | refused, of a redemption; reversed | voided | imported; denied for what else failed."""
    op, verdict = kind >> 8, kind & 255
    if op == REDEEM:
        return {0: "redeemed", 2: "repeated"}.get(verdict, "refused")
    if verdict > 1:
        return "denied"
    return {REVERSE: "reversed" if verdict == 0 else "tombstoned", VOID: "voided", IMPORT: "imported"}.get(op, "denied")


OUTCOMES = {kind_of(op, verdict): outcome_of(kind_of(op, verdict)) for op in range(1, 5) for verdict in range(256)}
