"""`tillgate init`, `token`, `key`, and the commands that need no gateway because they bring their own."""

import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from cli_world import Shell, Told, open_market, serving, spawn, tillgate

from gateway.codes import CodeKeys
from gateway.keyfile import KeyFile


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    made = Shell(tmp_path / "data")
    assert made("init").code == 0
    return made


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    shell = Shell(tmp_path_factory.mktemp("served") / "data")
    assert shell("init").code == 0
    with serving(shell.data):
        open_market(shell, shell.data.parent)
        yield shell


def modes(directory: Path) -> dict[str, int]:
    return {str(path.relative_to(directory)): stat.S_IMODE(path.stat().st_mode) for path in directory.rglob("*")}


def keys_of(shell: Shell) -> CodeKeys:
    return KeyFile(shell.data).load()


# --- init ---


def test_init_makes_a_private_directory_whose_log_begins_with_the_deployment(tmp_path: Path) -> None:
    shell = Shell(tmp_path / "deep" / "data")
    made = shell.json("init", "--partitions", 4)
    assert made["partitions"] == 4
    assert stat.S_IMODE(shell.data.stat().st_mode) == 0o700
    assert modes(shell.data) == {
        "log.db": 0o600,
        "secrets": 0o700,
        "secrets/admin.token": 0o600,
        "secrets/codes.toml": 0o600,
    }
    (batch,) = shell("log", "export").out.splitlines()
    told = Told(0, batch, "").json
    assert [event["event"] for event in told["events"]] == ["deployment_initialised", "key_added", "token_created"]
    assert told["events"][0] == {
        "event": "deployment_initialised",
        **{k: made[k] for k in ("deployment_id", "partitions")},
    }
    token = (shell.data / "secrets" / "admin.token").read_text()
    assert token.strip() not in batch
    assert keys_of(shell).pepper.hex() not in batch


def test_a_second_init_changes_nothing(shell: Shell) -> None:
    before = {path: path.read_bytes() for path in shell.data.rglob("*") if path.is_file()}
    told = shell("init")
    assert told.code == 1
    assert f"{shell.data} holds a deployment already" in told.err
    assert {path: path.read_bytes() for path in shell.data.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("name", ("holiday.jpg", "secrets"))
def test_init_refuses_a_directory_with_other_content(name: str, tmp_path: Path) -> None:
    (tmp_path / name).mkdir()
    told = Shell(tmp_path)("init")
    assert told.code == 1
    assert f"it has {name}" in told.err


def test_an_init_that_was_cut_off_is_finished_with_the_keys_it_had_made(shell: Shell) -> None:
    keys = keys_of(shell)
    (shell.data / "log.db").rename(shell.data / "init.db")  # the last step but one
    assert shell("init").code == 0
    assert keys_of(shell) == keys
    assert not (shell.data / "init.db").exists()
    assert shell.json("log", "verify")["control_events"] == 3
    assert shell.json("token", "list")[0]["token_id"] == "admin"


# --- tokens and keys ---


def test_a_token_is_shown_once_and_works_until_it_is_revoked(served: Shell, tmp_path: Path) -> None:
    made = served.json("token", "create", "auditor", "--label", "the auditor")
    file = tmp_path / "token"
    file.write_text(made["token"])
    file.chmod(0o600)
    assert served("merchant", "list", "--token-file", file).code == 0
    refused = served("merchant", "add", "other", "--title", "Other", "--token-file", file)
    assert refused.code == 1
    assert "auditor" in refused.err
    listed = served("token", "list")
    assert "the auditor" in listed.out
    assert made["token"] not in listed.out
    assert served.json("token", "revoke", made["token_id"])["revoked"] is True
    told = served("merchant", "list", "--token-file", file)
    assert told.code == 1
    assert "revoked" in told.err
    assert made["token"] not in told.err


def test_a_wrong_role_or_scope_is_named(served: Shell) -> None:
    assert "role: must be one of" in served("token", "create", "boss", "--label", "x").err
    told = served("token", "create", "integrator", "--scope", "nobody", "--label", "x")
    assert told.code == 1
    assert "scope: there is no merchant 'nobody'" in told.err


def test_keys_rotate_and_are_backed_up_beside_the_gateway(served: Shell, tmp_path: Path) -> None:
    first = keys_of(served).active
    added = served.json("key", "add")["key_id"]
    assert added != first
    assert served("key", "retire", added).code == 1, "it signs new codes"
    assert served.json("key", "retire", first)["retired"] is True
    rows = {row["key_id"]: row for row in served.json("key", "list")}
    assert (rows[added]["active"], rows[first]["retired"]) == (True, True)
    copy = tmp_path / "codes.toml"
    assert served("key", "backup", copy).code == 0
    assert copy.read_bytes() == (served.data / "secrets" / "codes.toml").read_bytes()
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    assert served("key", "backup", copy).code == 1, "never over an older copy"


# --- a gateway of their own ---


def test_a_command_without_a_gateway_brings_its_own_and_leaves_nothing_running(shell: Shell, tmp_path: Path) -> None:
    open_market(shell, tmp_path)
    assert shell.json("merchant", "list") == [{"merchant": "noodle-king", "title": "Noodle King"}]
    assert not (shell.data / "gateway.json").exists()
    with serving(shell.data):
        assert shell.json("campaign", "list")[0]["slug"] == "noodles"


def test_commands_that_each_need_a_gateway_take_turns(shell: Shell) -> None:
    processes = [
        spawn("merchant", "add", f"m-{n}", "--title", f"M {n}", "--data", shell.data, "--json") for n in range(3)
    ]
    told = [(process.communicate(timeout=40), process.returncode) for process in processes]
    assert [code for _, code in told] == [0, 0, 0], told
    assert {row["merchant"] for row in shell.json("merchant", "list")} == {"m-0", "m-1", "m-2"}


def test_a_stale_gateway_file_is_not_believed(shell: Shell) -> None:
    ended = spawn("--version")
    ended.communicate(timeout=20)
    (shell.data / "gateway.json").write_text(f'{{"pid": {ended.pid}, "url": "http://127.0.0.1:1", "metrics_url": ""}}')
    assert shell.json("merchant", "list") == []


def test_serve_says_what_is_wrong_and_what_to_do(shell: Shell, tmp_path: Path) -> None:
    told = tillgate("serve", "--data", tmp_path / "none")
    assert told.code == 1
    assert "tillgate init" in told.err
    (shell.data / "secrets" / "codes.toml").chmod(0o644)
    assert "chmod 600" in shell("serve").err
    shutil.rmtree(shell.data / "secrets")
    assert "codes.toml is missing" in shell("serve").err


def test_two_gateways_never_serve_one_directory(served: Shell) -> None:
    process = spawn("serve", "--data", served.data, "--server-port", 0, "--metrics-port", 0)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 1
    assert "another gateway" in err
