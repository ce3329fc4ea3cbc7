"""`tillgate log`, `rebuild` and `doctor`: what an operator looks at, in good days and bad ones."""

import json
import os
import socket
import sqlite3
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from cli_world import Shell, open_market, serving, spawn

from gateway.embedded import endpoint_of


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    shell = Shell(tmp_path_factory.mktemp("log") / "data")
    assert shell("init").code == 0
    with serving(shell.data):
        open_market(shell, shell.data.parent)
        yield shell


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    """A deployment with 40 voided vouchers, and no gateway running."""
    made, codes = Shell(tmp_path / "data"), tmp_path / "codes.csv"
    assert made("init").code == 0
    with serving(made.data):
        open_market(made, tmp_path)
        made.json("voucher", "issue", "noodles", "--count", 40, "--out", codes)
        made.json("voucher", "void", "--codes", codes, "--reason", "x")
    return made


def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


# --- log ---


def test_the_log_is_read_beside_the_gateway_that_writes_it(served: Shell, tmp_path: Path) -> None:
    whole = lines(served("log", "export", "--partition", "control").out)
    assert [batch["seq"] for batch in whole] == list(range(1, len(whole) + 1))
    assert [batch["prev"] for batch in whole[1:]] == [batch["tip"] for batch in whole[:-1]]
    assert whole[1]["actor"] == "token admin"
    newest = lines(served("log", "tail", "-n", 2, "--partition", "control", "--json").out)
    assert newest == whole[-2:]
    assert "init: DeploymentInitialised, KeyAdded, TokenCreated" in served("log", "tail", "-n", 100).out
    assert [batch["seq"] for batch in lines(served("log", "export", "--partition", "control", "--from", 3).out)] == [
        batch["seq"] for batch in whole[2:]
    ]
    out = tmp_path / "log.ndjson"
    assert served("log", "export", "--partition", "control", "--out", out).code == 0
    assert lines(out.read_text()) == whole
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    assert served("log", "export", "--out", out).code == 2, "never over a file"
    told = served("log", "tail", "--partition", "7")
    assert told.code == 2
    assert "only control, 0" in told.err


def test_tail_follows_what_is_written(served: Shell) -> None:
    process = spawn("log", "tail", "-n", 0, "--follow", "--partition", "control", "--json", "--data", served.data)
    with process:
        assert process.stdout is not None
        for n in range(100):  # it may start to follow after some of them
            served("merchant", "add", f"followed-{n}", "--title", "F")
            os.set_blocking(process.stdout.fileno(), False)
            if line := process.stdout.readline():
                break
        else:
            pytest.fail("nothing was followed")
        process.kill()
    assert json.loads(line)["events"][0]["event"] == "merchant_added"


def test_an_intact_log_verifies(served: Shell) -> None:
    told = served.json("log", "verify")
    assert told["intact"] is True
    assert told["heads"]["control"] == len(lines(served("log", "export", "--partition", "control").out))


def test_a_damaged_batch_is_named_and_is_exit_code_3(shell: Shell) -> None:
    with sqlite3.connect(shell.data / "log.db") as file:
        file.execute(
            "UPDATE batch SET payload = CAST(payload || x'00' AS BLOB) WHERE id = (SELECT min(id) FROM batch) + 1"
        )
    file.close()
    told = shell("log", "verify", "--json")
    assert (told.code, told.json["intact"], told.json["partition"], told.json["seq"]) == (3, False, "0", 2)
    assert shell("log", "export").code == 3
    assert shell("doctor").code == 3


def test_verify_compares_the_state_of_valkey(served: Shell) -> None:
    told = served.json("log", "verify", "--state")
    assert (told["intact"], told["state"], told.get("different")) == (True, "equal", None)
    endpoint = endpoint_of(served.data)
    assert endpoint is not None
    with redis.Redis(unix_socket_path=endpoint.unix_path, host=endpoint.host or "", port=endpoint.port or 0) as client:
        client.hset("{0}v999:0", "1", b"R" * 32)
        wrong = served("log", "verify", "--state", "--json")
        assert (wrong.code, wrong.json["state"], wrong.json["different"]) == (3, "different", ["{0}v999:0"])
        client.delete("{0}v999:0")
    assert served.json("log", "verify", "--state")["state"] == "equal"


# --- rebuild ---


def test_rebuild_restores_what_valkey_forgot(shell: Shell) -> None:
    for path in (shell.data / "valkey").rglob("*"):
        if path.is_file():
            path.unlink()
    told = shell.json("rebuild")
    assert told["rebuilt"] is True
    assert told["heads"]["0"] > 0
    assert shell.json("voucher", "show", "1-40")["state"] == "voided"
    assert told["heads"]["0"] == shell.json("log", "verify")["heads"]["0"], "nothing was left to recover"


def test_rebuild_refuses_while_a_gateway_runs_and_names_it(served: Shell) -> None:
    pid = json.loads((served.data / "gateway.json").read_text())["pid"]
    told = served("rebuild")
    assert told.code == 1
    assert f"held by the process {pid}" in told.err
    assert served.json("merchant", "list"), "the gateway goes on"


# --- doctor ---


def checks(shell: Shell) -> dict[str, list[dict[str, str]]]:
    told: dict[str, list[dict[str, str]]] = {}
    for row in shell("doctor", "--json").json:
        told.setdefault(row["check"], []).append(row)
    return told


def test_a_healthy_deployment_has_no_failed_check(served: Shell) -> None:
    told = served("doctor", "--json")
    assert told.code == 0
    assert [row for row in told.json if row["state"] == "fail"] == []
    found = checks(served)
    assert "ready at http://127.0.0.1:" in found["gateway"][0]["text"]
    assert found["valkey policy"][0]["text"] == "noeviction"
    assert "fdatasync p50" in found["disk sync"][0]["text"]
    assert "(--data)" in found["configuration"][0]["text"]
    assert all(line.startswith(("ok ", "warn", "      ")) for line in served("doctor").out.splitlines())


def test_what_is_wrong_is_told_with_the_fix(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    shell.data.chmod(0o755)
    (shell.data / "secrets" / "codes.toml").unlink()
    (shell.data / "secrets" / "admin.token").chmod(0o644)
    told = shell("doctor")
    assert told.code == 3
    assert f"to mend it: chmod 700 {shell.data}" in told.out
    found = checks(shell)
    assert [row["state"] for row in found["permissions"]] == ["fail", "ok"]
    assert found["key file"][0]["state"] == "fail"
    assert found["admin token"][0]["state"] == "warn"
    monkeypatch.setenv("TILLGATE_VALKEY__URL", "redis://127.0.0.1:1/0")
    assert checks(shell)["valkey"][0]["state"] == "fail"
    monkeypatch.setenv("TILLGATE_VALKEY__ULR", "x")
    assert checks(shell)["configuration"][0]["state"] == "fail"


def test_a_key_that_the_log_knows_and_the_file_lost_is_a_failure(shell: Shell, tmp_path: Path) -> None:
    file = shell.data / "secrets" / "codes.toml"
    before = file.read_bytes()
    shell.json("key", "add")
    file.write_bytes(before)
    (row,) = checks(shell)["key file"]
    assert row["state"] == "fail"
    assert row["text"].endswith("codes.toml: 2")


def test_a_deployment_that_is_none_fails_at_its_log(tmp_path: Path) -> None:
    found = checks(Shell(tmp_path))
    assert found["log"][0]["state"] == "fail"
    assert "tillgate init" in found["log"][0]["fix"]


def test_a_port_that_somebody_else_has_is_named(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        monkeypatch.setenv("TILLGATE_METRICS__PORT", str(port))
        monkeypatch.setenv("TILLGATE_SERVER__PORT", "0")
        (taken,) = checks(shell)["metrics port"]
        assert (taken["state"], f"127.0.0.1:{port}" in taken["text"]) == ("fail", True)
        assert "metrics.port" in taken["fix"]
        assert checks(shell)["server port"][0]["state"] == "ok"
    assert checks(shell)["metrics port"][0]["state"] == "ok"
