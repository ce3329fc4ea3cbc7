"""HTTP bodies of the tills' routes as the values the core takes; a fault is a Problem that names its field."""

import re

from gateway.desk import REASON_CHARS_MAX
from gateway.http_gate import bad
from gateway.identity import SCANNED_MS_END, fault_of
from gateway.messages import ID_BYTES, Redeem, RedemptionRequest, ReversalRequest, Reverse

_SCANNED, _TYPED = 1, 2
_dashed = re.compile(r"[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}").fullmatch


def id_of(text: str, field: str) -> bytes:
    """16 bytes of 32 hex digits, or of a UUID with dashes. Raises Problem 400."""
    if len(text) == 36 and _dashed(text):
        text = text.replace("-", "")
    if len(text) == 32:
        try:
            raw = bytes.fromhex(text)
        except ValueError:
            raw = b""
        if len(raw) == ID_BYTES:  # fromhex skips blanks
            return raw
    raise bad(field, "must be 32 hex digits, or a UUID with dashes")


def scan_of(body: RedemptionRequest, inside: str = "") -> Redeem:
    """The scan a body describes. Raises Problem 400."""
    entry = _TYPED if body.typed else _SCANNED
    redemption_id = id_of(body.redemption_id, inside + "redemption_id")
    scan = Redeem(redemption_id, body.code, body.scanned_ms, entry, body.merchant_ref, body.cashier_ref)
    fault = fault_of(scan)
    if fault is not None:
        raise bad(inside + fault.partition(" ")[0], fault)
    return scan


def reversal_of(redemption_id: bytes, body: ReversalRequest) -> Reverse:
    """The reversal a body describes. Raises Problem 400."""
    reversal_id = id_of(body.reversal_id, "reversal_id")
    if reversal_id == redemption_id:
        raise bad("reversal_id", "must differ from the id of the redemption")
    if not 0 <= body.reversed_ms < SCANNED_MS_END:
        raise bad("reversed_ms", "is not a time in milliseconds since 1970")
    if body.reason is not None and len(body.reason) > REASON_CHARS_MAX:
        raise bad("reason", f"has {len(body.reason)} characters, at most {REASON_CHARS_MAX} are allowed")
    original = None if body.original is None else scan_of(body.original, "original.")
    if original is not None and original.redemption_id != redemption_id:
        raise bad("original.redemption_id", "must be the id of the redemption to undo")
    return Reverse(reversal_id, redemption_id, body.reversed_ms, original, body.reason)
