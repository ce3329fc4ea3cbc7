"""Files of codes, line by line: which lines can be imported, and under which request ids. Pure.

A file is CSV if its first line names the wanted column; otherwise every line is one code, commas and all. What is said
about a line names its number and why, never its content.

Request ids make a file resumable: the same file, campaign and chunk give the same id, so what was done is not done
again. They end up in the log, and a code must not be guessed from them; so they are derived with scrypt from the
digest of the whole file. A file of a single typed code, 10^15 guesses at 50 ms each, is the worst case.
"""

import csv
import hashlib
import re
from collections.abc import Iterable, Iterator

import msgspec

from gateway.codes import Refused, import_spelling

CHUNK_CODES = 10_000  # one chunk of the gateway's (gateway.imports), which names as many rejected lines
CHUNK_BYTES = 1 << 20  # of UTF-8; six times that as JSON at worst: what a cut connection costs
LINE_CHARS_MAX = 65_536  # far above any code; whoever reads a file cuts longer lines here
REQUEST_ID_BYTES = 16
_SCRYPT = {"n": 2**14, "r": 8, "p": 1}  # 16 MiB and about 50 ms: once a file
_undecoded = re.compile("[\ud800-\udfff]").search  # what a lenient decoder makes of other bytes
_CHUNK_PERSON = b"tillgate-chunk-1"


class Line(msgspec.Struct, frozen=True, gc=False):
    """One code of a file, with the number of its line, from 1."""

    number: int
    text: str


class Unfit(msgspec.Struct, frozen=True, gc=False):
    """A line that is not used, and why."""

    number: int
    why: str


def read_lines(lines: Iterable[str], column: str) -> Iterator[Line | Unfit]:
    """The lines of a file, blank ones left out; of a CSV file the fields of `column`."""
    numbered = enumerate(lines, 1)
    number, first = next(numbered, (1, ""))
    first = first.removeprefix("\ufeff")  # a byte order mark
    names = [name.strip(' \t\r\n"').casefold() for name in first.split(",")]
    if column in names:
        yield from _fields((line for _, line in numbered), names.index(column))
        return
    if first and not first.isspace():
        yield _line(number, first)
    for number, line in numbered:
        if line.isascii() and not line.isspace():  # as _line says, without the call
            yield Line(number, line.rstrip("\r\n"))
        elif not line.isspace():
            yield _line(number, line)


def _line(number: int, text: str) -> Line | Unfit:
    if not text.isascii() and _undecoded(text):
        return Unfit(number, "is not text in UTF-8")
    return Line(number, text.rstrip("\r\n"))


def _fields(lines: Iterator[str], at: int) -> Iterator[Line | Unfit]:
    rows = csv.reader(lines)
    while True:
        try:
            row = next(rows)
        except StopIteration:
            return
        except csv.Error as error:
            yield Unfit(rows.line_num + 1, f"is not CSV: {error}")
            continue
        if len(row) > at and row[at].strip():
            yield _line(rows.line_num + 1, row[at])
        elif any(field.strip() for field in row):
            yield Unfit(rows.line_num + 1, "has no code in its column")


def sort_out(lines: Iterable[Line | Unfit]) -> Iterator[Line | Unfit]:
    """Refuse what no till could ever redeem, and the second line of two with one code."""
    seen: dict[str, int] = {}
    for line in lines:
        if isinstance(line, Unfit):
            yield line
            continue
        spelled = import_spelling(line.text)
        if isinstance(spelled, Refused):
            yield Unfit(line.number, spelled.why)
            continue
        earlier = seen.setdefault(spelled[1], line.number)
        yield line if earlier == line.number else Unfit(line.number, f"has the same code as line {earlier}")


def chunked(lines: Iterable[Line | Unfit]) -> Iterator[list[Line | Unfit]]:
    """Runs of lines that fit in one request each; the same lines always give the same runs."""
    chunk: list[Line | Unfit] = []
    size_bytes = 0
    for line in lines:
        line_bytes = 0
        if isinstance(line, Line):
            line_bytes = len(line.text) if line.text.isascii() else len(line.text.encode())
        if len(chunk) == CHUNK_CODES or (chunk and size_bytes + line_bytes > CHUNK_BYTES):
            yield chunk
            chunk, size_bytes = [], 0
        chunk.append(line)
        size_bytes += line_bytes
    if chunk:
        yield chunk


class RequestIds:
    """The request ids of one file and campaign."""

    def __init__(self, file_digest: bytes, slug: str) -> None:
        self._key = hashlib.scrypt(file_digest, salt=b"tillgate-file-1" + slug.encode(), dklen=32, **_SCRYPT)

    def of(self, number: int, text: str = "") -> str:
        """The id of chunk or line `number`, which says `text`; 32 hex digits."""
        state = hashlib.blake2b(
            number.to_bytes(8, "big"), key=self._key, digest_size=REQUEST_ID_BYTES, person=_CHUNK_PERSON
        )
        state.update(text.encode())
        return state.hexdigest()
