"""Scanners that wait for an answer, at the other end of a pty: what they send, and what they are told."""

import asyncio
import time

from scanner_wire import msgget, ssi, ssi_scan
from till_bench import DEADLINE_S, PtyScanner

COMMANDS = {0xC6, 0xE6, 0xE7, 0xE8}  # PARAM_SEND, BEEP, LED_ON, LED_OFF
ACK, NAK = 0xD0, 0xD1


class SsiScanner:
    """Takes packets apart, answers commands as a decoder does, and keeps everything in order of arrival."""

    def __init__(self, port: PtyScanner) -> None:
        self._port = port
        self._buffer = b""
        self.heard: list[tuple[int, bytes]] = []  # opcode, body

    def forget(self) -> None:
        """What came over a line that is gone now."""
        self._buffer = b""
        self.heard.clear()

    def send(self, text: bytes, *, again: bool = False) -> None:
        self._port.write(b"".join(ssi_scan(text, 1 if again else 0)))

    def listen(self) -> None:
        self._buffer += self._port.read()
        while self._buffer and len(self._buffer) >= self._buffer[0] + 2:
            size = self._buffer[0] + 2
            octets, self._buffer = self._buffer[:size], self._buffer[size:]
            assert (sum(octets[:-2]) + int.from_bytes(octets[-2:], "big")) & 0xFFFF == 0
            assert octets[2] == 4
            self.heard.append((octets[1], octets[4:-2]))
            if octets[1] in COMMANDS:
                self._port.write(ssi(ACK, b""))

    async def until_heard(self, opcode: int, times: int = 1) -> bytes:
        """Body of the last of so many packets of this kind since the beginning."""
        deadline = time.monotonic() + DEADLINE_S
        while len(bodies := self.bodies(opcode)) < times:
            assert time.monotonic() < deadline, f"no {opcode:02x} among {[f'{op:02x}' for op, _ in self.heard]}"
            await asyncio.sleep(0.001)
            self.listen()
        return bodies[times - 1]

    def bodies(self, opcode: int) -> list[bytes]:
        return [body for op, body in self.heard if op == opcode]


class HostAckScanner:
    """Honeywell with Host ACK: after a read it is silent, and deaf to further codes, until escapes and a comma come."""

    def __init__(self, port: PtyScanner) -> None:
        self._port = port
        self.heard = b""
        self.suspended = False

    def send(self, text: bytes) -> None:
        assert not self.suspended
        self._port.read()
        self.heard = b""
        self._port.write(msgget(text))
        self.suspended = True

    async def until_released(self) -> bytes:
        """The escapes, up to and with their comma."""
        return await self.until_heard(b",")

    async def until_heard(self, end: bytes) -> bytes:
        deadline = time.monotonic() + DEADLINE_S
        while not self.heard.endswith(end):
            assert time.monotonic() < deadline, f"only {self.heard!r}"
            await asyncio.sleep(0.001)
            self.heard += self._port.read()
        self.suspended = False
        return self.heard
