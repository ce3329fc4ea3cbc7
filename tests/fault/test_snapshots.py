"""Snapshots on a real log and a private Valkey: used when they are right, named and left alone when they are not."""

import asyncio
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from cli_world import tillgate
from core_world import new_id, offer, until, wall_ms
from private_valkey import short_directory
from stream_world import Site, config_for, site

from eventstore.events import REDEEM, REVERSE, CampaignClosed, CampaignCreated
from eventstore.projections import CampaignTally
from eventstore.snapshot import Manifest, Refused, Why
from eventstore.sqlite_file import open_reader
from gateway import doctor, recovery
from gateway.core import LOG_FILE
from gateway.directory import Rejected
from gateway.main import running
from gateway.messages import Redeem, Reverse, Verdict
from gateway.snapshots import DIRECTORY, Snapshots
from gateway.storage import open_log_reader

SNAPSHOT = """
import asyncio, sys, msgspec
from gateway.settings import Config
from gateway.snapshots import Snapshots
asyncio.run(Snapshots(msgspec.json.decode(sys.argv[1], type=Config), print).write(None))
"""


@pytest.fixture
def directory() -> Iterator[Path]:
    with short_directory() as directory:
        yield directory / "data"


async def redeem(here: Site, count: int, request: str = "r1", slug: str = "cake") -> list[Redeem]:
    scans = [here.w.scan(code) for code in await here.w.codes(count, slug, request)]
    async with here.till(1) as till:
        for scan in scans:
            assert (await till.verdict(scan))[0] is Verdict.ACCEPTED
    return scans


async def redeemed(directory: Path, count: int = 30) -> list[Redeem]:
    """A deployment at rest, with so many vouchers redeemed."""
    async with site(directory) as here:
        return await redeem(here, count)


def snapshots_of(directory: Path, reports: list[str] | None = None) -> Snapshots:
    return Snapshots(config_for(directory), (reports if reports is not None else []).append)


async def looked_at(directory: Path) -> Manifest | Refused:
    snapshots = snapshots_of(directory)
    reader = await open_log_reader(config_for(directory))
    try:
        return await snapshots.usable(reader)
    finally:
        await reader.close()


async def why_refused(directory: Path) -> Why | None:
    found = await looked_at(directory)
    return found.why if isinstance(found, Refused) else None


async def log_head(directory: Path) -> int:
    reader = open_reader(directory / LOG_FILE)
    try:
        return (await reader.head(0)).seq
    finally:
        await reader.close()


async def told_again(directory: Path, scans: list[Redeem], reports: list[str]) -> set[Verdict]:
    """What another till is told of the same codes after a start; the reports of that start."""
    told = set()
    async with running(config_for(directory), report=reports.append):
        pass
    async with site(directory) as here, here.till(2) as other:
        for scan in scans:
            told.add((await other.verdict(here.w.scan(scan.code)))[0])
    return told


async def test_a_private_valkey_starts_on_the_snapshot_and_replays_the_tail(directory: Path) -> None:
    scans = await redeemed(directory)
    manifest = await snapshots_of(directory).write(None)
    assert manifest.records == 30
    head = await log_head(directory)
    async with site(directory) as here:
        assert await log_head(directory) == head, "the heads were equal: nothing had to be fenced off"
        scans += await redeem(here, 20, "r2")
        head = await log_head(directory)
    async with site(directory) as here, here.till(2) as other:
        assert await log_head(directory) == head + 1, "one fence, and the tail behind the snapshot"
        told = {(await other.verdict(here.w.scan(scan.code)))[0] for scan in scans}
    assert told == {Verdict.ALREADY_REDEEMED}


async def test_a_tail_too_long_to_replay_by_itself_is_replayed_behind_the_snapshot(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recovery, "REPLAY_BATCHES_MAX", 3)
    await redeemed(directory)
    await snapshots_of(directory).write(None)
    async with site(directory) as here:
        scans = await redeem(here, 20, "r2")
    assert await told_again(directory, scans, []) == {Verdict.ALREADY_REDEEMED}


async def test_one_on_top_of_another_is_the_one_from_the_first_batch(directory: Path) -> None:
    await redeemed(directory)
    snapshots = snapshots_of(directory)
    first = await snapshots.write(None)
    async with site(directory) as here:
        await redeem(here, 20, "r2")
    grown = await snapshots.write(first)
    rows = sorted(snapshots.folded(grown, 0).hashes)
    whole = await snapshots.write(None)
    assert sorted((key, held) for key, held in snapshots.folded(whole, 0).hashes) == rows
    assert (grown.records, grown.applied, grown.heads) == (whole.records, whole.applied, whole.heads)
    assert sorted(path.name for path in snapshots.directory.iterdir()) == ["lock", whole.file, "snapshot.json"]


async def test_flipped_bits_are_found_named_and_the_log_is_read_instead(directory: Path) -> None:
    scans = await redeemed(directory)
    manifest = await snapshots_of(directory).write(None)
    rng, reports = random.Random(3), list[str]()
    for name in (manifest.file, "snapshot.json"):
        path = directory / DIRECTORY / name
        good = path.read_bytes()
        for at in (0, len(good) - 1, *rng.sample(range(len(good)), 40)):
            path.write_bytes(good[:at] + bytes([good[at] ^ 1 << at % 8]) + good[at + 1 :])
            assert await why_refused(directory) in (Why.DAMAGED, Why.UNREADABLE)
        path.write_bytes(good)
    path = directory / DIRECTORY / manifest.file
    at = path.read_bytes().index(scans[3].redemption_id[:0] + b"R", 60)
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)
    assert await told_again(directory, scans, reports) == {Verdict.ALREADY_REDEEMED}
    assert any("the snapshot is not used (damaged)" in report for report in reports)


async def test_of_another_deployment_and_of_another_history_of_this_one(directory: Path) -> None:
    await redeemed(directory, 5)
    twin, other = directory.parent / "twin", directory.parent / "other"
    shutil.copytree(directory, twin, ignore=shutil.ignore_patterns("valkey"))
    for here, count in ((directory, 6), (twin, 9)):
        async with site(here) as deployment:
            await redeem(deployment, count, "r2")
    await redeemed(other, 3)
    await snapshots_of(directory).write(None)
    for there, why in ((twin, Why.OFF_CHAIN), (other, Why.FOREIGN)):
        shutil.copytree(directory / DIRECTORY, there / DIRECTORY)
        assert await why_refused(there) is why
        async with site(there) as deployment:
            await redeem(deployment, 1, "r3")


async def test_a_snapshot_ahead_of_a_log_restored_from_a_backup_is_not_used(directory: Path) -> None:
    scans = await redeemed(directory, 10)
    shutil.copy(directory / LOG_FILE, directory / "backup.db")
    async with site(directory) as here:
        await redeem(here, 10, "r2")
        await here.w.core.follower.wait_until(0, (await here.w.core.log.head(0)).seq)  # it was indexed
    await snapshots_of(directory).write(None)
    shutil.copy(directory / "backup.db", directory / LOG_FILE)
    assert await why_refused(directory) is Why.AHEAD
    reports: list[str] = []
    async with running(config_for(directory), report=reports.append) as gateway:
        assert any("restore a newer one" in trouble for trouble in gateway.core.troubles())
    assert any("(ahead)" in report for report in reports)
    assert (await asyncio.to_thread(tillgate, "rebuild", "--data", directory)).code == 0
    assert await told_again(directory, scans, reports) == {Verdict.ALREADY_REDEEMED}


def _killed_when_it_writes(command: list[str], directory: Path, moment: float) -> None:
    with subprocess.Popen(command, start_new_session=True) as writer:
        deadline = time.monotonic() + 20
        while not list(directory.glob("*.part")) and writer.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.002)
        time.sleep(moment)  # how far it gets is chance; wherever it is must do
        os.killpg(writer.pid, signal.SIGKILL)


async def test_campaigns_are_counted_on_from_the_snapshot(directory: Path) -> None:
    async with site(directory) as here:
        scans = await redeem(here, 10)
        async with here.till(1) as till:
            await till.reverse(Reverse(new_id(), scans[0].redemption_id, wall_ms()))
    manifest = await snapshots_of(directory).write(None)
    assert sorted(manifest.applied) == [(0, REDEEM, 1, 10), (0, REVERSE, 1, 1)]
    async with site(directory) as here:
        await redeem(here, 5, "r2")
        head = await here.w.core.log.head(0)
        await here.w.core.counting.wait_until(0, head.seq)
        assert here.w.core.counters.tallies()[1] == CampaignTally(redeemed=14, reversed=1, voided=0)
        assert (await snapshots_of(directory).counted()).heads == {0: manifest.head(0)}
    content = (directory / DIRECTORY / "snapshot.json").read_bytes()
    (directory / DIRECTORY / "snapshot.json").write_bytes(content[:-9])
    async with site(directory) as here:
        await here.w.core.counting.wait_until(0, head.seq)
        assert here.w.core.counters.tallies()[1] == CampaignTally(redeemed=14, reversed=1, voided=0)


async def test_the_doctor_tells_of_it(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    await redeemed(directory, 10)
    config = config_for(directory)
    found = await doctor.snapshot(config, wall_ms())
    assert (found.state, "10 records" in found.text) == ("ok", True)
    monkeypatch.setattr("gateway.doctor.TAIL_RECORDS_MIN", 4)
    assert (await doctor.snapshot(config, wall_ms())).state == "warn"
    manifest = await snapshots_of(directory).write(None)
    found = await doctor.snapshot(config, manifest.at_ms + 180_000)
    assert (found.state, "proven, 3 min old; behind it 0 batches" in found.text) == ("ok", True)
    (directory / DIRECTORY / manifest.file).write_bytes(b"")
    found = await doctor.snapshot(config, wall_ms())
    assert (found.state, "damaged" in found.text, DIRECTORY in found.fix) == ("warn", True, True)


async def test_a_kill_while_it_is_written_leaves_the_one_before(directory: Path) -> None:
    await redeemed(directory, 20)
    snapshots = snapshots_of(directory)
    before = await snapshots.write(None)
    command = [sys.executable, "-c", SNAPSHOT, msgspec.json.encode(config_for(directory)).decode()]
    for moment in (0.0, 0.05, 0.2):
        await asyncio.to_thread(_killed_when_it_writes, command, snapshots.directory, moment)
        found = await looked_at(directory)
        assert isinstance(found, Manifest)
        assert found == before or found.at_ms > before.at_ms
        before = found
    last = await snapshots.write(None)
    assert await looked_at(directory) == last
    assert sorted(path.name for path in snapshots.directory.iterdir()) == ["lock", last.file, "snapshot.json"]


async def test_what_was_purged_since_is_not_in_what_a_start_loads(directory: Path) -> None:
    async with site(directory) as here:
        long_ago = wall_ms() - 9_000_000
        brief = offer(starts_ms=long_ago, ends_ms=wall_ms() + 20_000, dispute_ms=0, reversal_window_ms=0)
        await here.w.write(CampaignCreated(campaign=9, slug="brief", offer=brief))
        await redeem(here, 10, slug="brief")
        assert not isinstance(await here.w.core.desk.import_codes("op", "brief", ["B-1", "B-2"], "i1"), Rejected)
        await snapshots_of(directory).write(None)
        await here.w.write(CampaignClosed(campaign=9))
        assert await here.w.core.desk.purge("op", "brief") == 1
        again = await here.w.core.desk.import_codes("op", "cake", ["B-1"], "i2")
        assert not isinstance(again, Rejected)
        assert again[0].verdict is Verdict.ACCEPTED, "purged, a code is free"
    reports: list[str] = []
    assert await told_again(directory, [], reports) == set()
    assert not [text for text in reports if "no snapshot" in text or "starts empty" in text]
    async with site(directory) as here, here.till(2) as till:
        _, (value,) = await here.w.core.arbiter.lookup(0, [(b"{0}v9:0", b"1")])
        assert value is None
        assert (await till.verdict(here.w.scan("B-1")))[0] is Verdict.ACCEPTED
        assert (await till.verdict(here.w.scan("B-2")))[0] is Verdict.UNKNOWN_CODE
    found = await looked_at(directory)
    assert isinstance(found, Manifest)
    assert found.purged == [9]
    await snapshots_of(directory).write(None)


async def test_a_gateway_makes_one_by_itself_when_it_is_due(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.snapshots.TAIL_RECORDS_MIN", 25)
    monkeypatch.setattr("gateway.snapshots.LOOK_S", 0.05)
    snapshots = snapshots_of(directory)
    async with site(directory) as here:
        await redeem(here, 10)
        assert isinstance(snapshots.on_disk(), Refused), "ten are not worth one"
        await redeem(here, 20, "r2")
        await until(lambda: isinstance(snapshots.on_disk(), Manifest), 30.0)
        found = snapshots.on_disk()
        assert isinstance(found, Manifest)
        assert found.records >= 25


async def test_a_long_tail_is_folded_before_valkey_starts(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scans = await redeemed(directory)
    monkeypatch.setattr("gateway.snapshots.REPLAY_S_MAX", 0.0)
    reports: list[str] = []
    assert await told_again(directory, scans, reports) == {Verdict.ALREADY_REDEEMED}
    assert any("into a snapshot first" in report for report in reports)
    found = await looked_at(directory)
    assert isinstance(found, Manifest)
    assert found.records == 30


async def test_a_recovery_under_way_uses_it_too(directory: Path) -> None:
    async with site(directory) as here:
        scans = await redeem(here, 20)
        await snapshots_of(directory).write(None)
        await here.w.core.arbiter._call(0, "FLUSHALL")
        here.w.core.lanes[0].recover("the test says so")
        await here.w.ready()
        async with here.till(2) as other:
            told = {(await other.verdict(here.w.scan(scan.code)))[0] for scan in scans}
    assert told == {Verdict.ALREADY_REDEEMED}
