"""A body of codes over HTTP, read as it arrives: any number of lines in one request, and one summary.

What is held of a body is one chunk of hashes, one line, and the lines that were rejected, up to a limit; the tills have
their turn after every LINES_PER_TURN lines. A chunk is registered while the next one is read. The same body with the
same request id may be sent again after any failure: its chunks are the same, so it goes on where it stopped.
"""

import asyncio
from collections.abc import Sequence
from http import HTTPStatus

import msgspec
from aiohttp import web

from gateway.auth import Asker
from gateway.bulk import Line, Unfit
from gateway.control_rules import REQUEST_ID_CHARS_MAX
from gateway.core import Core
from gateway.directory import Rejected
from gateway.http_gate import Gate, Problem, absent, allowed, bad, json_response, unknown_yet
from gateway.import_lines import FORMS, LineReader, NoColumn
from gateway.imports import CHUNK_CODES, WHY_NOT_IMPORTED, Came, Chunk
from gateway.messages import Verdict
from gateway.roles import Action

BODY_BYTES_MAX = 256 << 20  # ten million codes of 25 letters; more is split by whoever sends it
READ_BYTES = 16 << 10  # cut into lines in one go: half a millisecond
LINES_PER_TURN = 256  # read and hashed in one go: about a millisecond
REJECTIONS_TOLD_MAX = 10_000  # about a megabyte of answer; all are counted
COLUMN_CHARS_MAX = 64
_GOOD = (Verdict.ACCEPTED, Verdict.REPEATED)


class RejectedLine(msgspec.Struct, frozen=True):
    """A line that was not imported, by its number in the body, from 1; `reason` never holds the code."""

    line: int
    verdict: str
    reason: str


class ImportedLines(msgspec.Struct):
    """What came of a body's lines; `rejections` names the first 10,000 of the rejected ones."""

    lines: int = 0
    accepted: int = 0
    repeated: int = 0
    rejected: int = 0
    rejections: list[RejectedLine] = []

    def reject(self, line: int, verdict: Verdict, reason: str) -> None:
        """Count a line, and name it while there is room."""
        self.rejected += 1
        if len(self.rejections) < REJECTIONS_TOLD_MAX:
            self.rejections.append(RejectedLine(line, verdict.name.lower(), reason))


class ImportRoutes:
    """POST /v1/campaigns/{slug}/imports/lines."""

    def __init__(self, core: Core, gate: Gate) -> None:
        self._core, self._gate = core, gate

    def routes(self) -> list[web.RouteDef]:
        """What to mount."""
        return [web.post("/v1/campaigns/{slug}/imports/lines", self.import_lines)]

    async def import_lines(self, request: web.Request) -> web.Response:
        """A code a line, in one of FORMS; `request_id` and, for CSV, `column` are in the query."""
        asker = self._gate.asker(request, Action.VOUCHER_ISSUE)
        campaign = self._core.control.directory.campaign(request.match_info["slug"][:64])
        if campaign is None:
            raise absent(f"campaign {request.match_info['slug'][:64]!r}")
        body = _Body(self._core, asker, campaign.slug, _request_id(request))
        reader = _reader(request)
        size_bytes = 0
        try:
            async for block in request.content.iter_any():
                size_bytes += len(block)
                if size_bytes > BODY_BYTES_MAX:
                    text = f"the body has more than {BODY_BYTES_MAX} bytes: send the rest as another request"
                    raise Problem(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, text)
                for start in range(0, len(block), READ_BYTES):
                    await body.take(reader.feed(block[start : start + READ_BYTES]))
                asker = self._gate.asker(request, Action.VOUCHER_ISSUE)  # a long upload may outlive a token
            await body.take(reader.finish())
            summary = await body.finish()
        except NoColumn:
            raise bad("column", "the first line does not name this column") from None
        finally:
            await body.close()
        summary.lines = reader.lines
        return json_response(summary)


class _Body:
    """One body on its way: what is read of it, and what came of what was read before."""

    def __init__(self, core: Core, asker: Asker, slug: str, request_id: str) -> None:
        self._imports, self._ring = core.desk.imports, core.ring
        self._asker, self._slug, self._request_id = asker, slug, request_id
        self._chunk = Chunk()
        self._registering: asyncio.Task[list[Came] | Rejected] | None = None
        self._summary = ImportedLines()

    async def take(self, lines: Sequence[Line | Unfit]) -> None:
        """Read lines. Raises Problem when what was read before could not be registered."""
        for start in range(0, len(lines), LINES_PER_TURN):
            for line in lines[start : start + LINES_PER_TURN]:
                if isinstance(line, Unfit):
                    self._summary.reject(line.number, Verdict.UNREADABLE, line.why)
                elif refused := self._chunk.take(self._ring, line.number, line.text):
                    self._summary.reject(line.number, refused.verdict, refused.why)
                elif self._chunk.count == CHUNK_CODES:
                    await self._register()
            await asyncio.sleep(0)

    async def finish(self) -> ImportedLines:
        """What came of all of it. Raises Problem."""
        if self._chunk.count:
            await self._register()
        await self._settle()
        self._summary.rejections.sort(key=lambda rejected: rejected.line)
        return self._summary

    async def close(self) -> None:
        """Leave nothing running; what is under way may still take effect."""
        if self._registering is not None:
            self._registering.cancel()
            await asyncio.gather(self._registering, return_exceptions=True)

    async def _register(self) -> None:
        await self._settle()
        chunk, self._chunk = self._chunk, Chunk()
        work = self._imports.register(self._asker.actor, self._slug, self._request_id, chunk)
        self._registering = asyncio.create_task(work)

    async def _settle(self) -> None:
        if self._registering is None:
            return
        task, self._registering = self._registering, None
        for came in allowed(await task):
            if Verdict.UNRESOLVED in came.codes:
                raise unknown_yet("some of these codes may not be imported yet")
            accepted, repeated = map(came.codes.count, _GOOD)
            self._summary.accepted += accepted
            self._summary.repeated += repeated
            if accepted + repeated < len(came.codes):
                for line, verdict in came.verdicts():
                    if verdict not in _GOOD:
                        self._summary.reject(line, verdict, WHY_NOT_IMPORTED.get(verdict, ""))


def _request_id(request: web.Request) -> str:
    given = request.query.get("request_id", "")
    if not 1 <= len(given) <= REQUEST_ID_CHARS_MAX:
        raise bad("request_id", f"must be 1 to {REQUEST_ID_CHARS_MAX} characters, chosen by you for this body")
    return given


def _reader(request: web.Request) -> LineReader:
    if request.content_type not in FORMS:
        raise Problem(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"send the body as one of {', '.join(FORMS)}")
    column = request.query.get("column", "code")
    if not 1 <= len(column) <= COLUMN_CHARS_MAX:
        raise bad("column", f"must be 1 to {COLUMN_CHARS_MAX} characters")
    return LineReader(request.content_type, column.casefold())
