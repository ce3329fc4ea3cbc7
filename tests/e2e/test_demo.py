"""The demo itself: it proves its result, it can be stopped at any time, and it leaves nothing running."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from gateway.demo_children import Children, DemoFailed, end_orphaned_valkey, kill_valkey, until, valkey_pid
from gateway.demo_setup import Gateway
from gateway.demo_wire import LOOPBACK, LossyLine, has_answer

DEMO_S = 200  # a quarter of a minute on two idle cores

BINARY, PING, LONG = b"\x82\x03abc", b"\x89\x02hi", b"\x89\x7e\x01\x00" + bytes(256)


def demo(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "gateway.cli", "demo", *arguments]


def processes_of(directory: Path) -> list[str]:
    """Whoever was started with, or works in, this directory."""
    found = []
    for process in psutil.process_iter():
        try:
            named = any(str(directory) in word for word in process.cmdline())
            if named or process.cwd().startswith(str(directory)):
                found.append(" ".join(process.cmdline()))
        except (psutil.NoSuchProcess, psutil.ZombieProcess, psutil.AccessDenied):
            continue
    return found


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[Path]:
    """Not there yet; nobody works in it afterwards."""
    new = tmp_path / "d"
    yield new
    assert processes_of(new) == []


@pytest.mark.timeout(DEMO_S)
def test_the_demo_proves_its_result(directory: Path) -> None:
    run = subprocess.run(demo("--json", "--seed", "7", "--keep", str(directory)), capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    result = json.loads(run.stdout)
    assert result["holds"] is True
    assert all(equality["holds"] for equality in result["proof"]["equalities"])
    assert {kill["what"] for kill in result["kills"]} == {"gateway", "valkey"}
    assert result["vouchers"]["issued"] == 1200 + 10 + 20
    assert all(case["as_expected"] for case in result["cases"])
    told = {case["case"]: case["verdicts"] for case in result["cases"]}
    assert told["answer lost, asked again"] == told["till killed, asked again"] == ["accepted"]
    assert sorted(told["two stores at once"]) == ["accepted", "already_redeemed"]
    assert told["reversed by the cashier"] == ["accepted", "reversed"]
    refused = {case: told[case] for case in ("forged", "campaign over", "voided", "wrong store", "typed wrongly")}
    assert list(refused.values()) == [["unknown_code"], ["expired"], ["voided"], ["not_eligible"], ["unreadable"]]
    assert result["proof"]["verdicts"]["repeated"] >= 2
    kinds = {use["kind"]: use for use in result["scanners"]}
    assert {"Zebra SSI", "Honeywell, Host ACK", "serial, bare text", "camera, pictures of phones"} <= set(kinds)
    assert result["scanners_as_expected"]
    assert kinds["camera, pictures of phones"]["acks"] > 30
    assert kinds["Zebra SSI"]["verdicts"]["good"] > kinds["Zebra SSI"]["reads"] // 2
    assert proof_again_without_a_gateway(directory) == 1


def proof_again_without_a_gateway(directory: Path) -> int:
    """What the proof says when nobody runs its Valkey: a reason, not a traceback."""
    run = subprocess.run(
        [sys.executable, "-m", "gateway.proof", str(directory / "data")], input="", capture_output=True, text=True
    )
    assert "Traceback" not in run.stderr
    return run.returncode


@pytest.mark.timeout(DEMO_S)
@pytest.mark.parametrize(
    ("number", "after"), ((signal.SIGINT, "runs"), (signal.SIGTERM, "are open"), (signal.SIGHUP, "opening:"))
)
def test_a_demo_that_is_stopped_leaves_nothing_running(directory: Path, number: int, after: str) -> None:
    with subprocess.Popen(demo("--keep", str(directory)), stderr=subprocess.PIPE, text=True) as run:
        assert run.stderr is not None
        next(line for line in run.stderr if after in line)
        run.send_signal(number)
        assert run.wait() == 130
        assert "interrupted" in run.stderr.read()


def test_an_unusable_directory_is_named(tmp_path: Path) -> None:
    run = subprocess.run(demo("--keep", str(tmp_path)), capture_output=True, text=True)
    assert run.returncode == 1
    assert str(tmp_path) in run.stderr
    assert "new directory" in run.stderr


# --- what the demo is made of -----------------------------------------------------------------------------------------


async def initialised(directory: Path) -> tuple[Children, Gateway]:
    await asyncio.to_thread(directory.mkdir)
    children = Children(directory)
    gateway = Gateway(directory / "data", children)
    await children.run("init", ["-m", "gateway.cli", "init", "--data", str(gateway.directory)])
    await gateway.start()
    return children, gateway


async def test_the_valkey_of_a_killed_gateway_is_ended(directory: Path) -> None:
    children, gateway = await initialised(directory)
    await gateway.kill()
    pid = valkey_pid(gateway.directory)
    assert pid is not None
    assert psutil.pid_exists(pid)
    await end_orphaned_valkey(gateway.directory)
    assert valkey_pid(gateway.directory) is None
    await end_orphaned_valkey(gateway.directory)  # again: nothing to do
    with pytest.raises(DemoFailed, match="does not run"):
        kill_valkey(gateway.directory)
    await children.end_all()


async def test_a_gateway_that_dies_unasked_is_trouble(directory: Path) -> None:
    children, gateway = await initialised(directory)
    (pid,) = (p.pid for p in psutil.Process().children() if "serve" in p.cmdline())
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(DemoFailed, match="gateway ended with -9"):
        await asyncio.wait_for(asyncio.shield(children.trouble), 10)
    await children.end_all()
    await end_orphaned_valkey(gateway.directory)


async def test_a_foreign_process_is_never_taken_for_the_valkey(tmp_path: Path) -> None:
    (tmp_path / "valkey").mkdir()
    (tmp_path / "valkey" / "valkey.pid").write_text(str(os.getpid()))
    assert valkey_pid(tmp_path) is None


async def test_a_command_that_fails_is_quoted(tmp_path: Path) -> None:
    children = Children(tmp_path)
    with pytest.raises(DemoFailed, match="words ended with 3: one / two"):
        await children.run("words", ["-c", "import sys; sys.exit(print('one\\ntwo', file=sys.stderr) or 3)"])
    await children.end_all()


async def test_a_child_that_will_not_go_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.demo_children.END_SECONDS_MAX", 0.2)
    children = Children(tmp_path)
    deaf = "import signal; signal.signal(15, signal.SIG_IGN); print('deaf', flush=True); signal.pause()"
    process = await children.start("deaf", ["-c", deaf])
    await until(lambda: "deaf" in (tmp_path / "deaf.log").read_text(), "it to be deaf")
    await children.end_all()
    assert process.returncode == -signal.SIGKILL


@pytest.mark.parametrize(
    ("chunk", "answer"),
    (
        (b"", False),
        (PING, False),
        (PING + LONG + PING, False),
        (BINARY, True),
        (LONG + BINARY, True),
        (PING + BINARY, True),
    ),
)
def test_an_answer_is_told_from_a_heartbeat(chunk: bytes, answer: bool) -> None:
    assert has_answer(chunk) is answer


async def test_a_line_loses_the_next_answer_and_then_breaks() -> None:
    async def repeat(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while octets := await reader.read(100):
            writer.write(octets)
        writer.close()

    server = await asyncio.start_server(repeat, LOOPBACK, 0)
    async with server, LossyLine(server.sockets[0].getsockname()[1]) as line:
        reader, writer = await asyncio.open_connection(LOOPBACK, line.port)
        writer.write(BINARY)
        assert await reader.readexactly(len(BINARY)) == BINARY
        lost = line.lose_next_answer()
        writer.write(PING)
        assert await reader.readexactly(len(PING)) == PING
        assert not lost.done()
        writer.write(BINARY)
        await asyncio.wait_for(lost, 10)
        line.cut()
        assert await all_of(reader) == b"", "cut, with nothing of the answer"
        writer.close()
        reader, writer = await asyncio.open_connection(LOOPBACK, line.port)
        writer.write(BINARY)
        assert await reader.readexactly(len(BINARY)) == BINARY
        writer.close()


async def test_a_line_to_nobody_breaks_at_once() -> None:
    async with LossyLine(1) as line:
        reader, writer = await asyncio.open_connection(LOOPBACK, line.port)
        assert await all_of(reader) == b""
        writer.close()


async def all_of(reader: asyncio.StreamReader) -> bytes:
    """What comes until the line ends, in whichever way."""
    try:
        return await asyncio.wait_for(reader.read(), 10)
    except ConnectionError:
        return b""
