"""A rolling restart under load: `make rolling RATE=2000`. Workers on PostgreSQL and Valkey, each replaced in turn.

Tills scan at a steady rate over the stream protocol, each code once, and ask again with the same id until they are
told. Meanwhile SIGHUP replaces the workers one after another, again and again until the time is over. Then the log is
verified, and every answer looked up in it: nothing that was accepted may be missing or be there twice.
"""

import argparse
import asyncio
import statistics
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from signal import SIGHUP

import msgspec
import pytest
import uvloop
from private_postgres import postgres_server
from private_valkey import server_in
from shared_world import Site, load, new_site, tills, until

from eventstore.events import APPLIED, REDEEM, iter_records
from eventstore.postgres_server import PostgresReader, connector
from eventstore.verify import verify
from gateway.messages import Verdict

READ_BATCHES = 500
ROLL_S_MAX = 120.0  # one round: each worker drains, and its successor folds and recovers


class Rolled(msgspec.Struct, frozen=True):
    """What happened."""

    seconds: float
    scanned: int
    accepted: int
    rounds: int  # in each of which every worker was replaced
    retries: dict[str, int]  # that tills made, by what they met
    p50_ms: float  # from when a scan was due to its answer
    p99_ms: float
    max_ms: float
    lost: int  # accepted, and not in the log
    double: int  # ids that took effect more than once
    untold: int  # took effect, and no till was told
    wrong: int  # answered with anything but `accepted`

    @property
    def holds(self) -> bool:
        return not (self.lost or self.double or self.untold or self.wrong)


async def effects(log_url: str) -> Counter[bytes]:
    """How often each redemption id took effect, in a log that was verified whole."""
    found: Counter[bytes] = Counter()
    log = await PostgresReader.open(connector(log_url, None))
    try:
        heads = (await verify(log, lambda *progress: None)).heads
        for partition in range(log.partitions):
            seq = 0
            while seq < heads[partition].seq:
                for batch in await log.read(partition, seq + 1, READ_BATCHES):
                    seq = batch.seq
                    for record, verdict in zip(iter_records(batch.payload), batch.verdicts, strict=True):
                        if record.op == REDEEM and verdict == APPLIED:
                            found[record.redemption_id] += 1
    finally:
        await log.close()
    return found


async def rolled(site: Site, *, workers: int, rate: float, seconds: float, till_count: int) -> Rolled:
    """Serve, load, replace every worker at least once."""
    rounds, is_over = 0, False
    with site.serving("--workers", workers, TILLGATE_DRAIN_SECONDS="1") as running:
        await site.furnish(running.url, till_count, round(rate * (seconds + 60)))
        async with tills(till_count, [running.url]) as made:
            began_s = time.monotonic()
            loading = asyncio.create_task(load(made, site.codes, rate, lambda: is_over))
            while rounds == 0 or time.monotonic() - began_s < seconds:
                before = set(running.workers())
                running.process.send_signal(SIGHUP)
                rounds += 1
                await until(lambda: site.told().count("workers were replaced") == rounds, ROLL_S_MAX)  # noqa: B023
                assert not before & set(running.workers()), "a worker is still there"
            is_over = True
            scanned = await loading
            spent_s = time.monotonic() - began_s
    answers = {key: verdict for till in made for key, verdict in till.answers.items()}
    accepted = {key for key, verdict in answers.items() if verdict is Verdict.ACCEPTED}
    latencies_ms = sorted(second * 1000 for till in made for second in till.seconds)
    cuts = statistics.quantiles(latencies_ms, n=100)
    found = await effects(site.environment["TILLGATE_LOG__URL"])
    return Rolled(
        seconds=spent_s,
        scanned=scanned,
        accepted=len(accepted),
        rounds=rounds,
        retries=dict(sum((till.retries for till in made), Counter())),
        p50_ms=cuts[49],
        p99_ms=cuts[98],
        max_ms=latencies_ms[-1],
        lost=len(accepted - found.keys()),
        double=sum(times > 1 for times in found.values()),
        untold=len(found.keys() - answers.keys()),
        wrong=len(answers) - len(accepted),
    )


def main() -> int:
    """0 if nothing was lost; 77, as test programs say it, where PostgreSQL is absent."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rate", type=float, default=2000, help="scans a second")
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--tills", type=int, default=128, help="terminals, at most 255")
    asked = parser.parse_args()
    try:
        with (
            postgres_server() as postgres,
            tempfile.TemporaryDirectory(prefix="tillgate-") as name,
            server_in(Path(name)) as url,
        ):
            site = new_site(Path(name) / "data", postgres.url(), url)
            found = uvloop.run(
                rolled(site, workers=asked.workers, rate=asked.rate, seconds=asked.seconds, till_count=asked.tills)
            )
    except pytest.skip.Exception as reason:
        print(f"skipped: {reason}")
        return 77
    print(f"{asked.workers} workers, {found.rounds} rolling restarts, {found.seconds:.1f} s, {asked.tills} tills")
    print(f"{found.scanned:,} scans, {found.scanned / found.seconds:,.0f}/s; {found.accepted:,} accepted")
    print(f"p50 {found.p50_ms:.1f} ms, p99 {found.p99_ms:.1f} ms, max {found.max_ms:.0f} ms, from when a scan was due")
    print(f"asked again with the same id: {sum(found.retries.values())} {found.retries}")
    print(f"lost {found.lost}, double {found.double}, untold {found.untold}, wrong {found.wrong}")
    return 0 if found.holds else 1


if __name__ == "__main__":
    sys.exit(main())
