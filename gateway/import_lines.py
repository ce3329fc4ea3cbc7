"""A body of codes, as it arrives: cut into lines, each a code or a reason why it is none. Pure.

A body is NDJSON (a line is a JSON string, or an object with the member `code`), CSV (the first line names the columns,
a record is one line), or plain text (a line is a code). Blank lines are counted and otherwise passed over. What is said
about a line never holds its content.
"""

import csv
from collections.abc import Callable

import msgspec

from gateway.bulk import Line, Unfit

LINE_BYTES_MAX = 65_536  # far above any code; of a longer line only the number is kept
NDJSON, CSV, PLAIN = "application/x-ndjson", "text/csv", "text/plain"
FORMS = (NDJSON, CSV, PLAIN)
_TOO_LONG = f"has more than {LINE_BYTES_MAX} bytes"
_NO_CODE = "has no code"


class NoColumn(Exception):
    """The first line of a CSV body does not name the wanted column."""


class _Named(msgspec.Struct):
    code: str


_strings = msgspec.json.Decoder(str)
_json = msgspec.json.Decoder(str | _Named)


class LineReader:
    """Lines of one body, fed as it comes."""

    def __init__(self, form: str, column: str = "code") -> None:
        assert form in FORMS, f"form {form}"
        self._read: Callable[[bytes], str | None] = {NDJSON: _of_json, PLAIN: _of_text, CSV: self._of_csv}[form]
        self._column, self._at = column, -1
        self._begun = b""  # of a line whose end has not come
        self._skipping = False  # what comes belongs to a line that is too long
        self.lines = 0  # whole ones so far

    def feed(self, block: bytes) -> list[Line | Unfit]:
        """The lines that this block completes. Raises NoColumn."""
        *whole, rest = block.split(b"\n")
        if whole:
            whole[0] = self._begun + whole[0]
            self._begun = b""
        found = self._all_strings(whole) or [line for raw in whole if (line := self._line(raw)) is not None]
        if len(self._begun) + len(rest) > LINE_BYTES_MAX:
            self._begun, self._skipping = b"", True
        elif not self._skipping:
            self._begun += rest
        return found

    def _all_strings(self, whole: list[bytes]) -> list[Line | Unfit]:
        """The usual NDJSON at once, in a third of the time; empty if anything in it is not usual."""
        if not whole or self._read is not _of_json or self._skipping:
            return []
        try:
            texts = _strings.decode_lines(b"\n".join(whole))
        except (msgspec.DecodeError, UnicodeDecodeError):
            return []
        if len(texts) != len(whole) or not all(texts) or max(map(len, whole)) > LINE_BYTES_MAX:
            return []
        first, self.lines = self.lines + 1, self.lines + len(texts)
        return [Line(number, text) for number, text in enumerate(texts, first)]

    def finish(self) -> list[Line | Unfit]:
        """The last line, if the body does not end with a line's end. Raises NoColumn."""
        raw, self._begun = self._begun, b""
        line = self._line(raw) if raw or self._skipping else None
        return [] if line is None else [line]

    def _line(self, raw: bytes) -> Line | Unfit | None:
        self.lines += 1
        if self._skipping or len(raw) > LINE_BYTES_MAX:
            self._skipping = False
            return Unfit(self.lines, _TOO_LONG)
        try:
            text = self._read(raw)
        except UnicodeDecodeError:
            return Unfit(self.lines, "is not text in UTF-8")
        except msgspec.DecodeError:
            return Unfit(self.lines, "is not a JSON string, or an object with a string `code`")
        except csv.Error:
            return Unfit(self.lines, "is not a CSV record in one line")
        if text is None:
            return None
        return Line(self.lines, text) if text else Unfit(self.lines, _NO_CODE)

    def _of_csv(self, raw: bytes) -> str | None:
        text = raw.decode()
        if self._at < 0:
            names = [name.strip().casefold() for name in _fields(text.removeprefix("\ufeff"))]
            if self._column not in names:
                raise NoColumn
            self._at = names.index(self._column)
            return None
        fields = _fields(text)
        if len(fields) > self._at and fields[self._at].strip():
            return fields[self._at]
        return "" if any(field.strip() for field in fields) else None


def _fields(text: str) -> list[str]:
    if '"' not in text:
        return text.rstrip("\r").split(",")
    return next(csv.reader([text.rstrip("\r")], strict=True), [])


def _of_text(raw: bytes) -> str | None:
    text = raw.decode()
    return text.rstrip("\r") if text.strip() else None


def _of_json(raw: bytes) -> str | None:
    if not raw.strip():
        return None
    found = _json.decode(raw)
    return found if isinstance(found, str) else found.code
