"""A file of codes against a gateway: import it, or void what it names. The same file again goes on and repeats nothing.

That is so because the request ids follow from the file itself (gateway.bulk).
"""

import asyncio
import hashlib
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from urllib.parse import quote

import msgspec

from gateway.bulk import LINE_CHARS_MAX, Line, RequestIds, Unfit, chunked, read_lines, sort_out
from gateway.client import BadReply, Client, ClientFault, Content, Refused
from gateway.import_lines import NDJSON
from gateway.keyfile import write_new

VOIDED = "voided"  # the verdict of a void that took effect; any other says why it did not
VOIDS_AT_ONCE = 16  # each waits for its own batch; so many share one

IMPORTS_AT_ONCE = 2  # one is registered, one on its way: the gateway never waits for this end

Advance = Callable[[int], None]
_encode_lines = msgspec.json.Encoder().encode_lines


class Tally(msgspec.Struct):
    """What came of a file's lines."""

    accepted: int = 0
    repeated: int = 0  # were there before: by an earlier run, as a rule
    rejected: int = 0


class Rejects:
    """The file of rejected lines, made when there is a first one. It never holds a code."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lines: list[tuple[int, str]] = []

    def add(self, number: int, why: str) -> None:
        self._lines.append((number, why))

    def write(self) -> None:
        """Replaces what an earlier run left. Raises OSError."""
        self.path.unlink(missing_ok=True)
        if self._lines:
            rows = (f'{number},"{why.replace(chr(34), chr(34) * 2)}"\n' for number, why in sorted(self._lines))
            write_new(self.path, ("line,reason\n" + "".join(rows)).encode())


class _Rejected(msgspec.Struct):
    line: int
    verdict: str = ""
    reason: str = ""


class _Imported(msgspec.Struct):
    accepted: int
    repeated: int
    rejected: int
    rejections: list[_Rejected]


class _Voided(msgspec.Struct):
    verdict: str


# --- import ---------------------------------------------------------------------------------------------------------


def survey(path: Path) -> tuple[bytes, int]:
    """Digest and number of lines of a file. Raises OSError."""
    digest, lines, last = hashlib.blake2b(digest_size=32), 0, b"\n"
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
            lines += piece.count(b"\n")
            last = piece[-1:]
    return digest.digest(), lines + (last != b"\n")


def raw_lines(path: Path, column: str) -> Iterator[Line | Unfit]:
    """The lines of a file. Raises OSError."""
    with path.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
        yield from read_lines(_bounded(file.readline), column)


def sorted_lines(path: Path, column: str) -> Iterator[Line | Unfit]:
    """The lines of a file as an import takes them. Raises OSError."""
    return sort_out(raw_lines(path, column))


def _bounded(readline: Callable[[int], str]) -> Iterator[str]:
    """Lines, each cut at LINE_CHARS_MAX, so that a file without line ends does not fill the memory."""
    while line := readline(LINE_CHARS_MAX):
        if len(line) == LINE_CHARS_MAX:
            rest = line
            while rest and not rest.endswith(("\n", "\r")):
                rest = readline(LINE_CHARS_MAX)
        yield line


async def import_file(client: Client, slug: str, path: Path, column: str, rejects: Rejects, advance: Advance) -> Tally:
    """Register every code of a file with a campaign; `advance` is told lines. Raises ClientFault, OSError.

    The next chunk is read in a thread, and sent, while the gateway has the one before: IMPORTS_AT_ONCE.
    """
    digest, _ = await asyncio.to_thread(survey, path)
    ids = await asyncio.to_thread(RequestIds, digest, slug)
    tally, told, number = Tally(), 0, 0
    chunks = chunked(sorted_lines(path, column))
    under_way: deque[asyncio.Task[None]] = deque()
    try:
        while (chunk := await asyncio.to_thread(next, chunks, None)) is not None:
            note_rejects(chunk, tally, rejects)
            good = [line for line in chunk if isinstance(line, Line)]
            if good:
                work = _import_chunk(client, slug, good, ids.of(number), tally, rejects)
                under_way.append(asyncio.create_task(work))
            if len(under_way) == IMPORTS_AT_ONCE:
                await under_way.popleft()
            advance(chunk[-1].number - told)
            told, number = chunk[-1].number, number + 1
        while under_way:
            await under_way.popleft()
    finally:
        for task in under_way:
            task.cancel()
        await asyncio.gather(*under_way, return_exceptions=True)
    return tally


def note_rejects(chunk: Iterable[Line | Unfit], tally: Tally, rejects: Rejects) -> None:
    """Count and note the lines that are not used."""
    for unfit in chunk:
        if isinstance(unfit, Unfit):
            tally.rejected += 1
            rejects.add(unfit.number, unfit.why)


async def _import_chunk(
    client: Client, slug: str, lines: list[Line], request_id: str, tally: Tally, rejects: Rejects
) -> None:
    body = Content(NDJSON, _encode_lines([line.text for line in lines]))
    path = f"/v1/campaigns/{quote(slug, '')}/imports/lines"
    reply = await client.post(path, body, _Imported, again=True, request_id=request_id)
    if reply.accepted + reply.repeated + reply.rejected != len(lines) or reply.rejected != len(reply.rejections):
        raise BadReply(f"of {len(lines)} codes the gateway told what came of another number")
    tally.accepted += reply.accepted
    tally.repeated += reply.repeated
    tally.rejected += reply.rejected
    for rejected in reply.rejections:
        if not 1 <= rejected.line <= len(lines):
            raise BadReply(f"the gateway rejected code {rejected.line} of {len(lines)}")
        rejects.add(lines[rejected.line - 1].number, rejected.reason or rejected.verdict)


# --- void -----------------------------------------------------------------------------------------------------------


async def void_file(client: Client, path: Path, column: str, reason: str, rejects: Rejects, advance: Advance) -> Tally:
    """Void every voucher of a file, named by `voucher_id` or by `code`. Raises ClientFault, OSError."""
    digest, _ = await asyncio.to_thread(survey, path)
    ids = await asyncio.to_thread(RequestIds, digest, "void")
    tally = Tally()

    async def void_line(line: Line) -> None:
        text = line.text.strip()
        body = {column: text, "reason": reason, "request_id": ids.of(line.number, text)}
        try:
            reply = await client.post("/v1/vouchers/void", body, _Voided, again=True)
            why = "" if reply.verdict == VOIDED else reply.verdict.replace("_", " ")
        except Refused as refused:
            why = str(refused)
        if why:
            tally.rejected += 1
            rejects.add(line.number, why)
        else:
            tally.accepted += 1
        advance(1)

    lines = raw_lines(path, column)
    while chunk := list(islice(lines, VOIDS_AT_ONCE)):
        note_rejects(chunk, tally, rejects)
        await _all([void_line(line) for line in chunk if isinstance(line, Line)])
    return tally


async def _all(works: Sequence[Coroutine[None, None, None]]) -> None:
    """Carry them out side by side; the first that fails ends the others. Raises ClientFault."""
    failed: list[BaseException] = []
    try:
        async with asyncio.TaskGroup() as tasks:
            for work in works:
                tasks.create_task(work)
    except* ClientFault as group:
        failed += group.exceptions
    if failed:
        raise failed[0]
