"""What load scenarios break on purpose is really broken, and mends: at a real gateway on a real disk."""

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import psutil
import pytest

from loadtest.bench_gateway import Gateway, running_gateway
from loadtest.fault_disk import FaultImpossible
from loadtest.faults import FAULTS, Ground, Target

ENOUGH_S = 20.0


@pytest.fixture
def deployed(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Gateway, Target]]:
    with ExitStack() as stack:
        try:
            ground = Ground(tmp_path / "data", tmp_path, {request.param}, stack)
        except FaultImpossible as why:
            pytest.skip(str(why))
        gateway = stack.enter_context(running_gateway(tmp_path / "data", ground.environment, DRAIN_SECONDS="0"))
        target = Target(
            url=gateway.url,
            directory=tmp_path / "data",
            pids={},
            server=gateway.server,
            slow_sync=ground.slow_sync,
            has_small_disk=ground.has_small_disk,
        )
        target.look_again()
        yield gateway, target


def for_fault(name: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("deployed", (name,), indirect=True)


async def comes_true(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(ENOUGH_S):
        while not await asyncio.to_thread(condition):  # noqa: ASYNC110 - other processes do it
            await asyncio.sleep(0.02)


def is_ready(gateway: Gateway) -> bool:
    try:
        with urlopen(f"{gateway.url}/readyz", timeout=1) as answer:
            return bool(answer.status == 200)
    except (URLError, OSError):
        return False


def merchant(gateway: Gateway, slug: str) -> float:
    """Seconds that one durable fact takes."""
    began_s = time.monotonic()
    gateway.post("/v1/merchants", {"merchant": slug, "title": slug})
    return time.monotonic() - began_s


@for_fault("kill-worker")
async def test_a_killed_gateway_comes_again_at_the_same_address(deployed: tuple[Gateway, Target]) -> None:
    gateway, target = deployed
    former = target.pids["gateway"]
    await FAULTS["kill-worker"].begin(target)
    assert not psutil.pid_exists(former)
    await FAULTS["kill-worker"].end(target)
    assert target.pids["gateway"] != former
    await comes_true(lambda: is_ready(gateway))


@for_fault("kill-redis")
async def test_a_killed_valkey_is_replaced(deployed: tuple[Gateway, Target]) -> None:
    gateway, target = deployed
    former = target.pids["valkey"]
    await FAULTS["kill-redis"].begin(target)
    await FAULTS["kill-redis"].end(target)
    assert target.pids["valkey"] != former
    await comes_true(lambda: is_ready(gateway))


@for_fault("freeze-5s")
async def test_a_frozen_gateway_stands_still_and_goes_on(deployed: tuple[Gateway, Target]) -> None:
    gateway, target = deployed
    await FAULTS["freeze-5s"].begin(target)
    process = psutil.Process(target.pids["gateway"])
    await comes_true(lambda: process.status() == psutil.STATUS_STOPPED)
    assert not is_ready(gateway)
    await FAULTS["freeze-5s"].end(target)
    await comes_true(lambda: is_ready(gateway))


@for_fault("slow-fsync")
async def test_a_slow_disk_is_slow_for_as_long_as_it_is_told(deployed: tuple[Gateway, Target]) -> None:
    gateway, target = deployed
    await FAULTS["slow-fsync"].begin(target)
    assert await asyncio.to_thread(merchant, gateway, "slow") >= 0.1
    await FAULTS["slow-fsync"].end(target)
    quickest_s = min([await asyncio.to_thread(merchant, gateway, f"quick-{number}") for number in range(5)])
    assert quickest_s < 0.1


@for_fault("disk-full")
async def test_a_full_disk_takes_nothing_and_then_takes_it_again(deployed: tuple[Gateway, Target]) -> None:
    gateway, target = deployed
    assert target.directory is not None
    await FAULTS["disk-full"].begin(target)
    with pytest.raises(OSError, match="No space left"):
        (target.directory / "more").write_bytes(bytes(4096))
    await FAULTS["disk-full"].end(target)
    (target.directory / "more").write_bytes(bytes(4096))
    await comes_true(lambda: is_ready(gateway))
    await asyncio.to_thread(merchant, gateway, "afterwards")


@for_fault("rolling-restart")
async def test_a_gateway_without_workers_is_replaced_whole(deployed: tuple[Gateway, Target]) -> None:
    gateway, target = deployed
    former = target.pids["gateway"]
    await FAULTS["rolling-restart"].begin(target)
    await FAULTS["rolling-restart"].end(target)
    assert target.pids["gateway"] != former
    await comes_true(lambda: is_ready(gateway))


@pytest.mark.parametrize("name", FAULTS)
def test_what_was_not_made_for_the_run_is_left_alone(name: str) -> None:
    elsewhere = Target(url="http://127.0.0.1:1", directory=None, pids={})
    assert "not made for this run" in (FAULTS[name].refusal(elsewhere) or "")


def test_what_lay_on_a_small_disk_is_kept(tmp_path: Path) -> None:
    with ExitStack() as stack:
        try:
            Ground(tmp_path / "data", tmp_path, {"disk-full"}, stack)
        except FaultImpossible as why:
            pytest.skip(str(why))
        (tmp_path / "data" / "log").write_text("truth")
    assert (tmp_path / "data" / "log").read_text() == "truth"
