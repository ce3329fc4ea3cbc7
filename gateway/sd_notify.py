"""What systemd is told of a gateway that it started: that it is ready, that it still turns, that it is leaving.

One datagram each to the socket that NOTIFY_SOCKET names, as sd_notify(3) describes; without that variable nothing is
said. The watchdog's message comes from the event loop itself, so a loop that stands still is silent, and replaced.
"""

import asyncio
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

READY, STOPPING, ALIVE = "READY=1", "STOPPING=1", "WATCHDOG=1"
MICROSECONDS = 1_000_000


def notify(text: str, environ: Mapping[str, str] = os.environ) -> None:
    """Tell it. Never fails: a supervisor that does not listen is no reason to end."""
    address = environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return
    if address.startswith("@"):
        address = "\0" + address[1:]  # an abstract socket, unix(7)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as line:
        line.setblocking(False)
        try:
            line.sendto(text.encode(), address)
        except OSError:
            return


def watchdog_s(environ: Mapping[str, str] = os.environ, pid: int | None = None) -> float | None:
    """How often it wants to hear that we are alive: half its limit, as sd_watchdog_enabled(3) advises. None: never."""
    wanted, whose = environ.get("WATCHDOG_USEC", ""), environ.get("WATCHDOG_PID", "")
    ours = str(os.getpid() if pid is None else pid)
    if not wanted.isdigit() or int(wanted) == 0 or whose not in ("", ours):
        return None
    return int(wanted) / MICROSECONDS / 2


@contextmanager
def told_of(text: str, environ: Mapping[str, str] = os.environ) -> Iterator[None]:
    """Ready (with `text` as what it shows of us) and alive inside of it, leaving at its end. Inside a running loop."""
    loop, every_s = asyncio.get_running_loop(), watchdog_s(environ)
    timer: asyncio.TimerHandle | None = None

    def still_alive() -> None:
        nonlocal timer
        assert every_s is not None
        notify(ALIVE, environ)
        timer = loop.call_later(every_s, still_alive)

    notify(f"{READY}\nSTATUS={text}", environ)
    if every_s is not None:
        still_alive()
    try:
        yield
    finally:
        notify(STOPPING, environ)
        if timer is not None:
            timer.cancel()
