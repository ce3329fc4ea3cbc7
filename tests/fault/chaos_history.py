"""What tills sent and were told, as files of equal records: one file a till, in the order of time.

`at_s` is the harness's one monotonic clock. A first send is in the file before it is on the wire, an answer after it
was read: so if an answer's time is before a send's time, it was before it in truth.
"""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

REDEEM, REVERSE, TOLD = 1, 2, 3
BUFFER_RECORDS = 2048
_FORM = struct.Struct("<BBHIdQ16s16sIQd")


class Entry(NamedTuple):
    kind: int  # REDEEM, REVERSE: first sent; TOLD
    code: int  # TOLD: the public verdict byte
    partition: int
    index: int
    at_s: float
    seq: int  # TOLD: the place's; REDEEM: the voucher's serial
    asked_id: bytes
    other_id: bytes  # REVERSE: what it undoes
    winner_terminal: int  # TOLD: of whom it was told that they were first; 0: of nobody
    winner_ms: int
    asked_s: float  # TOLD: when the message was sent that this answers


class Writer:
    def __init__(self, path: Path) -> None:
        self._file = path.open("wb")
        self._waiting: list[bytes] = []

    def _add(self, *fields: object) -> None:
        self._waiting.append(_FORM.pack(*fields))
        if len(self._waiting) >= BUFFER_RECORDS:
            self.flush()

    def redeem(self, at_s: float, redemption_id: bytes, serial: int) -> None:
        self._add(REDEEM, 0, 0, 0, at_s, serial, redemption_id, bytes(16), 0, 0, 0.0)

    def reverse(self, at_s: float, reversal_id: bytes, redemption_id: bytes) -> None:
        self._add(REVERSE, 0, 0, 0, at_s, 0, reversal_id, redemption_id, 0, 0, 0.0)

    def told(
        self,
        at_s: float,
        asked_id: bytes,
        code: int,
        place: tuple[int, int, int],
        winner: tuple[int, int],
        asked_s: float,
    ) -> None:
        partition, seq, index = place
        self._add(TOLD, code, partition, index, at_s, seq, asked_id, bytes(16), *winner, asked_s)

    def flush(self) -> None:
        self._file.write(b"".join(self._waiting))
        self._waiting.clear()

    def close(self) -> None:
        """Harmless when closed."""
        if not self._file.closed:
            self.flush()
            self._file.close()


def read(path: Path) -> Iterator[Entry]:
    """A till's history from its beginning."""
    with path.open("rb") as file:
        while chunk := file.read(_FORM.size * 4096):
            yield from map(Entry._make, _FORM.iter_unpack(chunk))
