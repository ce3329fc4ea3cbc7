"""The journal on a real disk: durable before it says so, never readable, and honest when the disk is full."""

import asyncio
import os
import resource
import stat
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from devices.journal import JOURNAL_NAME, KEY_NAME, Journal, JournalBroken, JournalFull, JournalInUse, read_journal
from devices.keys import KeyFault, create_secret, read_secret
from devices.records import Answered, JournalDamaged, ReversalAnswered, ReversalAsked, Scanned
from gateway.messages import Position, Redeem, Verdict

CODE = "0SECRETVOUCHERCODE0"


def a_redeem(n: int, code: str = CODE) -> Redeem:
    return Redeem(n.to_bytes(16, "big"), code, 1000 + n, merchant_ref="R-7")


def scanned(journal: Journal, redeem: Redeem) -> Scanned:
    code_hash = journal.code_hash(redeem.code)
    return Scanned(redeem.redemption_id, redeem.scanned_ms, code_hash, journal.seal(redeem))


def answered(redeem: Redeem) -> Answered:
    return Answered(redeem.redemption_id, Verdict.ACCEPTED, 0, 17, 4, 5000)


@pytest.fixture
async def journal(tmp_path: Path) -> AsyncIterator[Journal]:
    opened = Journal.open(tmp_path)
    yield opened
    await opened.close()


@contextmanager
def disk_full_at(path: Path, more_bytes: int) -> Iterator[None]:
    """The kernel refuses to let any file grow beyond the journal's size plus this (EFBIG, after a partial write)."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + more_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


async def test_a_restart_finds_the_same_message(tmp_path: Path, journal: Journal) -> None:
    redeem = a_redeem(1)
    await journal.commit(scanned(journal, redeem))
    await journal.close()
    again = Journal.open(tmp_path)
    [record] = again.ledger.open_records()
    assert again.unseal(record) == redeem
    assert again.ledger.unresolved_for(again.code_hash(CODE)) is record
    journal.__dict__.update(again.__dict__)  # the fixture closes the one that is open


async def test_a_code_is_in_no_file(tmp_path: Path, journal: Journal) -> None:
    for n in range(3):
        await journal.commit(scanned(journal, a_redeem(n)))
    await journal.commit(answered(a_redeem(0)))
    files = [tmp_path / name for name in os.listdir(tmp_path)]
    assert len(files) == 3
    assert CODE.encode() not in b"".join(path.read_bytes() for path in files)
    assert {oct(stat.S_IMODE(path.stat().st_mode)) for path in files} == {"0o600"}
    assert CODE not in repr(read_journal(tmp_path / JOURNAL_NAME))


async def test_a_commit_returns_only_after_its_bytes_are_synced(
    tmp_path: Path, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[int] = []
    fdatasync = os.fdatasync

    def watched(fd: int) -> None:
        fdatasync(fd)
        synced.append(os.fstat(fd).st_size)

    monkeypatch.setattr("devices.journal.os.fdatasync", watched)
    for n in range(3):
        await journal.commit(scanned(journal, a_redeem(n)))
        assert synced[-1] == os.stat(tmp_path / JOURNAL_NAME).st_size
    assert len(synced) == 3


async def test_two_seals_of_one_code_do_not_look_alike(journal: Journal) -> None:
    assert journal.seal(a_redeem(1)) != journal.seal(a_redeem(1))


async def test_read_journal_names_what_was_told(tmp_path: Path, journal: Journal) -> None:
    redeem, undo = a_redeem(1), bytes([9]) * 16
    await journal.commit(scanned(journal, redeem))
    await journal.commit(answered(redeem), ReversalAsked(undo, redeem.redemption_id, 6000))
    await journal.commit(ReversalAnswered(undo, redeem.redemption_id, Verdict.ACCEPTED, 0, 18, 0, 7000))
    [record] = read_journal(tmp_path / JOURNAL_NAME)
    assert (record.redemption_id, record.verdict, record.place) == (redeem.redemption_id, 0, Position(0, 17, 4))
    assert [(r.reversal_id, r.verdict, r.place) for r in record.reversals] == [(undo, 0, Position(0, 18, 0))]


async def test_settled_codes_are_forgotten_by_compaction_and_at_the_next_start(tmp_path: Path) -> None:
    journal = Journal.open(tmp_path)
    for n in range(2):
        await journal.commit(scanned(journal, a_redeem(n, f"{CODE}{n}")))
    await journal.commit(answered(a_redeem(0)))
    await journal.close()
    assert [bool(r.sealed) for r in read_journal(tmp_path / JOURNAL_NAME)] == [False, True]
    again = Journal.open(tmp_path)
    try:
        assert [bool(r.code_hash) for r in again.ledger.records.values()] == [False, True]
        assert again.ledger.records[a_redeem(0).redemption_id].place == Position(0, 17, 4)
    finally:
        await again.close()


async def test_compaction_while_scans_keep_coming_loses_none(
    tmp_path: Path, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("devices.journal.COMPACT_AFTER_ANSWERS", 8)

    async def one(n: int) -> None:
        await journal.commit(scanned(journal, a_redeem(n, f"{CODE}{n}")))
        await journal.commit(answered(a_redeem(n)))
        await journal.compact_if_due()

    await asyncio.gather(*(one(n) for n in range(40)))
    records = read_journal(tmp_path / JOURNAL_NAME)
    assert sorted(r.redemption_id for r in records) == [a_redeem(n).redemption_id for n in range(40)]
    assert {r.verdict for r in records} == {Verdict.ACCEPTED}
    assert sum(bool(r.sealed) for r in records) < 20


@pytest.mark.parametrize("more_bytes", (0, 1, 9, 60))
async def test_a_full_disk_refuses_the_scan_and_leaves_no_half_of_it(
    tmp_path: Path, journal: Journal, more_bytes: int
) -> None:
    await journal.commit(scanned(journal, a_redeem(1)))
    before = (tmp_path / JOURNAL_NAME).read_bytes()
    with disk_full_at(tmp_path / JOURNAL_NAME, more_bytes), pytest.raises(JournalFull):
        await journal.commit(scanned(journal, a_redeem(2)))
    assert (tmp_path / JOURNAL_NAME).read_bytes() == before
    assert journal.ledger.open_count() == 1
    await journal.commit(scanned(journal, a_redeem(3)))
    assert len(read_journal(tmp_path / JOURNAL_NAME)) == 2, "room again: it goes on"


async def test_a_disk_that_fails_is_not_believed(tmp_path: Path, journal: Journal) -> None:
    read_only, writable = os.open(tmp_path / JOURNAL_NAME, os.O_RDONLY), os.dup(journal._fd)
    os.dup2(read_only, journal._fd)
    os.close(read_only)
    with pytest.raises(JournalBroken, match="writing the journal failed"):
        await journal.commit(scanned(journal, a_redeem(1)))
    assert journal.ledger.open_count() == 0
    os.dup2(writable, journal._fd)
    os.close(writable)
    with pytest.raises(JournalBroken, match="writing the journal failed"):
        await journal.commit(scanned(journal, a_redeem(1)))
    with pytest.raises(JournalBroken, match="writing the journal failed"):
        await journal.until_broken()


async def test_an_answer_is_true_without_room_for_it_and_written_later(tmp_path: Path, journal: Journal) -> None:
    await journal.commit(scanned(journal, a_redeem(1)))
    with disk_full_at(tmp_path / JOURNAL_NAME, 5):
        await journal.note(answered(a_redeem(1)))
    assert journal.ledger.open_count() == 0
    assert read_journal(tmp_path / JOURNAL_NAME)[0].verdict is None
    await journal.commit(scanned(journal, a_redeem(2)))
    assert [r.verdict for r in read_journal(tmp_path / JOURNAL_NAME)] == [Verdict.ACCEPTED, None]


async def test_a_full_disk_at_the_start_does_not_hide_what_is_open(tmp_path: Path) -> None:
    journal = Journal.open(tmp_path)
    await journal.commit(scanned(journal, a_redeem(1)))
    await journal.close()
    with disk_full_at(tmp_path / JOURNAL_NAME, -1):
        again = Journal.open(tmp_path)
    try:
        [record] = again.ledger.open_records()
        assert again.unseal(record) == a_redeem(1)
        await again.commit(answered(a_redeem(1)))
    finally:
        await again.close()
    assert [r.verdict for r in read_journal(tmp_path / JOURNAL_NAME)] == [Verdict.ACCEPTED]


async def test_a_torn_tail_is_cut_at_the_start_and_written_over(tmp_path: Path) -> None:
    journal = Journal.open(tmp_path)
    await journal.commit(scanned(journal, a_redeem(1)))
    sound_bytes = (tmp_path / JOURNAL_NAME).stat().st_size
    await journal.commit(scanned(journal, a_redeem(2)))
    await journal.close()
    content = (tmp_path / JOURNAL_NAME).read_bytes()
    for cut in range(sound_bytes, len(content), 17):
        (tmp_path / JOURNAL_NAME).write_bytes(content[:cut])
        again = Journal.open(tmp_path)
        await again.commit(scanned(again, a_redeem(3)))
        await again.close()
        assert [r.redemption_id[-1] for r in read_journal(tmp_path / JOURNAL_NAME)] == [1, 3]


async def test_one_daemon_per_directory(tmp_path: Path, journal: Journal) -> None:
    with pytest.raises(JournalInUse, match="another terminal daemon"):
        Journal.open(tmp_path)
    await journal.commit(scanned(journal, a_redeem(1)))


async def test_damage_stops_the_start_and_changes_nothing(tmp_path: Path) -> None:
    journal = Journal.open(tmp_path)
    for n in range(3):
        await journal.commit(scanned(journal, a_redeem(n)))
    await journal.close()
    content = bytearray((tmp_path / JOURNAL_NAME).read_bytes())
    content[40] ^= 1
    (tmp_path / JOURNAL_NAME).write_bytes(content + content[19:])
    with pytest.raises(JournalDamaged, match=r"journal\.bin: the block at byte 19 is damaged"):
        Journal.open(tmp_path)
    assert (tmp_path / JOURNAL_NAME).read_bytes()[: len(content)] == content


async def test_a_journal_without_its_key_is_refused_and_another_key_is_noticed(tmp_path: Path) -> None:
    journal = Journal.open(tmp_path)
    await journal.commit(scanned(journal, a_redeem(1)))
    await journal.close()
    (tmp_path / KEY_NAME).unlink()
    with pytest.raises(KeyFault, match=r"journal\.key is missing"):
        Journal.open(tmp_path)
    create_secret(tmp_path / KEY_NAME)
    again = Journal.open(tmp_path)
    try:
        with pytest.raises(JournalDamaged, match="does not open the scan"):
            again.unseal(again.ledger.open_records()[0])
    finally:
        await again.close()


def test_a_key_others_may_read_is_refused(tmp_path: Path) -> None:
    create_secret(tmp_path / "device.key")
    os.chmod(tmp_path / "device.key", 0o640)
    with pytest.raises(KeyFault, match="chmod 600"):
        read_secret(tmp_path / "device.key")


@pytest.mark.parametrize("content", ("", "zz", "00" * 31, "é" * 64))
def test_a_malformed_key_is_named(tmp_path: Path, content: str) -> None:
    path = tmp_path / "device.key"
    path.write_text(content, "utf-8")
    os.chmod(path, 0o600)
    with pytest.raises(KeyFault, match=r"device\.key does not hold a key"):
        read_secret(path)


def test_a_key_is_never_replaced(tmp_path: Path) -> None:
    secret = create_secret(tmp_path / "device.key")
    with pytest.raises(FileExistsError):
        create_secret(tmp_path / "device.key")
    assert read_secret(tmp_path / "device.key") == secret
