"""`terminal test`: one scanner alone, everything it sends and is told shown as it happens, nothing kept or redeemed.

A voucher's code is money, and what is shown here is photographed and sent to others who are asked for help. So a code
is never shown, nor its bytes in the hex, unless the user asks for it; our own test codes are.
"""

import asyncio
import functools
import re
import time
from collections.abc import AsyncIterator, Callable, Sequence

import msgspec

from devices.config import ScannerConfig
from devices.framing import Frame, FrameFault, Signal
from devices.hid_pos import HidPosScanner
from devices.readers import SerialScanner
from devices.scan import scan_of
from devices.scanner import Settle
from devices.scanners import scanner_for
from devices.vendors import TEST_CODES, known_test_code

BYTES_PENDING_MAX = 16_384  # of one read, the longest code three times over; older ones were shown
QUIET_S = 0.5  # then what came so far is shown, whole frame or not
LAST_SIGNAL_S = 1.0  # after the last read: a scanner may be busy with two commands before it hears its verdict
HIDDEN = "··"
_CODE = re.compile(rb"[ -~\x80-\xff]{8,}")  # no voucher's code is shorter
_HEADS = re.compile(rb"(.*?)(\x16\xfe.{4}\rMSGGET.{7}\x1d)?", re.DOTALL)  # Honeywell's head is a word of its own
_WORD = re.compile(rb"[ -~\x80-\xff]")  # whatever text is made of; control characters stay


class Shown(msgspec.Struct, frozen=True, omit_defaults=True):
    """One line of the test. `what`: port, bytes, sent, read, fault, signal or statistics."""

    at_ms: int
    what: str
    text: str = ""
    hex: str = ""
    aim: str = ""
    bytes: int = 0
    code_kind: str = ""
    code: str = ""  # only when it was asked for, or is a test code


class Probe:
    """`kind_of` says in words what a text would be taken for; `tell` shows a line."""

    def __init__(
        self,
        config: ScannerConfig,
        tell: Callable[[Shown], None],
        kind_of: Callable[[str], str],
        *,
        signal: Signal | None,
        show_code: bool,
    ) -> None:
        self._tell, self._kind_of = tell, kind_of
        self._signal, self._show_code = signal, show_code
        self._found: list[tuple[Frame | FrameFault, Settle]] = []
        self._pending = bytearray()
        self._pending_s = 0.0
        self.reads = 0
        self.read = asyncio.Event()
        self._scanner = scanner_for(config, self._on_read, self._on_port)
        if isinstance(self._scanner, SerialScanner | HidPosScanner):  # keys are not shown: each is a piece of a code
            self._scanner.tap = self._pass

    async def run(self, lines: AsyncIterator[str], *, reads: int, seconds: float) -> None:
        """Until so many reads, or so many seconds (0: for ever), or `q`. Lines g, b, w sound a verdict."""
        running = asyncio.ensure_future(self._scanner.run())
        quiet = asyncio.ensure_future(self._show_when_quiet())
        typed = asyncio.ensure_future(self._obey(lines))
        enough = asyncio.ensure_future(self._until(reads))
        try:
            await asyncio.wait((running, typed, enough), timeout=seconds or None, return_when=asyncio.FIRST_COMPLETED)
            if enough.done():
                await asyncio.wait((running, typed), timeout=LAST_SIGNAL_S, return_when=asyncio.FIRST_COMPLETED)
            if running.done():
                running.result()
        finally:
            for task in (running, quiet, typed, enough):
                task.cancel()
            await asyncio.gather(running, quiet, typed, enough, return_exceptions=True)
            self._show_pending(())
            self._say("statistics", msgspec.json.encode(self._scanner.statistics).decode())

    def sound(self, signal: Signal) -> None:
        self._say("signal", f"{signal.value}: {self._scanner.feedback(signal).value}")

    # --- what the scanner does ----------------------------------------------------------------------------------------

    def _on_port(self, name: str, lost: str | None) -> None:
        can = [able for able, is_so in msgspec.structs.asdict(self._scanner.capabilities).items() if is_so]
        self._say("port", f"not there: {lost}" if lost else f"ready; it can: {', '.join(can) or 'only read'}")

    def _pass(self, octets: bytes, ours: bool) -> None:
        if ours:
            self._tell(Shown(_now_ms(), "sent", hex=octets.hex(" ")))
            return
        self._pending += octets[-BYTES_PENDING_MAX:]
        self._pending_s = time.monotonic()

    def _on_read(self, name: str, found: Frame | FrameFault, settle: Settle) -> None:
        # All reads of one piece of the line are shown together, so that none of their codes is left in its hex.
        if not self._found:
            asyncio.get_running_loop().call_soon(self._take_found, name)
        self._found.append((found, settle))

    def _take_found(self, name: str) -> None:
        taken, self._found = self._found, []
        self._show_pending([one for one, _ in taken])
        for found, settle in taken:
            scan = scan_of(found, name) if isinstance(found, Frame) else found
            if isinstance(scan, FrameFault):
                self._tell(Shown(_now_ms(), "fault", text=scan.reason.value, bytes=scan.dropped_bytes))
                settle(False)
                self.sound(self._signal or Signal.BAD)
            else:
                self._tell(self._shown(scan.code, scan.aim, len(scan.octets)))
                settle(True)  # else the scanner would send it again and again
                self.sound(self._signal or Signal.WAIT)
            self.reads += 1
        self.read.set()

    def _shown(self, code: str, aim: str, length: int) -> Shown:
        shown = functools.partial(Shown, _now_ms(), "read", aim=aim, bytes=length)
        if known := known_test_code(code):
            whole = "arrived whole" if code == TEST_CODES[known] else f"CHANGED on its way, it is {TEST_CODES[known]!r}"
            return shown(text=whole, code_kind=f"test code `{known}`", code=repr(code))
        kind = self._kind_of(code)
        return shown(code_kind=kind, code=repr(code)) if self._show_code else shown(code_kind=kind)

    # --- bytes --------------------------------------------------------------------------------------------------------

    def _show_pending(self, found: Sequence[Frame | FrameFault]) -> None:
        if self._pending:
            octets = bytes(self._pending)
            ours = all(isinstance(one, Frame) and _is_test(one) for one in found) and found
            self._tell(
                Shown(_now_ms(), "bytes", hex=octets.hex(" ") if ours or self._show_code else hidden(octets, found))
            )
            self._pending.clear()

    async def _show_when_quiet(self) -> None:
        while True:
            await asyncio.sleep(QUIET_S)
            if self._pending and time.monotonic() - self._pending_s >= QUIET_S:
                self._show_pending(())

    async def _until(self, reads: int) -> None:
        while not reads or self.reads < reads:
            self.read.clear()
            await self.read.wait()

    async def _obey(self, lines: AsyncIterator[str]) -> None:
        async for line in lines:
            if line == "q":
                return
            for signal in Signal:
                if line and signal.value.startswith(line):
                    self.sound(signal)
        await asyncio.get_running_loop().create_future()  # standard input has ended, the test has not

    def _say(self, what: str, text: str) -> None:
        self._tell(Shown(_now_ms(), what, text=text))


def _is_test(frame: Frame) -> bool:
    return bool(known_test_code(frame.octets.decode("latin-1")))


def hidden(octets: bytes, found: Sequence[Frame | FrameFault]) -> str:
    """Hex with the codes left out. What stands around them is shown as far as it can be no part of another code."""
    shown, rest = list[str](), octets
    for one in found:
        code = one.octets if isinstance(one, Frame) else b""
        before, there, after = rest.partition(code) if code else (b"", b"", b"")
        if not there:
            return _wordless(octets)
        shown += [_codeless(before), " ".join([HIDDEN] * len(code))]
        rest = after
    return " ".join(filter(None, (*shown, _wordless(rest))))


def _codeless(octets: bytes) -> str:
    """What stands before a code: its head, and what came before that, which may be another code that was cut off."""
    found = _HEADS.fullmatch(octets)
    debris, head = (found[1], found[2] or b"") if found else (octets, b"")
    words = [(one.start(), one.end()) for one in _CODE.finditer(debris)]
    told = (HIDDEN if any(a <= at < b for a, b in words) else f"{debris[at]:02x}" for at in range(len(debris)))
    return " ".join((*told, *(f"{octet:02x}" for octet in head)))


def _wordless(octets: bytes) -> str:
    return " ".join(HIDDEN if _WORD.match(octets, at) else f"{octets[at]:02x}" for at in range(len(octets)))


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
