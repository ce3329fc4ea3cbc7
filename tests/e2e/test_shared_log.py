"""Several gateways on one PostgreSQL log and one Valkey: any answers any till, and one that was paused is refused."""

import asyncio
import os
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest
import redis
from core_world import new_id, wall_ms

from gateway.messages import Redeem, Verdict

pytest.importorskip("asyncpg", reason="the package asyncpg is not installed (extra `postgres`)")

from shared_world import Running, Site, load, new_site, tills, until

from eventstore.events import APPLIED, REDEEM, iter_records
from eventstore.verify import verify
from gateway.client import Client
from gateway.settings import Config, LogConfig
from gateway.shared_logs import DeploymentReader, shared_log

if TYPE_CHECKING:
    from private_postgres import PostgresServer


@pytest.fixture
async def site(postgres: "PostgresServer", valkey_endpoint: str, tmp_path: Path) -> Site:
    return new_site(tmp_path / "first", await postgres.emptied(), valkey_endpoint)


@pytest.fixture(params=["postgres", "jetstream"])
async def any_site(request: pytest.FixtureRequest, valkey_endpoint: str, tmp_path: Path) -> Site:
    if request.param == "postgres":
        url = await request.getfixturevalue("postgres").emptied()
    else:
        url = request.getfixturevalue("nats").url()
    return new_site(tmp_path / "first", url, valkey_endpoint)


@asynccontextmanager
async def log_of(site: Site) -> AsyncIterator[DeploymentReader]:
    reader = await shared_log(Config(log=LogConfig(url=site.environment["TILLGATE_LOG__URL"]))).reader()
    try:
        yield reader
    finally:
        await reader.close()


async def accepted_in_log(site: Site) -> Counter[bytes]:
    """How often each redemption id took effect, in a log that was verified whole."""
    found: Counter[bytes] = Counter()
    async with log_of(site) as log:
        heads = (await verify(log, lambda *progress: None)).heads
        for batch in await log.read(0, 1, heads[0].seq):
            for record, verdict in zip(iter_records(batch.payload), batch.verdicts, strict=True):
                if record.op == REDEEM and verdict == APPLIED:
                    found[record.redemption_id] += 1
    return found


async def test_a_deployment_is_made_once_and_joined_with_its_keys(site: Site, tmp_path: Path) -> None:
    log_url, valkey_url = site.environment["TILLGATE_LOG__URL"], site.environment["TILLGATE_VALKEY__URL"]
    again = site.command("init")
    assert (again.code, "holds a deployment already" in again.err) == (1, True), again.err
    other = Site(tmp_path / "other", log_url, valkey_url)
    stranger = other.command("init")
    assert (stranger.code, "--join" in stranger.err) == (1, True), stranger.err
    assert site.command("key", "backup", tmp_path / "codes.toml").code == 0
    joined = other.json("init", "--join", tmp_path / "codes.toml")
    assert joined["deployment_id"] == site.json("log", "tail", "--partition", "control")["events"][0]["deployment_id"]
    assert other.json("log", "verify")["intact"] is True
    assert "of another deployment" not in other.command("doctor").out
    checks = {each["check"]: each["state"] for each in other.json("doctor")}
    assert (checks["log"], checks["key file"]) == ("ok", "ok"), checks


def test_a_crash_while_a_deployment_is_made_is_finished_by_the_same_call(site: Site) -> None:
    token = (site.data / "secrets" / "admin.token").read_text()
    deployment = site.json("log", "tail", "--partition", "control")["events"][0]["deployment_id"]
    (site.data / "init.shared").write_text(str(deployment))  # it ended between the log and the marker
    assert site.json("init")["deployment_id"] == deployment
    assert (site.data / "secrets" / "admin.token").read_text() == token
    assert not (site.data / "init.shared").exists()


async def test_any_gateway_answers_any_till_and_a_pause_binds_at_all_of_them(any_site: Site) -> None:
    site = any_site
    with site.serving() as one, site.serving() as two:
        await site.furnish(one.url, 2, 4)
        async with tills(2, [one.url]) as (first, second):
            second.visit(two.url)
            scan = Redeem(new_id(), site.codes[0], wall_ms())
            assert await first.ask(scan) is Verdict.ACCEPTED
            assert await second.ask(Redeem(new_id(), site.codes[0], wall_ms())) is Verdict.ALREADY_REDEEMED
            await first.leave()
            first.visit(two.url)
            assert await first.ask(scan) is Verdict.ACCEPTED, "the same id at another gateway gets the same answer"
            token = (site.data / "secrets" / "admin.token").read_text().strip()
            async with Client(two.url, token) as client:
                await client.post("/v1/campaigns/cake/pause", {}, dict)
            await asyncio.sleep(1.0)  # the promise is a second
            await first.leave()
            first.visit(one.url)
            assert await first.ask(Redeem(new_id(), site.codes[1], wall_ms())) is Verdict.PAUSED
            async with Client(two.url, token) as client:
                await client.post("/v1/keys", {}, dict)
                await client.post("/v1/campaigns/cake/resume", {}, dict)
                await asyncio.sleep(1.0)
                await client.post("/v1/campaigns/cake/issues", {"count": 1, "request_id": "new key"}, dict)
                lines = [line async for line in client.lines("/v1/campaigns/cake/codes", first=5, count=1)]
            signed_with_the_new_key = lines[0].partition(",")[2]
            assert await first.ask(Redeem(new_id(), signed_with_the_new_key, wall_ms())) is Verdict.ACCEPTED
    assert set((await accepted_in_log(site)).values()) == {1}


async def test_a_gateway_that_was_paused_is_refused_by_the_chain(any_site: Site) -> None:
    """Paused in the middle of its claims, Valkey wiped meanwhile: what it then wants to append joins nothing."""
    site = any_site
    with site.serving() as zombie, site.serving() as living:
        await site.furnish(zombie.url, 6, 4000)
        over = asyncio.Event()
        async with tills(6, [zombie.url]) as made:
            for till in made[3:]:
                till.visit(living.url)
            loading = asyncio.create_task(load(made, site.codes, 250, over.is_set))
            for _ in range(3):
                await asyncio.sleep(0.5)
                os.kill(zombie.pid, signal.SIGSTOP)
                with redis.Redis.from_url(site.environment["TILLGATE_VALKEY__URL"]) as client:
                    client.flushall()
                answered = sum(len(till.answers) for till in made[3:])
                await until(lambda: sum(len(till.answers) for till in made[3:]) > answered + 20)  # noqa: B023
                os.kill(zombie.pid, signal.SIGCONT)
            over.set()
            scanned = await loading
            retries = sum((till.retries for till in made), Counter())
        verdicts = {redemption_id: verdict for till in made for redemption_id, verdict in till.answers.items()}
    assert len(verdicts) == scanned
    assert set(verdicts.values()) == {Verdict.ACCEPTED}
    assert await accepted_in_log(site) == Counter(verdicts.keys()), "every yes is in the log, once, and nothing else is"
    assert retries["unresolved"] > 0, "nothing was under way in any of the pauses"


async def test_a_log_that_goes_away_is_unknown_to_tills_and_answers_again_when_it_is_back(
    postgres: "PostgresServer", site: Site
) -> None:
    with site.serving() as gateway:
        await site.furnish(gateway.url, 3, 500)
        async with tills(3, [gateway.url]) as made:
            stop_s = time.monotonic() + 3.0
            loading = asyncio.create_task(load(made, site.codes, 60, lambda: time.monotonic() > stop_s))
            await asyncio.sleep(0.8)
            await asyncio.to_thread(postgres.stop, signal.SIGQUIT)
            await asyncio.sleep(0.8)
            await asyncio.to_thread(postgres.start)
            await loading
            assert sum((till.retries for till in made), Counter())["unresolved"] > 0
        verdicts = {key: verdict for till in made for key, verdict in till.answers.items()}
    assert await accepted_in_log(site) == Counter(verdicts.keys())


def test_workers_need_a_log_that_can_be_shared(site: Site) -> None:
    refused = site.command("serve", "--workers", 2, TILLGATE_LOG__URL="sqlite")
    assert refused.code == 2
    assert "workers (from --workers): 2 processes cannot share the log in SQLite" in refused.err


async def test_a_worker_that_dies_is_started_again(site: Site) -> None:
    with site.serving("--workers", 2) as running:
        first, second = running.workers()
        os.kill(first, signal.SIGKILL)
        await until(lambda: _replaced(running, first))
        assert second in running.workers()
        assert "ended with -9; it is started again" in site.told()


async def test_a_successor_that_cannot_start_is_tried_again_with_pauses_while_the_others_serve(site: Site) -> None:
    keys = site.data / "secrets" / "codes.toml"
    with site.serving("--workers", 2) as running:
        _, other = running.workers()
        keys.chmod(0o644)  # refused
        running.process.send_signal(signal.SIGHUP)
        await until(lambda: "it is started again in 1 s" in site.told())
        assert other in running.workers()
        keys.chmod(0o600)
        await until(lambda: "all 2 workers were replaced" in site.told())
        assert other not in running.workers()


async def test_a_hangup_reloads_what_can_be_and_names_what_needs_a_restart(site: Site, tmp_path: Path) -> None:
    file = tmp_path / "tillgate.toml"
    file.write_text("drain_seconds = 0.5\n[server]\nport = 0\n")
    for name in ("TILLGATE_DRAIN_SECONDS", "TILLGATE_SERVER__PORT"):
        del site.environment[name]
    with site.serving("--config", file, TILLGATE_MESSAGES__FORM="json") as running:
        file.write_text("drain_seconds = 0\n[server]\nport = 9\n")
        running.process.send_signal(signal.SIGHUP)
        await until(lambda: "server.port has changed: that needs a restart" in site.told())
        await until(lambda: "reloaded: drain_seconds" in site.told())
        file.write_text("drain_seconds = 'soon'\n")
        running.process.send_signal(signal.SIGHUP)
        await until(lambda: "nothing was reloaded: drain_seconds" in site.told())
        assert running.process.poll() is None
    texts = [msgspec.json.decode(line)["text"] for line in site.told().splitlines()]
    assert texts[-2:] == ["leaving: tills have 0 s to move", "left: everything that was under way is answered"]


def _replaced(running: Running, dead: int) -> bool:
    return len(running.workers()) == 2 and dead not in running.workers()
