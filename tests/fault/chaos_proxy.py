"""The network between tills and gateway, as bad as it can be: cuts, black holes, delays, and messages that come twice.

A black hole eats bytes (a paused peer would only leave them in the socket buffers, where they wait). A connection that
lost bytes never carries any more in that direction: TCP has no holes.
"""

import asyncio
import contextlib
from collections.abc import Callable

READ_BYTES = 65536
BINARY = 0x82


class Proxy:
    """Listens for tills, and connects each of them to `upstream()`."""

    def __init__(self, upstream: Callable[[], int]) -> None:
        self._upstream = upstream
        self._links: set[_Link] = set()
        self._server: asyncio.Server | None = None
        self.eats_up = self.eats_down = self.repeats = False
        self.delay_s = 0.0
        self.port = 0

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._join, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there, out = await asyncio.open_connection("127.0.0.1", self._upstream())
        except OSError:
            writer.transport.abort()
            return
        link = _Link(self, writer, out)
        self._links.add(link)
        ways = (link.carry(reader, out, upwards=True), link.carry(there, writer, upwards=False))
        tasks = [asyncio.create_task(way) for way in ways]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            link.cut()
            self._links.discard(link)

    def cut(self) -> int:
        """Reset every connection; how many there were."""
        found = list(self._links)
        for link in found:
            link.cut()
        return len(found)

    def heal(self) -> None:
        self.eats_up = self.eats_down = self.repeats = False
        self.delay_s = 0.0

    async def close(self) -> None:
        assert self._server is not None
        self._server.close()
        self.cut()


class _Link:
    def __init__(self, proxy: Proxy, till: asyncio.StreamWriter, gateway: asyncio.StreamWriter) -> None:
        self._proxy, self._ends = proxy, (till, gateway)

    def cut(self) -> None:
        for writer in self._ends:
            writer.transport.abort()

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, upwards: bool) -> None:
        """One direction, until it ends."""
        late: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()  # no limit: tills have few messages under way
        delivery = asyncio.create_task(self._deliver(late, writer))
        reading = asyncio.create_task(self._read(reader, late, upwards=upwards))
        try:
            await asyncio.wait((delivery, reading), return_when=asyncio.FIRST_COMPLETED)
            if not delivery.done():
                late.put_nowait((0.0, b""))  # the end, behind all that is still under way
                await delivery
        finally:
            delivery.cancel()
            reading.cancel()

    async def _read(
        self, reader: asyncio.StreamReader, late: asyncio.Queue[tuple[float, bytes]], *, upwards: bool
    ) -> None:
        proxy, lost, due_s = self._proxy, False, 0.0
        frames, clock = _Frames(), asyncio.get_running_loop().time
        try:
            while chunk := await reader.read(READ_BYTES):
                lost = lost or (proxy.eats_up if upwards else proxy.eats_down)
                if lost:
                    continue
                due_s = max(due_s, clock() + proxy.delay_s)  # in order, whatever the delay becomes
                piece = frames.taken(chunk, twice=proxy.repeats) if upwards else chunk
                if piece:
                    late.put_nowait((due_s, piece))
        except OSError:
            return

    async def _deliver(self, late: asyncio.Queue[tuple[float, bytes]], writer: asyncio.StreamWriter) -> None:
        """A delay holds each piece for a while, and no other behind it for longer."""
        clock = asyncio.get_running_loop().time
        with contextlib.suppress(OSError):
            while True:
                due_s, piece = await late.get()
                if not piece:
                    return
                if (wait_s := due_s - clock()) > 0.0:
                    await asyncio.sleep(wait_s)
                writer.write(piece)
                await writer.drain()


class _Frames:
    """Finds the messages in what a till sends (RFC 6455 section 5.2), so that whole ones can be sent twice."""

    def __init__(self) -> None:
        self._rest = b""
        self._upgraded = False

    def taken(self, chunk: bytes, *, twice: bool) -> bytes:
        """What to pass on: always whole frames, redemptions and reversals once more if `twice`."""
        self._rest += chunk
        passed = []
        if not self._upgraded:
            head, blank, self._rest = self._rest.partition(b"\r\n\r\n")
            if not blank:
                self._rest = head
                return b""
            passed.append(head + blank)
            self._upgraded = True
        while (length := _frame_length(self._rest)) and len(self._rest) >= length:
            frame, self._rest = self._rest[:length], self._rest[length:]
            repeatable = frame[0] == BINARY and (b"redeem" in frame[6:30] or b"reverse" in frame[6:30])
            passed.append(frame * 2 if twice and repeatable else frame)
        return b"".join(passed)


def _frame_length(received: bytes) -> int:
    """Bytes of the masked frame that begins here; 0 while that cannot be told."""
    if len(received) < 2:
        return 0
    length, head = received[1] & 0x7F, 6
    if length >= 126:
        head += 2 if length == 126 else 8
        if len(received) < head - 4:
            return 0
        length = int.from_bytes(received[2 : head - 4], "big")
    return head + length
