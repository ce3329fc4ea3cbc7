"""What the claim function says of one record, and what a record that took effect makes of a voucher's value."""

REDEEM, REVERSE, VOID, IMPORT = 1, 2, 3, 4
APPLIED, TOMBSTONED, REPEATED, REVERSED, CONFLICT, CONFLICT_AGAIN = 0, 1, 2, 3, 4, 6
VOIDED, ALREADY_REDEEMED, TOO_MANY, DUPLICATE = 20, 21, 22, 43
ENTRY = 32
FULL = 10 * ENTRY
CONFLICTS_FULL = 256 * ENTRY


def judge(op: int, static: int, record: bytes, value: bytes | None) -> tuple[int, bytes]:
    """(verdict, the entry to tell of or nothing)."""
    if op == IMPORT:
        if value is None:
            return APPLIED, b""
        return (REPEATED if value[:4] == record[4:8] else DUPLICATE), b""
    value = value or b""
    rows = [value[at : at + ENTRY] for at in range(0, len(value), ENTRY)]
    mine = next((row for row in rows if row[1:17] == record[32:48]), b"")
    if op == REVERSE:
        if mine and mine[:1] != b"R":
            return REPEATED, mine
        if static:
            return static, b""
        if mine:
            return APPLIED, b""
        return (TOO_MANY if len(value) >= FULL else TOMBSTONED), b""
    is_held = bool(rows) and rows[0][:1] in b"RV"
    if mine[:1] == b"c":
        return CONFLICT_AGAIN, (rows[0] if is_held else mine)
    if mine:
        return (REPEATED if mine[:1] in b"RV" else REVERSED), mine
    if op == REDEEM and static == CONFLICT:
        return (CONFLICT, rows[0]) if is_held else (APPLIED, b"")
    if is_held:
        verdict = ALREADY_REDEEMED if rows[0][:1] == b"R" else VOIDED
        return (static, b"") if 0 < static < verdict else (verdict, rows[0])
    if 0 < static < TOO_MANY:
        return static, b""
    return (TOO_MANY if len(value) >= FULL else static), b""


def effect(op: int, verdict: int, record: bytes, value: bytes, stamp: bytes) -> bytes | None:
    """The value afterwards; None: as it was."""
    if op == IMPORT:
        return record[4:16] if verdict == APPLIED else None
    who = record[32:52] + stamp
    if verdict == CONFLICT and op == REDEEM and len(value) < CONFLICTS_FULL:
        return value + b"c" + who
    if verdict > TOMBSTONED:
        return None
    if op == REDEEM:
        return b"R" + who + value
    if op == VOID:
        return b"V" + who + value
    if verdict == TOMBSTONED:
        return value + b"t" + who
    return value[ENTRY:] + b"r" + value[1:21] + stamp
