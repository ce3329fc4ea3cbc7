"""What systemd is told, on a real datagram socket."""

import asyncio
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.sd_notify import notify, told_of, watchdog_s


@pytest.fixture
def listener(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as line:
        line.bind(os.fspath(tmp_path / "notify"))
        line.settimeout(5)
        yield line


def environ_of(listener: socket.socket, **more: str) -> dict[str, str]:
    return {"NOTIFY_SOCKET": listener.getsockname(), **more}


async def heard(listener: socket.socket) -> bytes:
    return await asyncio.to_thread(listener.recv, 4096)


async def test_ready_alive_leaving(listener: socket.socket) -> None:
    with told_of("serving", environ_of(listener, WATCHDOG_USEC="20000")):
        assert await heard(listener) == b"READY=1\nSTATUS=serving"
        for _ in range(3):
            assert await heard(listener) == b"WATCHDOG=1"
    told = b"WATCHDOG=1"
    while told == b"WATCHDOG=1":
        told = await heard(listener)
    assert told == b"STOPPING=1"


async def test_without_a_watchdog_only_the_ends_are_told(listener: socket.socket) -> None:
    with told_of("serving", environ_of(listener)):
        assert (await heard(listener)).startswith(b"READY=1")
    assert await heard(listener) == b"STOPPING=1"


def test_an_abstract_socket() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as line:
        line.bind(f"\0tillgate-test-{os.getpid()}")
        line.settimeout(5)
        notify("READY=1", {"NOTIFY_SOCKET": f"@tillgate-test-{os.getpid()}"})
        assert line.recv(64) == b"READY=1"


@pytest.mark.parametrize("address", ("", "relative", "/nowhere/at/all"))
def test_nobody_who_listens_is_no_fault(address: str) -> None:
    notify("READY=1", {"NOTIFY_SOCKET": address})


@pytest.mark.parametrize(
    ("environ", "seconds"),
    (
        ({}, None),
        ({"WATCHDOG_USEC": "30000000"}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "7"}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "8"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
    ),
)
def test_how_often_the_watchdog_wants_to_hear(environ: dict[str, str], seconds: float | None) -> None:
    assert watchdog_s(environ, pid=7) == seconds
