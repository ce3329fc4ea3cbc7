"""Word from the kernel that a device has come, so that a scanner is back at once and not at the next look.

The kernel broadcasts uevents on a netlink socket (lib/kobject_uevent.c): a line `add@/devices/...`, then `KEY=value`,
each closed by a zero byte. They are read directly, so that it works without udevd; where udevd runs, the node gets its
group a moment later, and the first attempts to open it may fail. Where no such socket can be had (some containers)
only `within` is slower: it waits its whole time.
"""

import asyncio
import contextlib
import socket
from types import TracebackType

NETLINK_KOBJECT_UEVENT = 15  # linux/netlink.h
KERNEL_GROUP = 1  # group 2 is udevd's, in a format of its own
KERNEL_PID = 0
UEVENT_BYTES_MAX = 8192  # the kernel's buffer for one is 2 KiB
READS_MAX = 64  # a hub with everything on it; what is left is read in the next turn of the loop
COMING = ("add", "bind", "change", "online", "move")


def parse_uevent(octets: bytes) -> dict[str, str]:
    """ACTION, SUBSYSTEM, DEVNAME and so on; empty for what is no uevent of the kernel."""
    head, *lines = octets.split(b"\0")
    if b"@/" not in head:
        return {}
    pairs = (line.decode("utf-8", "replace").partition("=") for line in lines)
    return {key: value for key, found, value in pairs if found}


class Uevents:
    """While entered, listens for devices of one subsystem (`tty`, `input`, `hidraw`, `video4linux`)."""

    def __init__(self, subsystem: str) -> None:
        self._subsystem = subsystem
        self._socket: socket.socket | None = None
        self._came = asyncio.Event()

    def __enter__(self) -> "Uevents":
        try:
            self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, NETLINK_KOBJECT_UEVENT)
            self._socket.setblocking(False)
            self._socket.bind((0, KERNEL_GROUP))
        except OSError:
            self._close()
        else:
            asyncio.get_running_loop().add_reader(self._socket, self._read)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._socket:
            asyncio.get_running_loop().remove_reader(self._socket)
        self._close()

    @property
    def listening(self) -> bool:
        return self._socket is not None

    async def within(self, seconds: float) -> bool:
        """Whether a device came since the last call; waits for one so long at most."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._came.wait()
        came = self._came.is_set()
        self._came.clear()
        return came

    def _close(self) -> None:
        if self._socket:
            self._socket.close()
        self._socket = None

    def _read(self) -> None:
        assert self._socket
        for _ in range(READS_MAX):
            try:
                octets, (pid, _group) = self._socket.recvfrom(UEVENT_BYTES_MAX)
            except BlockingIOError:
                return
            except OSError:
                self._came.set()  # ENOBUFS: more came than the socket holds; what it was is not known
                return
            about = parse_uevent(octets) if pid == KERNEL_PID else {}
            if about.get("SUBSYSTEM") == self._subsystem and about.get("ACTION") in COMING:
                self._came.set()
