"""A slip for each accepted voucher, on an ESC/POS printer.

A printer is slow, off-line or out of paper whenever it likes, so it is told from a thread of its own, through a short
queue. What cannot be printed is said once on the screens, and no verdict ever waits for it. A slip has no code: it
names the redemption, so that whoever keeps the books finds it in the log.
"""

import asyncio
import queue
import threading
import time
from collections.abc import Callable
from datetime import datetime
from typing import Protocol
from urllib.parse import urlsplit

import msgspec

from devices.config import ConfigFault
from devices.feedback import Mood, Told, printable, tail_of, told_text
from devices.page_config import ReceiptConfig
from gateway.messages import Verdict

SLIPS_WAITING_MAX = 32  # a printer that is further behind than a minute prints for shoppers who are gone
PRINT_S = 5.0  # for the connection to a printer in the network
AT_MS_MAX = 253_370_000_000_000  # year 9998: a gateway's number must not end the printing
PRINTER_PORT = 9100  # what network printers listen on
CHINESE_ON = b"\x1c&"  # FS &: select Kanji character mode, GB 18030 on printers sold in China
TITLES = {"en": "VOUCHER REDEEMED", "zh": "已核销"}
LABELS = {
    "en": ("Offer", "Number", "Time", "Till", "Log place"),
    "zh": ("券面内容", "编号", "时间", "收银台", "记录位置"),
}


class Printer(Protocol):
    """What python-escpos calls Escpos, as far as it is used. Whatever it raises is an `OSError` or its own `Error`."""

    def open(self) -> object: ...

    def close(self) -> object: ...

    def set(self, *, align: str, bold: bool, double_height: bool, double_width: bool) -> None: ...

    def textln(self, text: str) -> None: ...

    def cut(self) -> None: ...

    def _raw(self, octets: bytes) -> None: ...


class Slip(msgspec.Struct, frozen=True):
    """What is printed of one accepted redemption. `at_ms`: UTC epoch milliseconds; `place` is empty when not told."""

    tail: str
    offer: str
    place: str
    at_ms: int


def slip_of(told: Told, now_ms: int) -> Slip | None:
    """None: nothing to print. What was accepted offline is printed then, and not again when it is settled."""
    if told.key == "accepted_offline":
        return Slip(tail_of(told.redemption_id), printable(told.words), "", now_ms)
    answer = told.answer
    if answer is None or answer.is_reversal or answer.is_fact or answer.verdict != Verdict.ACCEPTED:
        return None
    place = answer.place
    log_place = f"{place.partition}/{place.seq}/{place.index}" if place else ""
    return Slip(tail_of(answer.redemption_id), printable(answer.offer or ""), log_place, answer.at_ms)


def lines_of(slip: Slip, language: str, terminal: int, columns: int) -> list[str]:
    """Label and value in two columns where they fit, in two lines where not. Chinese letters are two columns wide."""
    at_s = min(max(slip.at_ms, 0), AT_MS_MAX) // 1000
    at = f"{datetime.fromtimestamp(at_s).astimezone():%Y-%m-%d %H:%M:%S}"
    values = (slip.offer, slip.tail, at, str(terminal), slip.place)
    lines: list[str] = []
    for label, value in zip(LABELS[language], values, strict=True):
        gap = columns - _width(label) - _width(value)
        if value:
            lines += [label + " " * gap + value] if gap > 0 else [label, f"  {value}"]
    return lines


def _width(text: str) -> int:
    return sum(2 if c > "\u2e7f" else 1 for c in text)


def printer_of(config: ReceiptConfig) -> tuple[Printer, tuple[type[Exception], ...]]:
    """A printer that is not opened yet, and what it raises. Raises `ConfigFault` when the extra is not installed."""
    try:
        from escpos.exceptions import Error
        from escpos.printer import File, Network
    except ImportError:
        said = "[receipt] needs python-escpos, and it is not installed: pip install 'tillgate[receipt]'"
        raise ConfigFault(said) from None
    faults = (Error, OSError)
    if config.printer.startswith("/"):
        return File(config.printer), faults
    parts = urlsplit(config.printer)
    return Network(parts.hostname, parts.port or PRINTER_PORT, timeout=PRINT_S), faults


def print_slip(printer: Printer, slip: Slip, language: str, terminal: int, columns: int) -> None:
    """Raises what the printer raises."""
    printer.open()
    try:
        printer.set(align="center", bold=True, double_height=True, double_width=True)
        _print_line(printer, TITLES[language])
        printer.set(align="left", bold=False, double_height=False, double_width=False)
        for line in lines_of(slip, language, terminal, columns):
            _print_line(printer, line)
        printer.cut()
    finally:
        printer.close()


def _print_line(printer: Printer, line: str) -> None:
    if line.isascii():
        printer.textln(line)
    else:
        printer._raw(CHINESE_ON + line.encode("gb18030") + b"\n")


class ReceiptScreen:
    """The till's screen that prints. `tell` is told on the event loop when slips are lost, and when they come again."""

    def __init__(self, config: ReceiptConfig, terminal: int, language: str, tell: Callable[[Told], object]) -> None:
        self.language = language
        self._columns, self._terminal, self._tell = config.columns, terminal, tell
        self._printer, self._faults = printer_of(config)
        self._slips: queue.Queue[Slip] = queue.Queue(SLIPS_WAITING_MAX)
        self._loop = asyncio.get_running_loop()
        self._lost = False
        # A daemon thread: a printer without paper may hold a write for hours, and must not hold the end of the till.
        threading.Thread(target=self._print, name="receipts", daemon=True).start()

    def tell(self, told: Told) -> str:
        slip = slip_of(told, time.time_ns() // 1_000_000)
        if slip:
            try:
                self._slips.put_nowait(slip)
            except queue.Full:
                self._note(f"{SLIPS_WAITING_MAX} slips wait")
        return told_text(self.language, told)

    def _print(self) -> None:
        while True:
            slip = self._slips.get()
            try:
                print_slip(self._printer, slip, "zh" if self.language == "zh" else "en", self._terminal, self._columns)
                fault = ""
            except self._faults as error:
                fault = str(error).partition("\n")[0] or type(error).__name__
            try:
                self._loop.call_soon_threadsafe(self._note, fault)
            except RuntimeError:
                return  # the loop has ended, and the till with it

    def _note(self, fault: str) -> None:
        if fault and not self._lost:
            self._tell(Told(Mood.WAIT, "no_receipt", words=fault))
        elif self._lost and not fault:
            self._tell(Told(Mood.PLAIN, "receipts"))
        self._lost = bool(fault)
