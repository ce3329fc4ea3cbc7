"""Backup beside a gateway at work, its continuation, and a deployment made of it that redeems what is left."""

import sqlite3
from pathlib import Path

from cli_world import Shell, open_market, serving


def codes(shell: Shell, out: Path) -> list[str]:
    assert shell("voucher", "issue", "noodles", "--count", 3, "--out", out).code == 0
    return out.read_text().split()


def test_a_backup_made_at_work_can_be_restored_and_serves_on(tmp_path: Path) -> None:
    shell, copy, keys = Shell(tmp_path / "data"), tmp_path / "copy.db", tmp_path / "keys.toml"
    assert shell("init").code == 0
    with serving(shell.data):
        open_market(shell, tmp_path)
        first = shell.json("backup", copy)
        assert first["batches"] > 0
        assert shell.json("backup", copy)["batches"] == 0
        assert shell("merchant", "add", "later", "--title", "Later").code == 0
        assert shell.json("backup", copy)["batches"] == 1
        assert shell("key", "backup", keys).code == 0
        before = shell.json("log", "verify")
        campaigns = shell.json("campaign", "list")

    again = Shell(tmp_path / "again")
    assert again.json("restore", copy, "--keys", keys)["heads"] == before["heads"]
    after = again.json("log", "verify")
    assert after["heads"]["0"] == before["heads"]["0"]
    assert after["heads"]["control"] == before["heads"]["control"] + 1, "the new admin token"
    with serving(again.data):
        assert again.json("campaign", "list") == campaigns
        assert "later" in [row["merchant"] for row in again.json("merchant", "list")]


def test_a_copy_of_something_else_is_never_continued(tmp_path: Path) -> None:
    one, other, copy = Shell(tmp_path / "one"), Shell(tmp_path / "other"), tmp_path / "copy.db"
    for shell in (one, other):
        assert shell("init").code == 0
    assert one("backup", copy).code == 0
    told = other("backup", copy)
    assert told.code == 2
    assert "another deployment" in told.err


def test_a_copy_that_is_ahead_of_a_log_says_so(tmp_path: Path) -> None:
    shell, copy = Shell(tmp_path / "data"), tmp_path / "copy.db"
    assert shell("init").code == 0
    log = shell.data / "log.db"
    kept = log.read_bytes()
    assert shell("merchant", "add", "m1", "--title", "M").code == 0
    assert shell("backup", copy).code == 0
    for path in shell.data.glob("log.db*"):
        path.unlink()
    log.write_bytes(kept)
    told = shell("backup", copy)
    assert told.code == 3
    assert "does not have" in told.err


def test_a_damaged_log_is_not_copied_past_the_damage(tmp_path: Path) -> None:
    shell, copy = Shell(tmp_path / "data"), tmp_path / "copy.db"
    assert shell("init").code == 0
    for name in ("m1", "m2"):
        assert shell("merchant", "add", name, "--title", name).code == 0
    with sqlite3.connect(shell.data / "log.db") as connection:
        connection.execute("UPDATE batch SET crc = crc + 1 WHERE id = (SELECT max(id) FROM batch)")
    connection.close()
    told = shell("backup", copy)
    assert told.code == 3
    assert "checksum" in told.err


def test_nothing_is_restored_over_something(tmp_path: Path) -> None:
    shell, copy, keys = Shell(tmp_path / "data"), tmp_path / "copy.db", tmp_path / "keys.toml"
    assert shell("init").code == 0
    assert shell("backup", copy).code == 0
    assert shell("key", "backup", keys).code == 0
    told = shell("restore", copy, "--keys", keys)
    assert told.code == 1
    assert "holds a deployment already" in told.err
    told = Shell(tmp_path / "new")("restore", keys, "--keys", keys)
    assert told.code == 1
    assert "not an event log" in told.err


def test_a_restoration_that_was_cut_off_is_done_again(tmp_path: Path) -> None:
    shell, copy, keys = Shell(tmp_path / "data"), tmp_path / "copy.db", tmp_path / "keys.toml"
    assert shell("init").code == 0
    assert shell("backup", copy).code == 0
    assert shell("key", "backup", keys).code == 0
    again = Shell(tmp_path / "again")
    (again.data / "secrets").mkdir(parents=True)
    (again.data / "init.db").write_bytes(b"half")
    (again.data / "secrets" / "codes.toml").write_bytes(b"half")
    assert again("restore", copy, "--keys", keys).code == 0
    assert again.json("log", "verify")["intact"]
