"""Disks that misbehave on purpose under a deployment: one whose fsync is slow, and a small one that fills up.

Both need something of the machine, a C compiler or the right to mount; where it is missing FaultImpossible says so.
"""

import errno
import mmap
import os
import shutil
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from loadtest.own_server import GatewayFailed

SLOW_SYNC_SOURCE = Path(__file__).with_name("slow_sync.c")
SMALL_DISK_BYTES = 256 << 20  # two million scans, and what SQLite and Valkey need beside them
_BALLAST = "ballast"
_PIECE = bytes(1 << 20)
_DELAY = struct.Struct("<I")


class FaultImpossible(GatewayFailed):
    """This fault cannot be done to this deployment or on this machine; says why and what would help."""


class SlowSync:
    """fsync and fdatasync of one process, slower by a time that can be changed while it runs."""

    def __init__(self, directory: Path) -> None:
        """Builds the library in `directory`. Raises FaultImpossible where there is no C compiler."""
        library, control = directory / "slow_sync.so", directory / "slow_sync.delay"
        command = ["cc", "-O1", "-shared", "-fPIC", "-o", str(library), str(SLOW_SYNC_SOURCE), "-ldl"]
        try:
            subprocess.run(command, check=True, capture_output=True, text=True)
        except FileNotFoundError:
            raise FaultImpossible("slow-fsync needs a C compiler named cc (Debian: apt-get install gcc)") from None
        except subprocess.CalledProcessError as error:
            raise FaultImpossible(f"slow-fsync: cc failed: {error.stderr.strip()[-300:]}") from None
        control.write_bytes(bytes(_DELAY.size))
        with control.open("r+b") as file:
            self._delay = mmap.mmap(file.fileno(), _DELAY.size)
        self.environment = {"LD_PRELOAD": str(library), "SLOW_SYNC_CONTROL": str(control)}

    def slow(self, milliseconds: float) -> None:
        """How much longer each fsync takes from now on; 0: none."""
        _DELAY.pack_into(self._delay, 0, round(milliseconds * 1000))


@contextmanager
def small_disk(directory: Path) -> Iterator[None]:
    """`directory` on a file system of SMALL_DISK_BYTES in memory; what lies there in the end is kept in `directory`.

    Raises FaultImpossible without the right to mount.
    """
    options = f"size={SMALL_DISK_BYTES},mode=700"
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "tillgate-load", str(directory)],
        capture_output=True,
        text=True,
        check=False,
    )
    if mounted.returncode:
        raise FaultImpossible(f"disk-full needs the right to mount a small disk (root): {mounted.stderr.strip()}")
    try:
        yield
    finally:
        kept = directory.with_name(f"{directory.name}.kept")
        shutil.copytree(directory, kept, ignore=shutil.ignore_patterns("*.sock"))
        subprocess.run(["umount", "--lazy", str(directory)], check=True, capture_output=True)
        directory.rmdir()
        kept.rename(directory)


def fill(directory: Path) -> None:
    """Leave nothing free on the disk of `directory`."""
    file = os.open(directory / _BALLAST, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    piece = memoryview(_PIECE)
    try:
        while piece:
            try:
                os.write(file, piece)
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
                piece = piece[: len(piece) // 2]  # the last sectors are taken in smaller and smaller pieces
    finally:
        os.close(file)


def free(directory: Path) -> None:
    """Undo `fill`."""
    (directory / _BALLAST).unlink(missing_ok=True)
