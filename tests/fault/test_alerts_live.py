"""Alerts, tried for real: a Prometheus watches a gateway that is being broken, with the rules of ops/ in fast motion.

Not part of every run, because it takes minutes: `make alerts-live`.
"""

import asyncio
import os
import shutil
import signal
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from alerts_stage import Stage, becomes, stage
from core_world import new_id
from msgspec import structs

from gateway.messages import Redeem

PROGRAMS = {"prometheus": "prometheus", "prometheus-alertmanager": "prometheus-alertmanager", "cc": "gcc"}

pytestmark = [
    pytest.mark.skipif("ALERTS_LIVE" not in os.environ, reason="takes minutes: make alerts-live"),
    pytest.mark.timeout(400),
    *(
        pytest.mark.skipif(shutil.which(program) is None, reason=f"{program} is not installed: apt install {package}")
        for program, package in PROGRAMS.items()
    ),
]


# A machine that is busy with other things is late indeed: that these fire then is no false alarm.
OF_BUSY_MACHINES = {"TillgateRedeemLatencyBudgetBurn", "TillgateEventLogFsyncSlow", "TillgateEventLoopStalled"}


async def test_a_healthy_gateway_wakes_nobody(tmp_path: Path) -> None:
    async with stage(tmp_path) as here:
        seen: set[str] = set()
        for _ in range(150):
            seen |= {name for name, _ in await here.watcher.firing()}
            await asyncio.sleep(0.2)
        assert (await here.watcher.value("sum(tillgate_redeem_requests_total)") or 0) > 1000
    assert seen - OF_BUSY_MACHINES == {"TillgateWatchdog"}
    if seen & OF_BUSY_MACHINES:
        assert os.getloadavg()[0] > (os.cpu_count() or 1), f"this machine is not busy, and yet: {seen}"


async def test_a_valkey_that_hangs_is_one_page(tmp_path: Path) -> None:
    async with stage(tmp_path) as here:
        await asyncio.sleep(5)
        here.valkey.signal(signal.SIGSTOP)
        await here.fires(("ValkeyUnavailable", "page"), ("RedeemErrorBudgetBurn", "page"), ("NotEnoughReady", "page"))
        await here.pages_only("ValkeyUnavailable")
        here.valkey.signal(signal.SIGCONT)
        assert await becomes(here.watcher.has_no_page), await here.watcher.firing()


async def test_a_slow_disk_is_one_page(tmp_path: Path) -> None:
    async with stage(tmp_path) as here:
        here.gateway.disk.slow(1200)
        await here.fires(
            ("EventLogFsyncSlow", "warning"), ("EventLogFsyncSlow", "page"), ("RedeemLatencyBudgetBurn", "page")
        )
        await here.pages_only("EventLogFsyncSlow")


async def test_a_log_that_fails_is_told_over_restarts(tmp_path: Path) -> None:
    async with stage(tmp_path) as here:
        await asyncio.sleep(3)
        here.gateway.must_live = False
        here.gateway.disk.fail_sync(1)
        await here.gateway.ended(20)
        here.gateway.disk.fail_sync(0)
        await here.gateway.start()  # as its supervisor does, at once
        await here.fires(("EventAppendFailing", "page"))
        await here.pages_only("EventAppendFailing")


async def test_a_gateway_that_is_killed_is_one_page(tmp_path: Path) -> None:
    async with stage(tmp_path) as here:
        await asyncio.sleep(3)
        here.gateway.kill()
        await here.fires(("GatewayDown", "page"))
        await here.pages_only("GatewayDown")


@pytest.mark.parametrize("how", ("replica", "no memory", "no room for its file"))
async def test_a_read_only_valkey_is_one_page(tmp_path: Path, how: str) -> None:
    async with stage(tmp_path) as here:
        await asyncio.sleep(3)
        if how == "no room for its file":
            here.valkey.disk.full(True)
        else:
            client = here.valkey.client()
            if how == "replica":
                await client.execute_command("REPLICAOF", "127.0.0.1", "1")
            else:
                await client.config_set("maxmemory", 1)
            await client.aclose()
        await here.fires(("ValkeyReadOnly", "page"), ("RedeemErrorBudgetBurn", "page"))
        await here.pages_only("ValkeyReadOnly")


async def test_a_valkey_that_was_emptied_at_night_is_told(tmp_path: Path) -> None:
    async with stage(tmp_path) as here:
        await asyncio.sleep(3)
        await here.close_shop()
        client = here.valkey.client()
        await client.flushall()
        await client.aclose()
        await here.fires(("ReconciliationDifference", "page"))
        await here.pages_only("ReconciliationDifference")


async def test_a_valkey_that_evicts_is_told(tmp_path: Path) -> None:
    async with stage(tmp_path) as here:
        await asyncio.sleep(3)
        client = here.valkey.client()
        await client.config_set("maxmemory-policy", "allkeys-lru")
        await client.config_set("maxmemory", 1)
        await client.aclose()
        await here.fires(("ValkeyEvicting", "page"))


async def _with_batches(tmp: Path) -> list[Redeem]:
    """Leaves a data directory with batches in its log, and a Valkey whose stream was trimmed; all stopped."""
    async with stage(tmp) as here:

        async def has_batches() -> bool:
            return (await here.watcher.value("tillgate_events_appended_total") or 0) > 30 * len(here.scans)

        assert await becomes(has_batches)
        here.gateway.must_live = False
        here.gateway.signal(signal.SIGTERM)
        await here.gateway.ended(20)
        client = here.valkey.client()
        await client.delete("{0}log")
        await client.aclose()
        return [*here.scans]


async def test_a_damaged_log_is_told(tmp_path: Path) -> None:
    scans, home = await _with_batches(tmp_path), tmp_path / "gateway"
    with sqlite3.connect(home / "log.db") as log:
        log.execute("UPDATE batch SET payload = zeroblob(length(payload)) WHERE id = 3")
    (home / "index.db").unlink()
    (tmp_path / "again").mkdir()
    async with stage(tmp_path / "again", home=home, scans=scans, well=False) as here:
        await here.fires(("InvariantViolated", "page"), ("PartitionHalted", "page"))


async def test_a_lost_log_is_one_page(tmp_path: Path) -> None:
    """Restored from a backup that is older than what Valkey still can give."""
    scans, home = await _with_batches(tmp_path), tmp_path / "gateway"
    with sqlite3.connect(home / "log.db") as log:
        log.execute("DELETE FROM batch WHERE id BETWEEN 10 AND (1 << 40) - 1")
    (tmp_path / "again").mkdir()
    async with stage(tmp_path / "again", home=home, scans=scans, well=False) as here:
        await here.fires(("PartitionHalted", "page"))
        await here.pages_only("PartitionHalted")


@contextmanager
def small_disk(directory: Path) -> Iterator[Path]:
    """A file system of 64 MiB."""
    directory.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", directory], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"only root may mount a small file system: {mounted.stderr.decode().strip()}")
    try:
        yield directory
    finally:
        subprocess.run(["umount", "-l", directory], check=True)


def fill(path: Path) -> None:
    """Write until there is no room."""
    with path.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(4096))


async def test_a_full_disk_is_one_page(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk") as disk:
        async with stage(tmp_path, home=disk / "gateway") as here:
            await asyncio.sleep(5)
            fill(disk / "somebody-elses")
            await here.fires(("DiskFillingUp", "page"), ("GatewayDown", "page"))
            await here.pages_only("DiskFillingUp")


async def test_a_gateway_that_stutters_is_told(tmp_path: Path) -> None:
    async with stage(tmp_path) as here:
        task = asyncio.create_task(_stutter(here))
        await here.fires(("EventLoopStalled", "warning"))
        task.cancel()
        here.gateway.signal(signal.SIGCONT)


async def _stutter(here: Stage) -> None:
    while True:
        here.gateway.signal(signal.SIGSTOP)
        await asyncio.sleep(0.25)
        here.gateway.signal(signal.SIGCONT)
        await asyncio.sleep(0.25)


async def test_load_copies_and_a_wrong_clock_are_told(tmp_path: Path) -> None:
    async with stage(tmp_path, capacity=10.0) as here:

        def sent() -> list[Redeem]:
            """Two more of twenty are copies: the same codes, under new ids."""
            return [*here.scans, *(structs.replace(scan, redemption_id=new_id()) for scan in here.scans[:2])]

        here.sent = sent
        here.gateway.disk.step_clock(5_000)
        await here.fires(("CapacityHeadroomLow", "warning"), ("DenyRateAnomaly", "ticket"), ("ClockSkew", "warning"))


async def test_a_store_that_falls_silent_is_told(tmp_path: Path) -> None:
    yesterday_s = 30
    async with stage(tmp_path, scale=86_400 // yesterday_s) as here:
        await asyncio.sleep(yesterday_s + 5)
        assert ("TillgateStoreSilent", "ticket") not in await here.watcher.firing()
        await here.close_shop()
        await here.fires(("StoreSilent", "ticket"), seconds=25)
