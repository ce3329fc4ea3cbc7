"""One batch of the log as a JSON object, for those who check it. Pure."""

from collections.abc import Iterator
from typing import Any

import msgspec

from eventstore.events import KIND_CONTROL, Extra, decode_control, extras_of, iter_records, payload_head
from eventstore.log import CONTROL, Batch
from gateway.messages import Verdict

_OPS = {1: "redeem", 2: "reverse", 3: "void", 4: "import"}


def line_of(batch: Batch) -> dict[str, Any]:
    """One batch as a JSON object; ids and tips in hex. Raises BadPayload."""
    kind, _, at_ms = payload_head(batch.payload)
    line = {
        "partition": "control" if batch.partition == CONTROL else batch.partition,
        "seq": batch.seq,
        "prev": batch.prev.hex(),
        "tip": batch.tip.hex(),
        "at_ms": at_ms,
    }
    if kind == KIND_CONTROL:
        control = decode_control(batch.payload)
        return line | {"actor": control.actor, "events": control.events}
    return line | {"records": list(_records_of(batch))}


def _records_of(batch: Batch) -> Iterator[dict[str, Any]]:
    extras = extras_of(batch.payload)
    for index, record in enumerate(iter_records(batch.payload)):
        row = {
            "op": _OPS.get(record.op, str(record.op)),
            "verdict": Verdict(batch.verdicts[index]).name.lower(),
            "static_verdict": Verdict(record.static_verdict).name.lower(),
            "entry": record.entry,
            "campaign": record.campaign,
            "serial": record.serial,
            "redemption_id": record.redemption_id.hex(),
            "claim_id": record.claim_id.hex(),
            "terminal": record.terminal,
            "scanned_ms": record.scanned_ms,
            "control_seq": record.control_seq,
        }
        yield row | _extra_of(extras.get(index, Extra()))


def _extra_of(extra: Extra) -> dict[str, Any]:
    row: dict[str, Any] = {"merchant_ref": extra.merchant_ref, "cashier_ref": extra.cashier_ref, "reason": extra.reason}
    row["target_id"] = extra.target_id.hex() if extra.target_id else None
    row["offline"] = msgspec.structs.asdict(extra.offline) if extra.offline else None
    return {name: value for name, value in row.items() if value is not None}
