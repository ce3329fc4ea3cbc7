"""The log over HTTP, for those who check it: one batch a line, records unpacked."""

import msgspec
from aiohttp import web

from eventstore.events import BadPayload
from eventstore.log import CONTROL, SEQ_BITS, LogDamaged
from gateway.core import Core
from gateway.http_gate import Gate, absent, whole_number
from gateway.log_lines import line_of
from gateway.roles import Action

BATCHES_DEFAULT = 100
BATCHES_MAX = 100_000  # of one answer; whoever wants more asks from the last line on
READ_BATCHES = 50  # log rows read at a time: at most 4 MB, and the tills have their turn between


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
