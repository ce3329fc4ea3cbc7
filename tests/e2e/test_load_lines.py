"""A till of the load generator on a line that goes wrong."""

import asyncio
from types import SimpleNamespace
from typing import cast

import pytest

from loadtest import generator_lines
from loadtest.bench_plan import Till
from loadtest.generator_crew import Crew
from loadtest.generator_lines import StreamLine


async def test_a_line_that_was_never_greeted_is_gone_before_the_next_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generator_lines, "GREETING_SECONDS_MAX", 0.2)
    ended: list[bytes] = []
    over = asyncio.Event()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            ended.append(await reader.read())
        except ConnectionResetError:
            ended.append(b"")
        writer.close()
        over.set()

    async with await asyncio.start_server(silent, "127.0.0.1", 0) as server:
        place = SimpleNamespace(host="127.0.0.1", port=server.sockets[0].getsockname()[1])
        line = StreamLine(cast(Crew, SimpleNamespace(loop=asyncio.get_running_loop(), plan=place)), Till(1, b""), 0)
        with pytest.raises(TimeoutError):
            await line.connect()
        async with asyncio.timeout(5):
            await over.wait()
    assert len(ended) == 1
    assert not line.is_open
