"""How often gateways of this data directory ended on a failure, and of what: kept over restarts.

A gateway whose log fails ends at once and is started again by its supervisor, within less than a scrape's interval: a
counter in its memory would die with it. This one is a small file whose bytes are laid down at the first start and only
ever written over in place, so that it can be counted on a disk that is full. It is not synced: it must outlive a
process, not the power.
"""

import os
import sqlite3
from pathlib import Path

import msgspec

from eventstore.log import LogDamaged, LogFailed

ENDS_FILE = "ends.json"  # in the data directory
CAUSES = ("log", "index", "bug")
_BYTES = 256  # the counts as JSON, padded with blanks: never longer, three causes of up to twenty digits


class Ends:
    """The counts by cause, and the open file they are kept in."""

    def __init__(self, path: Path) -> None:
        """Raises OSError when the file is new and there is no room for it."""
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        self.counts = dict.fromkeys(CAUSES, 0) | _read(os.pread(self._fd, _BYTES, 0))
        if os.fstat(self._fd).st_size != _BYTES:
            os.pwrite(self._fd, self._text(), 0)

    def count(self, cause: str) -> None:
        """One more. Raises OSError where even that cannot be written."""
        self.counts[cause] += 1
        os.pwrite(self._fd, self._text(), 0)

    def close(self) -> None:
        os.close(self._fd)

    def _text(self) -> bytes:
        return msgspec.json.encode(self.counts).ljust(_BYTES)


def cause_of(error: BaseException | None) -> str:
    """What a gateway ended of: the log's storage, the index's, or a bug."""
    if isinstance(error, LogFailed | LogDamaged):
        return "log"
    return "index" if isinstance(error, sqlite3.Error) else "bug"


def _read(text: bytes) -> dict[str, int]:
    try:
        counts = msgspec.json.decode(text, type=dict[str, int])
    except msgspec.DecodeError:  # new, or torn by a power failure: what was counted is lost, and no more than that
        return {}
    return {cause: counts[cause] for cause in CAUSES if cause in counts}
