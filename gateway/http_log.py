"""The log over HTTP, for those who check it: one batch a line, records unpacked."""

from collections.abc import Iterator
from typing import Any

import msgspec
from aiohttp import web

from eventstore.events import KIND_CONTROL, BadPayload, Extra, decode_control, extras_of, iter_records, payload_head
from eventstore.log import CONTROL, SEQ_BITS, Batch, LogDamaged
from gateway.core import Core
from gateway.http_gate import Gate, absent, whole_number
from gateway.messages import Verdict
from gateway.roles import Action

BATCHES_DEFAULT = 100
BATCHES_MAX = 100_000  # of one answer; whoever wants more asks from the last line on
READ_BATCHES = 50  # log rows read at a time: at most 4 MB, and the tills have their turn between
_OPS = {1: "redeem", 2: "reverse", 3: "void", 4: "import"}


class LogRoutes:
    """GET /v1/log/{partition}?from=&limit=; `control` names the control partition."""

    def __init__(self, core: Core, gate: Gate) -> None:
        self._log, self._gate = core.log, gate

    def routes(self) -> list[web.RouteDef]:
        """What to mount."""
        return [web.get("/v1/log/{partition}", self.read)]

    async def read(self, request: web.Request) -> web.StreamResponse:
        """Batches `from` on, as NDJSON; fewer than `limit` mean the end. A damaged batch is told as the last line."""
        self._gate.asker(request, Action.LOG_READ)
        partition = self._partition(request.match_info["partition"])
        seq = whole_number(request, "from", 1, 2**SEQ_BITS - 1, 1)
        left = whole_number(request, "limit", 1, BATCHES_MAX, BATCHES_DEFAULT)
        response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
        await response.prepare(request)
        try:
            while left and (batches := await self._log.read(partition, seq, min(left, READ_BATCHES))):
                for batch in batches:
                    await response.write(msgspec.json.encode(line_of(batch)) + b"\n")
                seq, left = batches[-1].seq + 1, left - len(batches)
        except (LogDamaged, BadPayload) as error:
            await response.write(msgspec.json.encode({"partition": partition, "damaged": str(error)}) + b"\n")
        await response.write_eof()
        return response

    def _partition(self, name: str) -> int:
        if name == "control":
            return CONTROL
        if name.isascii() and name.isdigit() and len(name) <= 4 and int(name) < self._log.partitions:
            return int(name)
        raise absent(f"partition {name[:16]!r}")


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


def _extra_of(extra: Extra) -> dict[str, str]:
    row = {"merchant_ref": extra.merchant_ref, "cashier_ref": extra.cashier_ref, "reason": extra.reason}
    row["target_id"] = extra.target_id.hex() if extra.target_id else None
    return {name: value for name, value in row.items() if value is not None}
