"""The life of the private Valkey: started, ended, killed, restarted, left behind and adopted; all of it real."""

import asyncio
import contextlib
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from private_valkey import connected, pid_of, runs, until, until_replaced

from eventstore.log import Head
from eventstore.snapshot import END, rows_of, start_rows
from gateway.embedded import (
    RESTARTS_MAX,
    EmbeddedFailed,
    EmbeddedLocked,
    EmbeddedValkey,
    Endpoint,
    State,
    endpoint_of,
)
from gateway.valkey_server import SEED_FILE, UNIX_PATH_BYTES_MAX, ask

GATEWAY = """
import asyncio, os, sys
from pathlib import Path
from gateway import embedded

directory, moment = sys.argv[1:]

async def die(*_):
    os.kill(os.getpid(), 9)

async def main():
    if moment == "spawned":
        embedded.EmbeddedValkey._wait_until_ready = die
    await embedded.EmbeddedValkey(Path(directory), on_report=print).start()
    os.kill(os.getpid(), 9)

asyncio.run(main())
"""


async def until_state(embedded: EmbeddedValkey, state: State) -> None:
    await until(lambda: embedded.state is state)


def killed_gateway(directory: Path, moment: str = "ready") -> None:
    """A gateway that is killed when its server is `ready`, or as soon as it is `spawned`."""
    gateway = subprocess.run([sys.executable, "-c", GATEWAY, directory, moment])
    assert gateway.returncode == -signal.SIGKILL


def orphan_of_killed_gateway(directory: Path) -> int:
    """The pid of the server that a killed gateway left behind."""
    killed_gateway(directory)
    pid = int((directory / "valkey" / "valkey.pid").read_text())
    assert runs(pid)
    return pid


@contextlib.contextmanager
def stranger() -> Iterator[int]:
    """The pid of a process that is none of ours, and that must still live at the end."""
    with subprocess.Popen(["sleep", "60"]) as process:
        try:
            yield process.pid
            assert process.poll() is None, "the stranger was ended"
        finally:
            process.kill()


async def test_start_and_stop_leave_no_process_and_no_socket(embedded: EmbeddedValkey, directory: Path) -> None:
    endpoint = await embedded.start()
    pid = pid_of(embedded)
    assert embedded.state.name == "RUNNING"
    assert endpoint == endpoint_of(directory) == Endpoint(unix_path=str(directory / "valkey" / "valkey.sock"))
    await embedded.stop()
    assert not runs(pid)
    assert embedded.pid is None
    assert embedded.state.name == "STOPPED"
    assert not (directory / "valkey" / "valkey.sock").exists()
    await embedded.stop()  # harmless


HASH = rows_of([(b"{0}v7:0", {b"1": b"R" * 32})])


async def seed(home: Path) -> None:
    (home / SEED_FILE).write_bytes(start_rows({0: Head(3, b"t" * 16)}) + HASH + END)


async def test_nothing_that_was_written_survives_a_stop(embedded: EmbeddedValkey, directory: Path) -> None:
    async with connected(await embedded.start()) as client:
        await client.set("voucher", "redeemed")
    await embedded.stop()
    assert not [path for path in (directory / "valkey").rglob("*") if path.suffix in (".aof", ".rdb")]
    async with connected(await embedded.start()) as client:
        assert await client.dbsize() == 0


async def test_a_killed_server_is_restarted_on_its_seed(directory: Path, reports: list[str]) -> None:
    embedded = EmbeddedValkey(directory, on_report=reports.append, seed=seed)
    try:
        endpoint = await embedded.start()
        first = pid_of(embedded)
        async with connected(endpoint) as client:
            await client.set("{0}head", "something else")
        os.kill(first, signal.SIGKILL)
        await until_replaced(embedded, first)
        async with connected(endpoint) as client:  # the same endpoint
            assert await client.get("{0}head") == b"t" * 16 + b"3"
            assert await client.hgetall("{0}v7:0") == {b"1": b"R" * 32}
        assert not (directory / "valkey" / SEED_FILE).exists()
        assert embedded.restarts == 1
        assert f"(pid {first}) was killed by SIGKILL" in reports[0]
        assert f"restarted the private Valkey (pid {embedded.pid})" in reports[1]
    finally:
        await embedded.stop()


async def test_a_server_that_cannot_live_is_given_up(
    embedded: EmbeddedValkey, reports: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    await embedded.start()
    monkeypatch.setattr("gateway.valkey_server.config_text", lambda home, endpoint: b"no-such-directive yes\n")
    os.kill(pid_of(embedded), signal.SIGKILL)
    await until_state(embedded, State.FAILED)
    assert embedded.restarts == RESTARTS_MAX
    assert embedded.pid is None
    assert sum("while starting" in report for report in reports) == RESTARTS_MAX
    assert "not restarted again" in reports[-1]
    assert "no-such-directive" in reports[-1]  # the end of its log says why


async def test_a_server_killed_again_and_again_is_given_up(
    embedded: EmbeddedValkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.embedded.RESTART_PAUSE_SECONDS", 0.01)
    await embedded.start()
    for _ in range(RESTARTS_MAX):
        pid = pid_of(embedded)
        os.kill(pid, signal.SIGKILL)
        await until_replaced(embedded, pid)
    os.kill(pid_of(embedded), signal.SIGKILL)
    await until_state(embedded, State.FAILED)
    assert embedded.restarts == RESTARTS_MAX
    assert embedded.pid is None
    await embedded.stop()
    await embedded.start()


async def test_a_server_that_cannot_start_says_why(embedded: EmbeddedValkey, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as broken:
        broken.setattr("gateway.valkey_server.config_text", lambda home, endpoint: b"no-such-directive yes\n")
        with pytest.raises(EmbeddedFailed, match=r"exit code 1 while starting(?s:.*)no-such-directive"):
            await embedded.start()
    assert embedded.state.name == "STOPPED"
    await embedded.start()  # nothing of the failed attempt stands in the way


async def test_a_seed_that_it_cannot_load_is_left_out(directory: Path, reports: list[str]) -> None:
    async def torn(home: Path) -> None:
        await seed(home)
        whole = (home / SEED_FILE).read_bytes()
        (home / SEED_FILE).write_bytes(whole[:-20])

    embedded = EmbeddedValkey(directory, on_report=reports.append, seed=torn)
    try:
        async with connected(await embedded.start()) as client:
            assert await client.dbsize() == 0
        assert "would not start on its snapshot" in reports[0]
    finally:
        await embedded.stop()


async def test_a_server_with_an_append_only_file_is_not_adopted(
    embedded: EmbeddedValkey, directory: Path, reports: list[str]
) -> None:
    orphan_of_killed_gateway(directory)
    endpoint = endpoint_of(directory)
    assert endpoint is not None
    async with connected(endpoint) as client:
        await client.config_set("appendonly", "yes")
        await client.set("voucher", "redeemed")
        # Until its first file is written it does not end on SIGTERM.
        while (await client.info("persistence"))["aof_rewrite_in_progress"]:  # noqa: ASYNC110 - a question, no event
            await asyncio.sleep(0.01)
    async with connected(await embedded.start()) as client:
        assert await client.dbsize() == 0
    assert any("is not believed" in report for report in reports)


async def test_stop_during_the_restart_leaves_no_process(embedded: EmbeddedValkey, reports: list[str]) -> None:
    await embedded.start()
    os.kill(pid_of(embedded), signal.SIGKILL)
    await until(lambda: embedded.restarts == 1)
    await embedded.stop()
    assert embedded.pid is None
    assert len(reports) == 1
    await embedded.start()  # it would be refused or adopted, had a server been left
    assert len(reports) == 1


async def test_a_second_gateway_on_the_directory_is_refused(embedded: EmbeddedValkey, directory: Path) -> None:
    await embedded.start()
    second = EmbeddedValkey(directory, on_report=print)
    with pytest.raises(EmbeddedLocked, match=str(directory)):
        await second.start()
    assert runs(pid_of(embedded))


async def test_the_orphan_of_a_killed_gateway_is_adopted(
    embedded: EmbeddedValkey, directory: Path, reports: list[str]
) -> None:
    orphan = orphan_of_killed_gateway(directory)
    await embedded.start()
    assert embedded.pid == orphan
    assert reports == [f"adopted the private Valkey (pid {orphan}) that an earlier gateway left"]
    await embedded.stop()
    assert not runs(orphan)


async def test_a_server_whose_gateway_died_before_it_was_up_is_adopted_too(
    embedded: EmbeddedValkey, directory: Path, reports: list[str]
) -> None:
    killed_gateway(directory, "spawned")
    await embedded.start()
    assert "adopted" in reports[0]


async def test_an_adopted_server_that_dies_is_restarted(
    embedded: EmbeddedValkey, directory: Path, reports: list[str]
) -> None:
    orphan = orphan_of_killed_gateway(directory)
    endpoint = await embedded.start()
    os.kill(orphan, signal.SIGKILL)
    await until_replaced(embedded, orphan)
    async with connected(endpoint) as client:
        assert await client.dbsize() == 0
    assert f"(pid {orphan}) ended" in reports[1]


async def test_a_stale_pid_file_never_harms_a_stranger(embedded: EmbeddedValkey, directory: Path) -> None:
    with stranger() as pid:
        (directory / "valkey").mkdir()
        (directory / "valkey" / "valkey.pid").write_text(f"{pid}\n")
        await embedded.start()
        assert pid_of(embedded) != pid
        await embedded.stop()


async def test_a_server_that_does_not_answer_as_the_pid_file_says_is_not_touched(
    embedded: EmbeddedValkey, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    orphan = orphan_of_killed_gateway(directory)
    pid_file = directory / "valkey" / "valkey.pid"
    with stranger() as pid, monkeypatch.context() as patch:
        pid_file.write_text(f"{pid}\n")
        patch.setattr("gateway.embedded.ORPHAN_SECONDS_MAX", 0.2)
        with pytest.raises(EmbeddedFailed, match="nothing was touched"):
            await embedded.start()
        assert runs(orphan)
    pid_file.write_text(f"{orphan}\n")
    await embedded.start()
    assert pid_of(embedded) == orphan


async def test_a_hung_server_is_ended_by_force(
    embedded: EmbeddedValkey, reports: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    await embedded.start()
    pid = pid_of(embedded)
    os.kill(pid, signal.SIGSTOP)
    monkeypatch.setattr("gateway.embedded.STOP_SECONDS_MAX", 0.2)
    await embedded.stop()
    assert not runs(pid)
    assert "SIGTERM" in reports[0]


async def test_a_path_too_long_for_a_socket_falls_back_to_loopback(directory: Path, reports: list[str]) -> None:
    deep = directory / ("d" * UNIX_PATH_BYTES_MAX)
    orphan = orphan_of_killed_gateway(deep)
    embedded = EmbeddedValkey(deep, on_report=reports.append)
    try:
        endpoint = await embedded.start()
        assert embedded.pid == orphan  # found again through the 0600 file
        assert endpoint.unix_path is None
        assert endpoint.host == "127.0.0.1"
        assert stat.S_IMODE((deep / "valkey" / "loopback.json").stat().st_mode) == 0o600
        assert await ask(Endpoint(host=endpoint.host, port=endpoint.port)) is None  # not without the password
        os.kill(orphan, signal.SIGKILL)
        await until_replaced(embedded, orphan)
        answer = await ask(endpoint)  # the same port and password
        assert answer is not None
        assert answer.pid == embedded.pid
        await embedded.stop()
        assert (await embedded.start()).password != endpoint.password
    finally:
        await embedded.stop()
