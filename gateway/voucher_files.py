"""A file of codes against a gateway: import it, or void what it names. The same file again goes on and repeats nothing.

That is so because the request ids follow from the file itself (gateway.bulk).
"""

import asyncio
import hashlib
import secrets
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from urllib.parse import quote

import msgspec

from gateway.bulk import LINE_CHARS_MAX, Line, RequestIds, Unfit, chunked, read_lines, sort_out
from gateway.client import BadReply, Client, ClientFault, Refused
from gateway.codes import KEY_BYTES, CodeKeys, KeyRing
from gateway.keyfile import write_new

VOIDED = "voided"  # the verdict of a void that took effect; any other says why it did not
VOIDS_AT_ONCE = 16  # each waits for its own batch; so many share one

Advance = Callable[[int], None]


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
    index: int
    verdict: str = ""
    reason: str = ""


class _Imported(msgspec.Struct):
    accepted: int
    repeated: int
    rejected: list[_Rejected]


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
    ring = KeyRing(CodeKeys({1: secrets.token_bytes(KEY_BYTES)}, 1, secrets.token_bytes(KEY_BYTES)))
    return sort_out(raw_lines(path, column), ring)


def _bounded(readline: Callable[[int], str]) -> Iterator[str]:
    """Lines, each cut at LINE_CHARS_MAX, so that a file without line ends does not fill the memory."""
    while line := readline(LINE_CHARS_MAX):
        rest = line
        while rest and not rest.endswith(("\n", "\r")):
            rest = readline(LINE_CHARS_MAX)
        yield line


async def import_file(client: Client, slug: str, path: Path, column: str, rejects: Rejects, advance: Advance) -> Tally:
    """Register every code of a file with a campaign; `advance` is told lines. Raises ClientFault, OSError."""
    digest, _ = await asyncio.to_thread(survey, path)
    ids = await asyncio.to_thread(RequestIds, digest, slug)
    tally, told = Tally(), 0
    for number, chunk in enumerate(chunked(sorted_lines(path, column))):
        good = [line for line in chunk if isinstance(line, Line)]
        note_rejects(chunk, tally, rejects)
        if good:
            await _import_chunk(client, slug, good, ids.of(number, (line.text for line in good)), tally, rejects)
        advance(chunk[-1].number - told)
        told = chunk[-1].number
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
    body = {"request_id": request_id, "codes": [line.text for line in lines]}
    reply = await client.post(f"/v1/campaigns/{quote(slug, '')}/imports", body, _Imported, again=True)
    if reply.accepted + reply.repeated + len(reply.rejected) != len(lines):
        raise BadReply(f"of {len(lines)} codes the gateway told what came of another number")
    tally.accepted += reply.accepted
    tally.repeated += reply.repeated
    tally.rejected += len(reply.rejected)
    for rejected in reply.rejected:
        if not 0 <= rejected.index < len(lines):
            raise BadReply(f"the gateway rejected code {rejected.index} of {len(lines)}")
        rejects.add(lines[rejected.index].number, rejected.reason or rejected.verdict)


# --- void -----------------------------------------------------------------------------------------------------------


async def void_file(client: Client, path: Path, column: str, reason: str, rejects: Rejects, advance: Advance) -> Tally:
    """Void every voucher of a file, named by `voucher_id` or by `code`. Raises ClientFault, OSError."""
    digest, _ = await asyncio.to_thread(survey, path)
    ids = await asyncio.to_thread(RequestIds, digest, "void")
    tally = Tally()

    async def void_line(line: Line) -> None:
        text = line.text.strip()
        body = {column: text, "reason": reason, "request_id": ids.of(line.number, [text])}
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
