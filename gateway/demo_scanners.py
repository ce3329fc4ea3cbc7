"""The demo's scanners: the far ends of serial lines, each speaking its maker's protocol as the manuals have it.

They are written from the manuals and share no code with the terminal's framers. A scanner that waits for its host is as
stubborn as a real one: it reads nothing more before its ACK or its verdict came, sends again without an ACK, and counts
the verdicts it was made to sound.
"""

import asyncio
import os
import tty
from collections import Counter
from functools import reduce
from operator import xor

import msgspec

from gateway.demo_children import DemoFailed

READ_BYTES = 4096
QR = 0x1C  # SSI's type byte for it
ACK_DUE_S, RESENDS_MAX = 2.0, 2  # Zebra: Host Serial Response Time-out, and what follows it
ACK, PARAM_SEND, BEEP, LED_ON, LED_OFF = 0xD0, 0xC6, 0xE6, 0xE7, 0xE8
ASKED = {ACK: "ack", PARAM_SEND: "set up", BEEP: "beep", LED_ON: "light", LED_OFF: "light"}
SSI_BEEPS = {0x01: "good", 0x12: "bad", 0x05: "wait"}
HOST_ACK_ESCAPES = {b"\x1b7": "good", b"\x1b8": "bad", b"\x1b4": "wait"}
HOST_ACK_S = 10.0  # then it would sound an error of its own
DATALOGIC_SIGNALS = {b"\x06": "ack", b"\x01": "good", b"34\r": "bad", b"E": "set up"}


class Use(msgspec.Struct, frozen=True):
    """What one scanner of the demo did: codes shown to it, and what its host told it."""

    kind: str
    waits_for_ack: bool
    sounds_verdicts: bool
    reads: int
    sent_again: int
    acks: int
    verdicts: dict[str, int]  # good, bad, wait


class LineScanner:
    """Bare text with a suffix, and deaf. The others listen."""

    kind = "serial, bare text"
    waits_for_ack = sounds_verdicts = False

    def __init__(self, suffix: str = "cr", before: bytes = b"", after: bytes = b"\r", *, framing: str = "raw") -> None:
        self._master, self._slave = os.openpty()
        tty.setraw(self._slave)  # like a serial line: no echo, no line ends changed
        self._settings = f'framing = "{framing}"\n' + (f'suffix = "{suffix}"\n' if suffix else "")
        self._before, self._after = before, after
        self._told: Counter[str] = Counter()
        self._reads = self._sent_again = 0
        self._heard = bytearray()
        self._answered = asyncio.Event()  # it may read again
        self._answered.set()
        self._fault = ""
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._master, self._listen)

    def configuration(self, name: str) -> str:
        """Its block in `terminal.toml`."""
        return f'\n[[scanners]]\nname = "{name}"\npath = "{os.ttyname(self._slave)}"\n{self._settings}'

    async def show(self, code: str) -> None:
        """Hold the picture of a code before it; returns when it has read it. Raises DemoFailed."""
        self._reads += 1
        self._send(self._before + code.encode() + self._after)

    def used(self) -> Use:
        """Raises DemoFailed when its host ever told it something that it does not understand."""
        if self._fault:
            raise DemoFailed(self._fault)
        return Use(
            kind=self.kind,
            waits_for_ack=self.waits_for_ack,
            sounds_verdicts=self.sounds_verdicts,
            reads=self._reads,
            sent_again=self._sent_again,
            acks=self._told["ack"],
            verdicts={word: self._told[word] for word in ("good", "bad", "wait")},
        )

    def unplug(self) -> None:
        self._loop.remove_reader(self._master)
        for fd in (self._master, self._slave):
            os.close(fd)

    def _send(self, octets: bytes) -> None:
        written = os.write(self._master, octets)
        assert written == len(octets), "a pseudo-terminal takes 4095 bytes, and a cashier scans one code at a time"

    def _listen(self) -> None:
        self._heard += os.read(self._master, READ_BYTES)
        self._understand()

    def _understand(self) -> None:
        """Take what is whole from the front of `_heard`."""
        self._misses()

    def _misses(self) -> None:
        self._fault = self._fault or f"the scanner `{self.kind}` was told {bytes(self._heard).hex(' ')}"
        self._heard.clear()

    async def _is_answered(self, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                await self._answered.wait()
        except TimeoutError:
            return False
        return True


class NewlandScanner(LineScanner):
    """Data packing format 1: 02 00, two bytes of length, 36, text, and the XOR of FF, length and text (FM420)."""

    kind = "Newland, packed"

    def __init__(self) -> None:
        super().__init__("", framing="newland")

    async def show(self, code: str) -> None:
        self._reads += 1
        length, text = len(code).to_bytes(2, "big"), code.encode()
        self._send(b"\x02\0" + length + b"\x36" + text + bytes((reduce(xor, length + text, 0xFF),)))


class DatalogicScanner(LineScanner):
    """Bare text, an ACK for each label, and single characters from the host (PowerScan manual, appendix E)."""

    kind = "Datalogic, label ACK"
    waits_for_ack = sounds_verdicts = True

    def __init__(self) -> None:
        super().__init__("cr", framing="datalogic")
        self._settings += "label_ack = true\n"

    async def show(self, code: str) -> None:
        self._answered.clear()
        await super().show(code)
        if not await self._is_answered(ACK_DUE_S):
            raise DemoFailed("a Datalogic scanner was not ACKed")

    def _understand(self) -> None:
        while self._heard:
            said = next((octets for octets in DATALOGIC_SIGNALS if self._heard.startswith(octets)), b"")
            if not said:
                if not any(octets.startswith(self._heard) for octets in DATALOGIC_SIGNALS):
                    self._misses()
                return
            del self._heard[: len(said)]
            self._told[DATALOGIC_SIGNALS[said]] += 1
            if said == b"\x06":
                self._answered.set()


class SsiScanner(LineScanner):
    """Zebra SSI: a packet for each read, sent again until it is ACKed; every command is answered."""

    kind = "Zebra SSI"
    waits_for_ack = sounds_verdicts = True

    def __init__(self) -> None:
        super().__init__("", framing="ssi")

    async def show(self, code: str) -> None:
        self._reads += 1
        self._answered.clear()
        for attempt in range(1 + RESENDS_MAX):
            self._sent_again += attempt > 0
            self._send(_ssi(0xF3, bytes((QR,)) + code.encode(), flags=attempt > 0))
            if await self._is_answered(ACK_DUE_S):
                return
        raise DemoFailed("an SSI scanner gave a read up: it was never ACKed")

    def _understand(self) -> None:
        while self._heard and len(self._heard) >= self._heard[0] + 2:
            size = self._heard[0] + 2
            octets = bytes(self._heard[:size])
            if size < 6 or (sum(octets[:-2]) + int.from_bytes(octets[-2:], "big")) & 0xFFFF or octets[1] not in ASKED:
                self._misses()
                return
            del self._heard[:size]
            self._obey(octets[1], octets[4:-2])

    def _obey(self, opcode: int, body: bytes) -> None:
        self._told[SSI_BEEPS[body[0]] if opcode == BEEP else ASKED[opcode]] += 1
        if opcode == ACK:
            self._answered.set()
        else:
            self._send(_ssi(ACK, b""))


class HoneywellScanner(LineScanner):
    """Honeywell with Host ACK: after a read it is silent, and reads nothing, until escapes and a comma come."""

    kind = "Honeywell, Host ACK"
    sounds_verdicts = True

    def __init__(self) -> None:
        super().__init__("", framing="honeywell")

    async def show(self, code: str) -> None:
        if not await self._is_answered(HOST_ACK_S):
            raise DemoFailed("a Honeywell scanner waited 10 s for its host, and sounded an error")
        self._answered.clear()
        self._reads += 1
        packet = b"MSGGET%04ds" % (len(code) + 1) + b"Q1\x1d" + code.encode() + b"\r"
        self._send(b"\x16\xfe" + len(packet).to_bytes(4, "little") + b"\r" + packet)

    def _understand(self) -> None:
        while self._heard:
            menu = self._heard.startswith(b"\x16M\r"[: len(self._heard)])
            end = self._heard.find(b"!" if menu else b",") + 1
            if not end:
                return
            said = bytes(self._heard[:end])
            escapes = [said[at : at + 2] for at in range(0, end - 1, 2)]
            if menu:
                self._told["set up"] += 1
                self._send(said[3:-1] + b"\x06!")
            elif set(escapes) <= set(HOST_ACK_ESCAPES):
                self._told.update(HOST_ACK_ESCAPES[escape] for escape in escapes)
                self._answered.set()
            else:
                self._misses()
                return
            del self._heard[:end]


def _ssi(opcode: int, body: bytes, *, flags: int = 0) -> bytes:
    octets = bytes((4 + len(body), opcode, 0, flags)) + body
    return octets + (-sum(octets) & 0xFFFF).to_bytes(2, "big")
