"""A line between one till and the gateway that can be made to lose an answer. Bytes pass unread until then."""

import asyncio
import contextlib

CHUNK_BYTES = 65536
WEBSOCKET_BINARY = 0x2  # opcode of RFC 6455 section 5.2; verdicts travel in such frames, heartbeats do not
LOOPBACK = "127.0.0.1"


class LossyLine:
    """Listens on a loopback port, connects to the gateway's for each connection it gets."""

    def __init__(self, gateway_port: int) -> None:
        self._gateway_port = gateway_port
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._carried: set[asyncio.Task[None]] = set()
        self._lost: asyncio.Future[None] | None = None

    async def __aenter__(self) -> "LossyLine":
        self._server = await asyncio.start_server(self._accept, LOOPBACK, 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        self.cut()
        if self._carried:
            await asyncio.wait(self._carried)

    @property
    def port(self) -> int:
        assert self._server is not None
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    def lose_next_answer(self) -> asyncio.Future[None]:
        """From here on answers of the gateway are swallowed, until `cut`; done when the first one was."""
        self._lost = asyncio.get_running_loop().create_future()
        return self._lost

    def cut(self) -> None:
        """The line breaks, and is whole again for whoever connects anew."""
        self._lost = None
        for writer in self._writers:
            writer.transport.abort()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        carrying = asyncio.ensure_future(self._carry(reader, writer))
        self._carried.add(carrying)
        carrying.add_done_callback(self._carried.discard)

    async def _carry(self, till_reader: asyncio.StreamReader, till_writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):  # either end may vanish: that is what a line is for
            try:
                self._writers.add(till_writer)
                reader, writer = await asyncio.open_connection(LOOPBACK, self._gateway_port)
                self._writers.add(writer)
                try:
                    await self._both_ways(till_reader, till_writer, reader, writer)
                finally:
                    self._writers.discard(writer)
                    writer.transport.abort()
            finally:
                self._writers.discard(till_writer)
                till_writer.transport.abort()

    async def _both_ways(
        self,
        till_reader: asyncio.StreamReader,
        till_writer: asyncio.StreamWriter,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        ways = [
            asyncio.ensure_future(self._pump(till_reader, writer, answers=False)),
            asyncio.ensure_future(self._pump(reader, till_writer, answers=True)),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, answers: bool) -> None:
        while chunk := await reader.read(CHUNK_BYTES):
            if answers and self._lost is not None and has_answer(chunk):
                if not self._lost.done():
                    self._lost.set_result(None)
                continue
            writer.write(chunk)
            await writer.drain()


def has_answer(chunk: bytes) -> bool:
    """Whether a binary frame begins in a run of whole, unmasked WebSocket frames (RFC 6455 section 5.2)."""
    at = 0
    while at + 2 <= len(chunk):
        if chunk[at] & 0x0F == WEBSOCKET_BINARY:
            return True
        length, head = chunk[at + 1] & 0x7F, 2
        if length > 125:
            head += 2 if length == 126 else 8
            length = int.from_bytes(chunk[at + 2 : at + head], "big")
        at += head + length
    return False
