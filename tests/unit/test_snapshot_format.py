"""The two files of a snapshot, to the byte, and every reason not to use one."""

import os
import zlib
from pathlib import Path

import anycrc
import msgspec
import pytest
from log_batches import AT_MS, id16

from eventstore.finished import PIECE_BYTES, Fields
from eventstore.log import Head
from eventstore.snapshot import (
    END,
    FRAME,
    Manifest,
    Refused,
    Section,
    Why,
    apart,
    check_owner,
    check_place,
    decode_manifest,
    dump,
    encode_manifest,
    rows_in,
    rows_of,
    start_rows,
)
from eventstore.snapshot_file import check_rows, join_rows, put_in_place, read_manifest, read_section

GOLDEN = Path(__file__).parents[1] / "golden"
HEADS = {0: Head(7, id16("tip")), 1: Head(0, bytes(16))}
MANIFEST = Manifest(
    format=1,
    deployment_id="d",
    at_ms=AT_MS,
    file="rows-1.rdb",
    slices=1,
    heads={partition: (head.seq, head.tip) for partition, head in HEADS.items()},
    records=3,
    purged=[9],
    applied=[(0, 1, 7, 3)],
    sections=[],
)


def piece(field: int, filling: int) -> bytes:
    return bytes((field, 1, 0xA0)) + b"R" + bytes([filling]) * 31 + b"\x21"


ROWS: list[tuple[bytes, bytes | Fields]] = [
    (b"{0}v7:3", piece(5, 1)),
    (b"{0}v7:4", b"".join(piece(field, 2) for field in range(64))),
    (b"{0}v7:5", {b"9": b"R" * 32 + b"r" * 32}),
    (b"{0}rabcd", {bytes.fromhex("abcd") + bytes(14): bytes(12)}),
]


def written(directory: Path) -> Manifest:
    """A small snapshot in `directory`."""
    content = rows_of(ROWS)
    part = directory / "0.part"
    part.write_bytes(content)

    sections = join_rows(
        directory / MANIFEST.file, HEADS, [(part, Section(0, 0, 0, len(content), zlib.crc32(content)))]
    )
    manifest = msgspec.structs.replace(MANIFEST, sections=sections)
    put_in_place(directory, manifest)
    return manifest


def test_the_files_are_those_of_format_1(tmp_path: Path) -> None:
    manifest = written(tmp_path)
    golden = (GOLDEN / "snapshot_1_rows.hex").read_text().strip()
    assert (tmp_path / manifest.file).read_bytes().hex() == golden
    assert (tmp_path / "snapshot.json").read_bytes() == (GOLDEN / "snapshot_1.json").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["rows-1.rdb", "snapshot.json"]
    assert all(path.stat().st_mode & 0o077 == 0 for path in tmp_path.iterdir())


def test_what_was_written_is_read(tmp_path: Path) -> None:
    manifest = written(tmp_path)
    assert read_manifest(tmp_path) == manifest
    assert check_rows(tmp_path, manifest) is None
    (section,) = manifest.rows_of(0)
    rows = read_section(tmp_path / manifest.file, section)
    assert rows is not None
    assert list(rows_in(rows)) == ROWS
    assert [section.partition for section in manifest.sections] == [FRAME, 0, FRAME]


@pytest.mark.parametrize("wanted", ((), (0,), (1, 2), (3,), (0, 1, 2, 3)))
def test_rows_are_taken_apart_by_key_and_the_others_left_as_they_lie(wanted: tuple[int, ...]) -> None:
    section = rows_of(ROWS)
    found, others = apart(section, {ROWS[number][0] for number in wanted})
    assert found == [ROWS[number] for number in wanted]
    left = [rest for number, rest in enumerate(ROWS) if number not in wanted]
    assert [rest for start, end in others for rest in rows_in(section[start:end])] == left
    assert len(others) == {(): 1, (0,): 1, (1, 2): 2, (3,): 1, (0, 1, 2, 3): 0}[wanted]
    assert apart(section, None) == (ROWS, [])


def test_a_hash_alone_is_what_dump_tells() -> None:
    told = dump({b"9": b"Rr"})  # DUMP of Redis 7.0 of a hash with a long value; the layout is in its cluster.c
    assert told[:-8].hex() == "040101390252720a00"
    assert dump(piece(5, 1))[:-10] == b"\x10\x2b" + ROWS[0][1].join((bytes.fromhex("2b0000000200"), b"\xff"))
    assert anycrc.Model("CRC64-REDIS").calc(b"123456789") == 0xE9C6D914C4B8D9CA  # what `crc64.c` says of itself


def test_every_flipped_bit_is_found(tmp_path: Path) -> None:
    manifest = written(tmp_path)
    for name in (manifest.file, "snapshot.json"):
        good = (tmp_path / name).read_bytes()
        with (tmp_path / name).open("r+b", buffering=0) as file:
            for at in range(len(good)):
                os.pwrite(file.fileno(), bytes([good[at] ^ 1 << at % 8]), at)
                found = read_manifest(tmp_path)
                refused = found if isinstance(found, Refused) else check_rows(tmp_path, found)
                assert refused is not None, f"{name} at {at}"
                assert refused.why is (Why.DAMAGED if name == manifest.file else Why.UNREADABLE)
                os.pwrite(file.fileno(), good[at : at + 1], at)


def test_rows_that_are_short_long_or_gone_are_refused(tmp_path: Path) -> None:
    manifest = written(tmp_path)
    rows = tmp_path / manifest.file
    good = rows.read_bytes()
    for bad in (good[:-1], good[: len(good) // 2], b"", good + b"x"):
        rows.write_bytes(bad)
        refused = check_rows(tmp_path, manifest)
        assert refused is not None
        assert refused.why is Why.DAMAGED
    rows.unlink()
    refused = check_rows(tmp_path, manifest)
    assert refused is not None
    assert "missing" in refused.text


def test_none_another_format_and_no_manifest_at_all(tmp_path: Path) -> None:
    missing = read_manifest(tmp_path)
    assert isinstance(missing, Refused)
    assert missing.why is Why.MISSING
    newer = decode_manifest(encode_manifest(msgspec.structs.replace(MANIFEST, format=2)))
    assert newer == Refused(Why.FORMAT, "snapshot format 2, this build reads 1")
    for content in (b"", b"00000000\n", b"\xff\n{}"):
        found = decode_manifest(content)
        assert isinstance(found, Refused)
        assert found.why is Why.UNREADABLE


def test_of_another_deployment() -> None:
    assert check_owner(MANIFEST, "d", 2) is None
    for refused in (check_owner(MANIFEST, "e", 2), check_owner(MANIFEST, "d", 1)):
        assert refused is not None
        assert refused.why is Why.FOREIGN


@pytest.mark.parametrize(
    ("log_head", "there", "why"),
    (
        (Head(9, bytes(16)), id16("tip"), None),
        (HEADS[0], id16("tip"), None),
        (Head(6, bytes(16)), None, Why.AHEAD),
        (Head(9, bytes(16)), id16("other"), Why.OFF_CHAIN),
    ),
)
def test_its_place_in_the_log(log_head: Head, there: bytes | None, why: Why | None) -> None:
    refused = check_place(MANIFEST, 0, log_head, there)
    assert (refused.why if refused else None) is why
    assert check_place(MANIFEST, 1, log_head, None) is None


def test_what_a_server_loads_begins_and_ends_so() -> None:
    assert start_rows({}) == b"REDIS0010\xfe\x00"
    assert b"\xff" + bytes(8) == END
    assert len(piece(1, 1)) == PIECE_BYTES
