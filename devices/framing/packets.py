"""What the packet protocols share: find the next packet, drop what is none, notice silence.

A subclass looks at the start of the buffer and says how many bytes a whole packet takes, that more bytes are needed, or
how many bytes are certainly no packet. Where a packet turns out to be damaged only its first byte is dropped and the
search goes on right behind it: a damaged length cannot swallow the sound packet that follows. When the line is silent
in the middle of a packet the same is done with what is left, so garbage that looks like a beginning costs time only.
The buffer never holds more than one packet and one read.
"""

from abc import ABC, abstractmethod

from devices.framing import FaultReason, Found, FrameFault, Framer

STRAY_BYTES_MIN = 4  # fewer are noise of a plug, and no code is so short
STRAY_HEAD_BYTES = 64  # of a run of stray bytes, kept to recognise the answer to a setting


class PacketFramer(Framer, ABC):
    def __init__(self, silence_ms: int) -> None:
        self._silence_ms = silence_ms
        self._buffer = bytearray()
        self._last_ms = 0
        self._stray_head = bytearray()
        self._stray_bytes = 0  # since the last silence
        self._told = False  # a fault was told since the last silence: what follows it is its debris
        self._dropped_bytes = 0

    @property
    def dropped_bytes(self) -> int:
        return self._dropped_bytes

    @abstractmethod
    def _take(self, found: list[Found]) -> int:
        """Bytes of the whole packet at the start of the buffer (never empty); 0: incomplete; -n: n bytes are none."""

    def _broke_off(self, found: list[Found]) -> None:
        """The line is silent in the middle of a packet."""
        self._fault(FaultReason.CUT_OFF, len(self._buffer), found)

    def _is_answer(self, stray: bytes) -> bool:
        """These bytes outside of packets are an answer to something we wrote."""
        return False

    def feed(self, octets: bytes, now_ms: int) -> list[Found]:
        found = self.idle(now_ms)
        self._last_ms = now_ms
        self._buffer += octets
        self._sort_out(found)
        return found

    def due_ms(self) -> int | None:
        return self._last_ms + self._silence_ms if self._buffer or self._stray_bytes else None

    def idle(self, now_ms: int) -> list[Found]:
        found: list[Found] = []
        if (self._buffer or self._stray_bytes) and now_ms >= self._last_ms + self._silence_ms:
            self._end_burst(found)
        return found

    def cut(self) -> list[FrameFault]:
        lost = len(self._buffer)
        self._dropped_bytes += lost
        self._buffer.clear()
        self._forget_stray()
        return [FrameFault(FaultReason.CUT_OFF, lost)] if lost else []

    def _sort_out(self, found: list[Found]) -> None:
        while self._buffer:
            taken = self._take(found)
            if taken == 0:
                return
            if taken < 0:
                self._stray(-taken)
            else:
                self._told = False
            del self._buffer[: abs(taken)]

    def _end_burst(self, found: list[Found]) -> None:
        if self._buffer:
            self._broke_off(found)
        while self._buffer:  # it began like a packet and was none: a whole one may stand behind it
            self._stray(1)
            del self._buffer[:1]
            self._sort_out(found)
        if self._stray_bytes >= STRAY_BYTES_MIN and not self._is_answer(bytes(self._stray_head)):
            self._fault(FaultReason.STRAY, self._stray_bytes, found)
        self._forget_stray()

    def _stray(self, count: int) -> None:
        self._dropped_bytes += count
        self._stray_bytes += count
        room = STRAY_HEAD_BYTES - len(self._stray_head)
        self._stray_head += self._buffer[: min(count, room)]

    def _forget_stray(self) -> None:
        self._stray_head.clear()
        self._stray_bytes = 0
        self._told = False

    def _fault(self, reason: FaultReason, dropped_bytes: int, found: list[Found]) -> None:
        """Tell it, once until the next silence."""
        if not self._told:
            self.damaged += reason is FaultReason.CHECKSUM
            found.append(FrameFault(reason, dropped_bytes))
        self._told = True
