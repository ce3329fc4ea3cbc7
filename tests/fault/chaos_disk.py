"""A disk that loses what was not synced: builds power_loss.c, talks to it, and takes the power away.

What a power failure leaves of the writes since the last fsync is chosen at random, as a disk may: of bytes appended to
Valkey's AOF a prefix (a file system journals their order), of SQLite's files any set of 512-byte sectors, so frames and
pages are torn too. Not modelled: lost renames and new names, a disk that lies about fsync, rot (the tests flip bytes).
"""

import mmap
import os
import random
import shutil
import struct
import subprocess
from collections import Counter
from pathlib import Path

SOURCE = Path(__file__).with_name("power_loss.c")
SECTOR = 512
_CONTROL = struct.Struct("<IIIIqQ")  # struct control of power_loss.c
_HEAD = struct.Struct("<Q")
_RECORD = struct.Struct("<QQII")  # struct record
_DELAY, _EIO, _FULL, _FAILURES, _CLOCK, _SYNCS = range(6)
_OFFSETS = (0, 4, 8, 12, 16, 24)
_FORMS = "IIIIqQ"


def build(directory: Path) -> Path:
    """The shim as a library. Raises subprocess.CalledProcessError, FileNotFoundError (no `cc`)."""
    library = directory / "power_loss.so"
    command = ["cc", "-O1", "-shared", "-fPIC", "-o", str(library), str(SOURCE), "-ldl", "-lpthread"]
    subprocess.run(command, check=True, capture_output=True)
    return library


class Disk:
    """What one server's files lie on."""

    def __init__(self, library: Path, files: Path, side: Path) -> None:
        side.mkdir()
        self._library, self._files, self._side = library, files, side
        self.taken_back: Counter[str] = Counter()  # power failures that found something unsynced, by kind of file
        self._control = side / "control"
        self._control.write_bytes(bytes(_CONTROL.size))
        with self._control.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), _CONTROL.size)

    def environment(self) -> dict[str, str]:
        """What a process needs to live on this disk."""
        return {
            "LD_PRELOAD": str(self._library),
            "CHAOS_DIR": str(self._files),
            "CHAOS_SIDE": str(self._side),
            "CHAOS_CONTROL": str(self._control),
        }

    def _set(self, field: int, value: int) -> None:
        struct.pack_into("<" + _FORMS[field], self._map, _OFFSETS[field], value)

    def _get(self, field: int) -> int:
        return int(struct.unpack_from("<" + _FORMS[field], self._map, _OFFSETS[field])[0])

    def slow(self, milliseconds_max: int) -> None:
        """Each fsync takes up to this much longer."""
        self._set(_DELAY, milliseconds_max * 1000)

    def fail_sync(self, number: int) -> None:
        """The log's fsync of this number from now fails with EIO, until then each of an index does; 0: none."""
        self._set(_EIO, number)

    def full(self, is_full: bool) -> None:
        """No file grows any more."""
        self._set(_FULL, int(is_full))

    def step_clock(self, milliseconds: int) -> None:
        """How far the wall clock of the processes here is off."""
        self._set(_CLOCK, milliseconds)

    @property
    def failures(self) -> int:
        """How often EIO or ENOSPC was answered."""
        return self._get(_FAILURES)

    @property
    def syncs(self) -> int:
        return self._get(_SYNCS)

    def heal(self) -> None:
        """Fast, with room, and on time."""
        self.slow(0)
        self.fail_sync(0)
        self.full(False)
        self.step_clock(0)

    def lose_power(self, rng: random.Random) -> None:
        """Take back unsynced writes of processes that are dead."""
        files = {path.stat().st_ino: path for path in self._files.rglob("*") if path.is_file()}
        for undo in self._side.glob("*.undo"):
            path = files.get(int(undo.stem))
            writes = _unsynced(undo.read_bytes())
            undo.unlink()
            if path is not None and writes:
                _take_back(path, writes, rng)
                self.taken_back[path.name if path.suffix != ".aof" else "aof"] += 1

    def forget(self) -> None:
        """The files were replaced as a whole; what they are now is what is on the disk."""
        for undo in self._side.glob("*.undo"):
            undo.unlink()

    def close(self) -> None:
        self._map.close()


_Write = tuple[int, int, int, bytes]  # where, the file's size before, bytes written, bytes that were there


def _unsynced(side: bytes) -> list[_Write]:
    if len(side) < _HEAD.size:
        return []
    writes, at = [], _HEAD.unpack_from(side)[0]
    while at + _RECORD.size <= len(side):
        where, size_before, old, fresh = _RECORD.unpack_from(side, at)
        at += _RECORD.size
        if at + old > len(side):
            break  # killed while it remembered: that write never began
        writes.append((where, size_before, fresh, side[at : at + old]))
        at += old
    return writes


def _take_back(path: Path, writes: list[_Write], rng: random.Random) -> None:
    with path.open("r+b") as file:
        if path.parent.name == "appendonlydir":
            _cut_short(file.fileno(), writes, rng)
        else:
            _tear(file.fileno(), writes, rng)


def _undo(fd: int, writes: list[_Write]) -> None:
    for where, size_before, _, old in reversed(writes):
        os.pwrite(fd, old, where)
        os.ftruncate(fd, size_before)


def _cut_short(fd: int, writes: list[_Write], rng: random.Random) -> None:
    """Keep some of the writes in their order, and a part of the next one."""
    kept = rng.choice((0, rng.randint(0, len(writes) - 1)))
    where, _, fresh, _ = writes[kept]
    torn = os.pread(fd, rng.randint(0, fresh), where) if kept else b""
    _undo(fd, writes[kept:])
    os.pwrite(fd, torn, where)


def _tear(fd: int, writes: list[_Write], rng: random.Random) -> None:
    """Keep any set of sectors of what was written."""
    sectors = {at // SECTOR for where, _, fresh, _ in writes for at in range(where, where + fresh, SECTOR)}
    sectors |= {(where + fresh - 1) // SECTOR for where, _, fresh, _ in writes if fresh}
    cached = {sector: os.pread(fd, SECTOR, sector * SECTOR) for sector in sorted(sectors)}
    _undo(fd, writes)
    odds = rng.choice((0.0, rng.random(), 1.0))
    for sector, content in cached.items():
        if rng.random() < odds:
            os.pwrite(fd, content, sector * SECTOR)


def copy_files(source: Path, target: Path) -> None:
    """A directory as it is now, while somebody may be writing it."""
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target)
