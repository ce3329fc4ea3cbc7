"""One flipped bit at rest, in the event log or in Valkey's file: found, named, and nothing wrong is ever told."""

import random
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import aiohttp
import pytest
import redis
from core_world import until, world
from private_valkey import short_directory
from stream_world import Site, config_for, site

from eventstore.log import LogDamaged, LogFailed, LogUnreadable
from eventstore.sqlite_file import open_reader
from eventstore.verify import Verified, verify
from gateway.core import LOG_FILE
from gateway.lane import LaneState
from gateway.main import running
from gateway.messages import Redeem, Verdict
from gateway.recovery import Branch
from gateway.valkey_server import SERVER_NAMES, packaged_server

FLIPS = 120


@pytest.fixture
def directory() -> Iterator[Path]:
    with short_directory() as directory:
        yield directory / "data"


def _flip(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1 << at % 8
    path.write_bytes(content)


async def _redeemed(directory: Path) -> list[Redeem]:
    """A deployment that has accepted these, and is at rest."""
    async with site(directory) as here, here.till(1) as till:
        scans = [here.w.scan(code) for code in await here.w.codes(40)]
        for scan in scans:
            assert (await till.verdict(scan))[0] is Verdict.ACCEPTED
    return scans


async def _verified(path: Path) -> Verified:
    reader = open_reader(path)
    try:
        return await verify(reader, lambda partition, seq, head_seq: None)
    finally:
        await reader.close()


async def test_any_flipped_bit_of_the_log_is_found_or_means_nothing(directory: Path) -> None:
    await _redeemed(directory)
    path, good = directory / LOG_FILE, directory / "good.db"
    shutil.copy(path, good)
    intact, rng, found = await _verified(path), random.Random(1), 0
    for _ in range(FLIPS):
        shutil.copy(good, path)
        _flip(path, rng.randrange(good.stat().st_size))
        try:
            assert await _verified(path) == intact, "it was read as something else"
        except (LogDamaged, LogFailed, LogUnreadable):
            found += 1
    assert found > FLIPS // 4


async def test_a_flipped_record_is_named_and_nothing_is_served_from_it(directory: Path) -> None:
    scans = await _redeemed(directory)
    path = directory / LOG_FILE
    _flip(path, path.read_bytes().index(scans[7].redemption_id) + 5)
    with pytest.raises(LogDamaged, match=r"partition 0, batch 8: checksum"):
        await _verified(path)
    shutil.rmtree(directory / "valkey")  # so that the log is read again
    async with running(config_for(directory)) as gateway:
        await until(lambda: gateway.core.lanes[0].state is LaneState.HALTED)
        assert any("partition 0, batch 8: checksum" in trouble for trouble in gateway.core.troubles())


async def test_a_flipped_older_record_halts_its_partition(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scans = await _redeemed(directory)
    path = directory / LOG_FILE
    _flip(path, path.read_bytes().index(scans[7].redemption_id) + 5)
    shutil.rmtree(directory / "valkey")
    monkeypatch.setattr("gateway.ledger.RECENT_BATCHES", 16)
    async with running(config_for(directory)) as gateway, aiohttp.ClientSession() as session:
        await until(lambda: gateway.core.lanes[0].state is LaneState.HALTED)
        assert any("partition 0, batch 8: checksum" in trouble for trouble in gateway.core.troubles())
        here = Site(gateway, session)
        async with here.till(1) as till, here.till(2) as other:
            assert (await till.verdict(scans[30]))[0] is Verdict.UNRESOLVED
            assert (await other.verdict(here.w.scan(scans[30].code)))[0] is Verdict.UNRESOLVED


async def test_a_private_valkey_keeps_nothing_that_could_rot(directory: Path) -> None:
    scans = await _redeemed(directory)
    left = {path.name for path in (directory / "valkey").iterdir()}
    assert left <= {"lock", "server.lock", "valkey.conf", "valkey.log", "valkey.pid"}
    async with site(directory) as here, here.till(2) as other:
        told = {(await other.verdict(here.w.scan(scan.code)))[0] for scan in scans}
    assert told == {Verdict.ALREADY_REDEEMED}


def _rotten(home: Path, key: bytes) -> None:
    """Turn one bit of the kind of the first entry that was written to this hash: R, redeemed."""
    for file in (home / "appendonlydir").glob("*.incr.aof"):
        content = file.read_bytes()
        at = content.find(b"\r\nR", content.index(b"HSETNX\r\n$%d\r\n%s" % (len(key), key))) + 2
        _flip(file, at)


async def test_a_flipped_bit_of_an_append_only_file_is_not_believed(directory: Path) -> None:
    home = directory.parent / "aof"
    home.mkdir()
    data = directory.parent / "core"
    data.mkdir()
    with _valkey_with_a_file(home) as url:
        async with world(data, url) as w:
            scans = [w.scan(code) for code in await w.codes(40)]
            for scan in scans:
                assert await w.verdict(1, scan) is Verdict.ACCEPTED
    _rotten(home, b"{0}v1:0")
    with _valkey_with_a_file(home) as url:
        with redis.Redis.from_url(url) as client:
            assert any(value[:1] != b"R" for value in client.hgetall("{0}v1:0").values()), "it was loaded in silence"
        async with world(data, url) as w:
            assert {branch for outcome in w.seen.outcomes for branch in outcome.branches} == {Branch.RESTARTED}
            told = {await w.verdict(2, w.scan(scan.code)) for scan in scans}
            assert told == {Verdict.ALREADY_REDEEMED}
            before = await w.core.log.head(0)
            w.core.lanes[0].recover("the test says so")
            await w.ready()
            assert await w.core.log.head(0) == before, "the same run is believed"


@contextmanager
def _valkey_with_a_file(home: Path) -> Iterator[str]:
    """A Valkey that keeps an append-only file, ended at once when the block is left."""
    socket = home / "valkey.sock"
    settings = {
        "port": "0",
        "unixsocket": str(socket),
        "dir": str(home),
        "logfile": str(home / "valkey.log"),
        "appendonly": "yes",
        "appendfsync": "always",
        "aof-load-truncated": "no",
        "save": "",
    }
    command = [server_program_now(), *(part for name, value in settings.items() for part in (f"--{name}", value))]
    with subprocess.Popen(command) as process:
        try:
            url = f"unix://{socket}"
            deadline = time.monotonic() + 10
            while True:
                try:
                    with redis.Redis.from_url(url) as client:
                        client.ping()
                    break
                except redis.exceptions.RedisError:
                    assert time.monotonic() < deadline
                    time.sleep(0.01)
            yield url
        finally:
            process.kill()


def server_program_now() -> str:
    found = next((shutil.which(name) for name in SERVER_NAMES if shutil.which(name)), None)
    return found or str(packaged_server())
