"""A Valkey Cluster: slots that are moved and primaries that are killed, under load; and what is not believed then."""

import asyncio
import os
import signal
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from core_world import KEYS, Seen, World, connector, new_id, offer, wall_ms, world
from private_cluster import Node, PrivateCluster, private_cluster
from shared_world import START_S, Running, Site, Till, new_site, tills, until

from eventstore.events import CampaignClosed, CampaignCreated
from eventstore.sqlite_log import SqliteLog
from eventstore.vouchers import SERIALS_PER_KEY
from gateway.cluster import Cluster
from gateway.config import Loaded
from gateway.core import LOG_FILE, open_core
from gateway.directory import Rejected
from gateway.doctor import Finding
from gateway.doctor_servers import valkey as looked_at
from gateway.main import connector_of_url
from gateway.messages import Redeem, Verdict
from gateway.pipe import ArbiterMoved
from gateway.recovery import Branch, Recovered
from gateway.sampler import Sampler
from gateway.settings import Config, ValkeyConfig
from gateway.slots import slot_of

if TYPE_CHECKING:
    from private_postgres import PostgresServer

PARTITIONS = 4  # 1 and 2 on one primary, 3 and 0 on the others
TILLS, RATE = 6, 150.0
HASHES = 24  # some in every partition
RESOLVED_S_MAX = 5.0  # after the cluster says that it works again

Scans = dict[bytes, tuple[Till, Redeem]]


@pytest.fixture(scope="module")
def started() -> Iterator[PrivateCluster]:
    with private_cluster() as cluster:
        yield cluster


@pytest.fixture
def cluster(started: PrivateCluster) -> PrivateCluster:
    """With no keys."""
    for primary in started.primaries():
        primary.command("FLUSHALL")
    return started


def cluster_of(cluster: PrivateCluster) -> Cluster:
    found = connector_of_url(cluster.url, "")
    assert isinstance(found, Cluster)
    return found


async def said(url: str) -> dict[str, Finding]:
    config = Config(valkey=ValkeyConfig(url=url))
    found = await looked_at(Loaded(config, {}), Path("unused"), gateway_runs=False, partitions=PARTITIONS)
    return {each.check: each for each in found}


async def test_doctor_names_what_is_missing_and_who_shares(cluster: PrivateCluster) -> None:
    found = await said(cluster.url)
    assert {name: each.state for name, each in found.items() if each.state != "ok"} == {}
    assert f"{cluster.owner(1).address}: partition" in found["valkey spread"].text
    mode = (await said(f"redis://{cluster.nodes[0].address}/0"))["valkey mode"]
    assert (mode.state, "redis+cluster://" in mode.fix) == ("fail", True)
    replica = next(node for node in cluster.nodes if node not in cluster.primaries())
    cluster.nodes[0].command("CONFIG", "SET", "cluster-require-full-coverage", "yes")
    replica.kill()
    await until(lambda: "0" in [node.facts("replication")["connected_slaves"] for node in cluster.primaries()])
    found = await said(cluster.url)
    assert {name for name, each in found.items() if each.state != "ok"} == {"valkey replicas", "valkey coverage"}
    cluster.nodes[0].command("CONFIG", "SET", "cluster-require-full-coverage", "no")
    replica.start()
    await until(cluster.is_whole)


async def race(made: Sequence[Till], codes: Sequence[str], over: asyncio.Event) -> Scans:
    """Scan each code twice, mostly at two tills at once, at RATE a second until it is over; all are answered then."""
    began_s, scans = time.monotonic(), Scans()
    places = iter(enumerate(code for code in codes for _ in range(2)))

    async def work(till: Till) -> None:
        for place, code in places:
            await asyncio.sleep(max(0.0, began_s + place / RATE - time.monotonic()))
            if over.is_set():
                return
            scan = Redeem(new_id(), code, wall_ms())
            scans[scan.redemption_id] = till, scan
            await till.ask(scan)

    await asyncio.gather(*map(work, made))
    return scans


def unresolved(made: Sequence[Till]) -> int:
    return sum(till.retries["unresolved"] for till in made)


async def until_some_are_unresolved(made: Sequence[Till], more: int = 3) -> None:
    before = unresolved(made)
    await until(lambda: unresolved(made) >= before + more)


async def move_under_load(cluster: PrivateCluster, made: Sequence[Till]) -> None:
    """A slot goes away in pieces; meanwhile nobody is told anything of its partition."""
    target = next(node for node in cluster.primaries() if node is not cluster.owner(2))
    source = await asyncio.to_thread(cluster.begin_move, 2, target)
    await until_some_are_unresolved(made)
    await asyncio.to_thread(cluster.carry, 2, source, target, b"}v")
    await until_some_are_unresolved(made)
    await asyncio.to_thread(cluster.carry, 2, source, target)
    await asyncio.to_thread(cluster.end_move, 2, source, target)


async def lose_a_primary(cluster: PrivateCluster, made: Sequence[Till], *, for_ever: bool) -> Node:
    """Killed, or stopped until its replica is in its place; then it goes on, and does not know."""
    victim = cluster.owner(0)
    if for_ever:
        victim.kill()
    else:
        victim.process.send_signal(signal.SIGSTOP)
    other = next(node for node in cluster.primaries() if node is not victim)
    await until_some_are_unresolved(made)
    await until(lambda: cluster.owner(0, other) is not victim)
    await until(lambda: cluster.owner(0, other).facts("cluster")["cluster_state"] == "ok")
    if not for_ever:
        victim.process.send_signal(signal.SIGCONT)
    return victim


async def judge(site: Site, scans: Scans) -> None:
    """Each scan has one answer for ever, each code one yes, and Valkey holds what the log adds up to."""
    by_code = defaultdict[str, Counter[Verdict]](Counter)
    for redemption_id, (till, scan) in scans.items():
        first = till.answers[redemption_id]
        by_code[scan.code][first] += 1
        assert await till.ask(scan) is first
    yes = Counter(verdicts[Verdict.ACCEPTED] for verdicts in by_code.values())
    assert yes.keys() == {1}, yes
    assert sum(by_code.values(), Counter()).keys() == {Verdict.ACCEPTED, Verdict.ALREADY_REDEEMED}
    told = site.json("log", "verify", "--state")
    assert (told["intact"], told["state"]) == (True, "equal"), told


async def play(cluster: PrivateCluster, site: Site, gateways: Sequence[Running], *, for_ever: bool) -> Node:
    urls, over = [gateway.url for gateway in gateways], asyncio.Event()
    await site.furnish(urls[0], TILLS, 2000)
    async with tills(TILLS, urls) as made:
        racing = asyncio.create_task(race(made, site.codes, over))
        await until(lambda: sum(len(till.answers) for till in made) > 60)
        await move_under_load(cluster, made)
        victim = await lose_a_primary(cluster, made, for_ever=for_ever)
        over.set()
        scans = await asyncio.wait_for(racing, RESOLVED_S_MAX)
        assert len(scans) > 120
        await judge(site, scans)
    return victim


async def test_a_moved_slot_and_a_killed_primary_cost_no_answer_and_no_voucher_twice(
    cluster: PrivateCluster, tmp_path: Path
) -> None:
    site = new_site(tmp_path / "first", "sqlite", cluster.url, PARTITIONS)
    with site.serving() as gateway:
        victim = await play(cluster, site, [gateway], for_ever=True)
    rebuilt = site.json("rebuild")
    assert rebuilt["rebuilt"] is True
    assert site.json("log", "verify", "--state")["state"] == "equal"
    await asyncio.to_thread(victim.start)
    await until(cluster.is_whole)


@pytest.mark.skipif("CLUSTER" not in os.environ, reason="two gateways on PostgreSQL: make cluster")
async def test_a_primary_that_was_stopped_and_does_not_know_it_was_replaced_is_refused_by_the_chain(
    postgres: "PostgresServer", cluster: PrivateCluster, tmp_path: Path
) -> None:
    site = new_site(tmp_path / "first", await postgres.emptied(), cluster.url, PARTITIONS)
    with site.serving() as one, site.serving() as two:
        await play(cluster, site, [one, two], for_ever=False)
    await until(cluster.is_whole)


async def redeemed(w: World, cluster: PrivateCluster) -> list[str]:
    """A code of each of many hashes, each redeemed, and told to the replicas."""
    codes = (await w.codes(SERIALS_PER_KEY * HASHES))[::SERIALS_PER_KEY]
    for code in codes:
        assert await w.verdict(1, w.scan(code)) is Verdict.ACCEPTED
    for primary in cluster.primaries():
        await asyncio.to_thread(primary.command, "WAIT", 1, 1000)
    return codes


async def asked_until_told(w: World, codes: Sequence[str]) -> set[Verdict]:
    """What new scans of used codes are told, once they are told anything."""
    scans = [w.scan(code) for code in codes]
    told = dict.fromkeys((scan.redemption_id for scan in scans), Verdict.UNRESOLVED)
    deadline_s = time.monotonic() + START_S
    while Verdict.UNRESOLVED in told.values():
        assert time.monotonic() < deadline_s, w.core.troubles()
        for scan in scans:
            if told[scan.redemption_id] is Verdict.UNRESOLVED:
                told[scan.redemption_id] = await w.verdict(2, scan)
        await asyncio.sleep(0.05)
    return set(told.values())


def branches(w: World) -> set[Branch]:
    return {branch for outcome in w.seen.outcomes if isinstance(outcome, Recovered) for branch in outcome.branches}


def half_moved(cluster: PrivateCluster) -> tuple[Node, Node]:
    """From where to where partition 2 is on its way, its vouchers gone ahead."""
    source = cluster.owner(2)
    target = next(node for node in cluster.primaries() if node is not source)
    cluster.begin_move(2, target)
    cluster.carry(2, source, target, b"}v")
    return source, target


async def test_what_a_move_that_was_broken_off_took_away_is_not_taken_for_new(
    cluster: PrivateCluster, tmp_path: Path
) -> None:
    async with world(tmp_path, cluster_of(cluster), partitions=PARTITIONS) as w:
        codes = await redeemed(w, cluster)
        source, target = half_moved(cluster)
        await until(lambda: any("being moved" in trouble for trouble in w.core.troubles()))  # without being asked
        cluster.break_off(2, source, target)
        assert await asked_until_told(w, codes) == {Verdict.ALREADY_REDEEMED}
        assert Branch.RESTARTED in branches(w)
    found = await said(cluster.url)
    assert f"{target.address} holds" in found["valkey move"].text


async def test_a_primary_that_dies_in_the_middle_of_a_move_leaves_nothing_to_be_taken_for_new(
    cluster: PrivateCluster, tmp_path: Path
) -> None:
    async with world(tmp_path, cluster_of(cluster), partitions=PARTITIONS) as w:
        codes = await redeemed(w, cluster)
        source, target = half_moved(cluster)
        source.command("WAIT", 1, 1000)
        source.kill()  # and nobody had asked for the partition meanwhile
        await until(lambda: cluster.owner(2, target) is not source)
        promoted = cluster.owner(2, target)
        assert {await w.verdict(2, w.scan(code)) for code in codes} <= {Verdict.ALREADY_REDEEMED, Verdict.UNRESOLVED}
        await until(lambda: any("being moved" in trouble for trouble in w.core.troubles()))
        cluster.carry(2, promoted, target)
        cluster.end_move(2, promoted, target)
        assert await asked_until_told(w, codes) == {Verdict.ALREADY_REDEEMED}
    source.start()
    await until(cluster.is_whole)


async def test_partitions_that_nobody_claims_on_are_found_again_by_who_looks_something_up(
    cluster: PrivateCluster, tmp_path: Path
) -> None:
    async with world(tmp_path, cluster_of(cluster), partitions=PARTITIONS) as w:
        source = cluster.owner(3)
        target = next(node for node in cluster.primaries() if node is not source)
        cluster.begin_move(3, target)
        cluster.carry(3, source, target)
        cluster.end_move(3, source, target)
        with pytest.raises(ArbiterMoved, match=f"slot {slot_of(3)} is at {target.address} now"):
            await w.core.arbiter.lookup(3, [])
        await w.ready()
        head, _ = await w.core.arbiter.lookup(3, [])
        assert head == await w.core.log.head(3)


async def test_imported_codes_are_found_and_forgotten_on_every_primary(cluster: PrivateCluster, tmp_path: Path) -> None:
    async with world(tmp_path, cluster_of(cluster), partitions=PARTITIONS) as w:
        past = {"starts_ms": wall_ms() - 9_000_000, "ends_ms": wall_ms() + 1000}
        brief = offer(**past, dispute_ms=0, reversal_window_ms=0)
        await w.write(CampaignCreated(campaign=2, slug="brief", offer=brief))
        codes = [f"B-{number}" for number in range(40)]
        assert not isinstance(await w.core.desk.import_codes("op", "brief", codes, "i1"), Rejected)
        assert {await w.verdict(1, w.scan(code)) for code in codes[:8]} == {Verdict.ACCEPTED}
        registries = [key for node in cluster.primaries() for key in node.command("KEYS", "{*}r[0-9a-f]*")]
        assert len({key[:3] for key in registries}) == PARTITIONS
        await w.write(CampaignClosed(campaign=2))
        assert not isinstance(await w.core.desk.purge("op", "brief"), Rejected)
        left = {key for node in cluster.primaries() for key in node.command("KEYS", "*")}
        assert {key[3:] for key in left} == {b"head", b"log", b"run"}


async def test_the_wrong_kind_of_url_is_refused_with_the_right_one(
    cluster: PrivateCluster, valkey_endpoint: str, tmp_path: Path
) -> None:
    node = connector_of_url(f"redis://{cluster.nodes[0].address}/0", "")
    alone = Cluster([cluster.nodes[0].address], lambda address: connector(valkey_endpoint))
    for number, (valkey, said_so) in enumerate(((node, "redis+cluster://host:port/"), (alone, "write redis:// in"))):
        home = tmp_path / str(number)
        home.mkdir()
        SqliteLog.create(home / LOG_FILE, 1, "test", wall_ms())
        core = await open_core(home, KEYS, connect=valkey, observer=Seen())
        try:
            await until(lambda: any(said_so in trouble for trouble in core.troubles()))  # noqa: B023
        finally:
            await core.close()


async def test_what_is_sampled_is_of_all_primaries(cluster: PrivateCluster, tmp_path: Path) -> None:
    sampler = Sampler(tmp_path / "log.db", cluster_of(cluster), lambda: [0] * PARTITIONS)
    looking = asyncio.create_task(sampler.run())
    try:
        await until(lambda: sampler.sampled.valkey is not None)
    finally:
        looking.cancel()
        await asyncio.gather(looking, return_exceptions=True)
    assert sampler.sampled.valkey is not None
    assert sampler.sampled.valkey.is_primary
    assert sampler.sampled.valkey.log_difference == dict.fromkeys(range(PARTITIONS), 0)
