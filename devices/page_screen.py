"""The till's screen that browsers show: every change whole, as JSON, to whoever looks."""

import asyncio
import os
import time
from collections.abc import Callable

import msgspec

from devices.feedback import Told, told_text
from devices.page_view import READY, Recent, View, fold, recents
from devices.records import Ledger

_encode = msgspec.json.Encoder().encode


class Shown(msgspec.Struct, frozen=True):
    """One whole state, as a page gets it."""

    view: View
    recents: list[Recent]
    queue: int  # scans and reversals without an answer
    language: str
    terminal: int
    boot: str  # of the daemon: a new one counts its tones anew


class PageScreen:
    """The till's screen that pages show. `ledger` gives the journal's, which is another one after each compaction."""

    def __init__(self, terminal: int, language: str, ledger: Callable[[], Ledger]) -> None:
        self.language = language
        self._terminal, self._ledger = terminal, ledger
        self._view = View(READY)
        self._boot = os.urandom(8).hex()
        self._encoded: str | None = None
        self.wakes: set[asyncio.Event] = set()

    def tell(self, told: Told) -> str:
        self._view = fold(self._view, told, time.time_ns() // 1_000_000)
        self._encoded = None
        for wake in self.wakes:
            wake.set()
        return told_text(self.language, told)

    def encoded(self) -> str:
        """The newest state."""
        if self._encoded is None:
            ledger = self._ledger()
            newest, queue = recents(reversed(ledger.records.values())), ledger.open_count()
            shown = Shown(self._view, newest, queue, self.language, self._terminal, self._boot)
            self._encoded = _encode(shown).decode()
        return self._encoded
