"""A snapshot on disk: found, proven, read, and put in place of the one before, at once or not at all."""

import os
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from mmap import ACCESS_READ, mmap
from pathlib import Path

from eventstore.finished import Finished
from eventstore.log import Head
from eventstore.snapshot import (
    END,
    FRAME,
    Manifest,
    Refused,
    Section,
    Why,
    decode_manifest,
    encode_manifest,
    rows_in,
    start_rows,
)

MANIFEST_FILE = "snapshot.json"
PART_SUFFIX = ".part"  # of whatever is not finished; what a kill left of one is removed by the next writer
READ_BYTES = 1 << 20


def read_manifest(directory: Path) -> Manifest | Refused:
    """The newest snapshot's manifest; its rows are not looked at. Raises OSError."""
    try:
        content = (directory / MANIFEST_FILE).read_bytes()
    except FileNotFoundError:
        return Refused(Why.MISSING, f"there is none in {directory}")
    return decode_manifest(content)


def check_rows(directory: Path, manifest: Manifest) -> Refused | None:
    """Read all rows, and compare every section's checksum. Takes about a second for a GiB. Raises OSError."""
    try:
        with open(directory / manifest.file, "rb") as file:
            at = 0
            for number, section in enumerate(manifest.sections):
                if section.start != at or _crc_of(file.read, section.length) != section.crc:
                    return Refused(Why.DAMAGED, f"section {number} of {manifest.file}: checksum does not match")
                at += section.length
            if file.read(1):
                return Refused(Why.DAMAGED, f"{manifest.file} goes on behind its last section")
    except FileNotFoundError:
        return Refused(Why.DAMAGED, f"{manifest.file} is missing")
    return None


def _crc_of(read: Callable[[int], bytes], length: int) -> int:
    crc = 0
    while length and (piece := read(min(length, READ_BYTES))):
        crc = zlib.crc32(piece, crc)
        length -= len(piece)
    return crc if not length else -1


def read_section(path: Path, section: Section) -> bytes | None:
    """The rows of one section; None if its checksum does not match. Raises OSError."""
    with open(path, "rb") as file:
        file.seek(section.start)
        content = file.read(section.length)
    return content if zlib.crc32(content) == section.crc else None


def read_proven(path: Path, sections: Sequence[Section]) -> Iterator[Finished]:
    """The hashes of sections that `check_rows` has just looked at, page by page as they are asked for."""
    with open(path, "rb") as file, mmap(file.fileno(), 0, access=ACCESS_READ) as rows:
        for section in sections:
            yield from rows_in(rows, section.start, section.start + section.length)


def join_rows(target: Path, heads: Mapping[int, Head], parts: Sequence[tuple[Path, Section]]) -> list[Section]:
    """Write the file of rows of its parts, whose `start` does not count yet, and sync it. Raises OSError."""
    start = start_rows(heads)
    sections = [Section(FRAME, 0, 0, len(start), zlib.crc32(start))]
    at = len(start)
    with open(os.open(target, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o600), "wb") as file:
        file.write(start)
        file.flush()
        for path, part in parts:
            _append(file.fileno(), path, part.length)
            sections.append(Section(part.partition, part.slice, at, part.length, part.crc))
            at += part.length
        file.seek(at)
        file.write(END)
        file.flush()
        os.fsync(file.fileno())
    sections.append(Section(FRAME, 1, at, len(END), zlib.crc32(END)))
    return sections


def _append(target_fd: int, source: Path, length: int) -> None:
    with open(source, "rb") as file:
        left = length
        while left and (sent := os.sendfile(target_fd, file.fileno(), None, left)):
            left -= sent
    assert left == 0, f"{source} is {left} bytes short"


def put_in_place(directory: Path, manifest: Manifest) -> None:
    """From here on this is the snapshot; its rows are on disk. What came before it is removed. Raises OSError."""
    draft = directory / (MANIFEST_FILE + PART_SUFFIX)
    with open(os.open(draft, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o600), "wb") as file:
        file.write(encode_manifest(manifest))
        file.flush()
        os.fsync(file.fileno())
    sync(directory)  # the rows have their name before the manifest names them
    draft.replace(directory / MANIFEST_FILE)
    sync(directory)
    remove_others(directory, manifest.file)


def remove_others(directory: Path, kept: str) -> None:
    """Every file of rows but one, and whatever was left unfinished. Raises OSError."""
    for path in [*directory.glob("*.rdb"), *directory.glob(f"*{PART_SUFFIX}")]:
        if path.name != kept:
            path.unlink(missing_ok=True)


def sync(directory: Path) -> None:
    """Make names durable."""
    fd = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
