"""A directory that picture files are put into: each is one scan, in the order they came, and leaves when it is settled.

A picture is looked at again only when its file has changed, so that one that is still being written costs nothing and
is read as soon as it is whole. Looking is listing: it works on every file system, also on shares, where the kernel
tells nothing. Names that begin with a dot are left alone: many programs write under such a name first. Blocks.
"""

import contextlib
import os
import stat
from pathlib import Path
from typing import NamedTuple

from devices.camera_pixels import PICTURE_BYTES_MAX

LOOK_S = 0.02  # a listing of an empty directory costs some 20 us: 0.1 % of a core, for an answer at once
STALLED_S = 5.0  # a file that is no whole picture and does not change for so long will not become one
ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".pgm", ".ppm", ".webp", ".gif")  # nothing else in there is touched
UNREAD = ".unread"


class _Version(NamedTuple):
    inode: int
    size: int
    changed_ns: int


class Picture(NamedTuple):
    path: Path
    octets: bytes
    version: _Version
    was_there: bool  # before we were


class PictureFolder:
    """Keeps which files are not whole yet, and which are dealt with but would not go."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._looked_at: dict[str, tuple[_Version, float]] = {}  # not whole: its version then, and when
        self._dealt: dict[str, _Version] = {}
        self._first: frozenset[str] = frozenset()

    def open(self) -> None:
        """Raises OSError when nothing can be taken out of it."""
        if not os.access(self._directory, os.R_OK | os.W_OK | os.X_OK):
            raise PermissionError(0, "pictures cannot be taken out of this directory: write permission is needed")
        self._first = frozenset(name for name, _ in self._pictures())

    def next(self, now_s: float) -> Picture | None:
        """The oldest picture that is to be looked at. Raises OSError when the directory is gone, or keeps its files."""
        present = sorted(self._pictures(), key=lambda found: (found[1].changed_ns, found[0]))
        names = {name for name, _ in present}
        self._first &= names
        self._looked_at = {name: seen for name, seen in self._looked_at.items() if name in names}
        self._dealt = {name: version for name, version in self._dealt.items() if name in names}
        for name, version in present:
            path = self._directory / name
            if self._dealt.get(name) == version:
                self.remove(Picture(path, b"", version, False))
            elif self._is_due(name, version, now_s) and (octets := _octets(path)) is not None:
                return Picture(path, octets, version, name in self._first)
        return None

    def not_whole(self, picture: Picture, now_s: float) -> bool:
        """It may still be written: leave it until it changes. False: it has not changed for too long."""
        version, at_s = self._looked_at.get(picture.path.name, (None, now_s))
        if version != picture.version:
            self._looked_at[picture.path.name] = (picture.version, now_s)
            return True
        return now_s - at_s < STALLED_S

    def _is_due(self, name: str, version: _Version, now_s: float) -> bool:
        looked_at, at_s = self._looked_at.get(name, (None, now_s))
        return looked_at != version or now_s - at_s >= STALLED_S

    def remove(self, picture: Picture) -> None:
        """Its scan is in the journal. Raises OSError if it stays; it is not read again all the same."""
        self._dealt[picture.path.name] = picture.version
        picture.path.unlink(missing_ok=True)
        del self._dealt[picture.path.name]

    def set_aside(self, picture: Picture) -> None:
        """It is no scan: its name ends in `.unread` from now on, for whoever wants to see why."""
        self._dealt[picture.path.name] = picture.version
        with contextlib.suppress(FileNotFoundError):
            picture.path.rename(picture.path.with_name(picture.path.name + UNREAD))
        del self._dealt[picture.path.name]

    def _pictures(self) -> list[tuple[str, _Version]]:
        found = []
        with os.scandir(self._directory) as entries:
            for entry in entries:
                if entry.name.lower().endswith(ENDINGS) and not entry.name.startswith("."):
                    try:
                        is_file, told = entry.is_file(follow_symlinks=False), entry.stat(follow_symlinks=False)
                    except FileNotFoundError:  # taken back meanwhile
                        continue
                    if is_file:
                        found.append((entry.name, _Version(told.st_ino, told.st_size, told.st_mtime_ns)))
        return found


def _octets(path: Path) -> bytes | None:
    """At most one byte more than may be, which is enough to see that it is too much."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    with open(fd, "rb") as file:
        return file.read(PICTURE_BYTES_MAX + 1) if stat.S_ISREG(os.fstat(fd).st_mode) else None
