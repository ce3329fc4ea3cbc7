"""The connection to Valkey, on the gateway's own event loop: killed in the middle of calls, and left alone for long."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import uvloop

from gateway.embedded import EmbeddedValkey
from gateway.main import connector_of_endpoint
from gateway.pipe import ArbiterLost, Pipe

CALLERS = 30
ROUNDS = 6  # the race that once got through was won or lost by microseconds: 4 rounds in 10 saw it
BREATH_S = 0.05
IDLE_S = 0.3


@asynccontextmanager
async def piped(directory: Path) -> AsyncIterator[tuple[EmbeddedValkey, Pipe, list[str]]]:
    """A private Valkey, a pipe to it whose own time-out is short, and a list that grows when the pipe is lost."""
    valkey, losses = EmbeddedValkey(directory, on_report=lambda text: None), list[str]()
    connection = connector_of_endpoint(await valkey.start())()
    await connection.connect()
    connection.socket_timeout = IDLE_S / 3
    pipe = Pipe(connection, lambda: losses.append("lost"))
    try:
        yield valkey, pipe, losses
    finally:
        await pipe.close()
        await valkey.stop()


async def call_until_lost(pipe: Pipe) -> None:
    """Raises whatever else a call may raise."""
    while True:
        try:
            await pipe.call("SET", "k", bytes(600))
        except ArbiterLost:
            return


def test_calls_to_a_killed_valkey_are_lost_and_nothing_else(directory: Path) -> None:
    async def kill_in_the_middle() -> None:
        async with piped(directory) as (valkey, pipe, losses):
            callers = [asyncio.create_task(call_until_lost(pipe)) for _ in range(CALLERS)]
            await asyncio.sleep(BREATH_S)
            assert valkey.pid is not None
            os.kill(valkey.pid, signal.SIGKILL)
            await asyncio.wait_for(asyncio.gather(*callers), 10)
            assert losses == ["lost"]

    for _ in range(ROUNDS):
        uvloop.run(kill_in_the_middle())


def test_a_lost_pipe_never_connects_again_by_itself(directory: Path) -> None:
    async def disconnect_behind_its_back() -> None:
        async with piped(directory) as (_, pipe, losses):
            await pipe._connection.disconnect(nowait=True)
            for _ in range(2):
                with pytest.raises(ArbiterLost):
                    await pipe.call("PING")
            assert losses == ["lost"]
            assert not pipe._connection.is_connected

    uvloop.run(disconnect_behind_its_back())


def test_a_pipe_that_is_idle_is_not_lost(directory: Path) -> None:
    async def be_idle() -> None:
        async with piped(directory) as (_, pipe, losses):
            await asyncio.sleep(IDLE_S)
            assert await pipe.call("PING") in (b"PONG", "PONG")
            assert losses == []

    uvloop.run(be_idle())
