"""`make bench-cluster`: one gateway's throughput with one Valkey and with a cluster of three primaries, in turns.

All on this machine: it tells what the cluster costs a gateway, not what six machines would give. The log is SQLite.
"""

import argparse
import contextlib
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import redis
from private_cluster import private_cluster
from private_valkey import server_program

from loadtest.bench import KINDS, WARM_SECONDS, generated
from loadtest.bench_gateway import Gateway, Stage, set_up
from loadtest.bench_plan import Plan, Target
from loadtest.bench_report import Side, check_of, side_of
from loadtest.own_server import Server

START_S = 10.0


@contextlib.contextmanager
def one_valkey(directory: Path) -> Iterator[tuple[str, list[int]]]:
    """URL, and the process whose CPU it costs."""
    directory.mkdir()
    where = ("--port", "0", "--unixsocket", directory / "v.sock", "--dir", directory, "--logfile", directory / "log")
    keeps = ("--save", "", "--appendonly", "no", "--maxmemory-policy", "noeviction")
    server = subprocess.Popen([server_program(), *where, *keeps])
    try:
        with redis.Redis(unix_socket_path=str(directory / "v.sock")) as client:
            deadline = time.monotonic() + START_S
            while True:
                with contextlib.suppress(redis.ConnectionError):
                    client.ping()
                    break
                assert time.monotonic() < deadline, "Valkey does not answer"
                time.sleep(0.02)
        yield f"unix://{directory / 'v.sock'}", [server.pid]
    finally:
        server.kill()
        server.wait()


@contextlib.contextmanager
def three_primaries(directory: Path) -> Iterator[tuple[str, list[int]]]:
    with private_cluster() as cluster:
        yield cluster.url, [node.process.pid for node in cluster.nodes]


VARIANTS = {
    "one Valkey, 1 partition": (one_valkey, 1),
    "one Valkey, 6 partitions": (one_valkey, 6),
    "cluster of 3 + 3, 6 partitions": (three_primaries, 6),
}


def measured(name: str, row: str, seconds: float) -> Side:
    """One run on a deployment of its own."""
    valkey, partitions = VARIANTS[name]
    kind = KINDS[row]
    with tempfile.TemporaryDirectory(prefix="tillgate-") as home, valkey(Path(home) / "v") as (url, pids):
        server = Server(Path(home) / "d", {"VALKEY__URL": url})
        server.init("--partitions", str(partitions))
        try:
            gateway = Gateway(server, server.start())
            count = round(kind.rate_max * (seconds + 2 * WARM_SECONDS))
            stage = set_up(gateway, kind.shape.connections, count)
            side = _side(gateway, stage, row, seconds, {f"valkey {n}": pid for n, pid in enumerate(pids)})
            gateway.close()
        finally:
            server.leave()
    return side


def _side(gateway: Gateway, stage: Stage, row: str, seconds: float, pids: Mapping[str, int]) -> Side:
    plan = Plan(
        shape=KINDS[row].shape,
        targets=[Target("gateway", gateway.host, gateway.port, {"gateway": gateway.pid, **pids})],
        tills=stage.tills,
        token=stage.token,
        codes=stage.codes,
        seconds=seconds,
        turns=2,
        warm_seconds=WARM_SECONDS,
        seed=1,
    )
    (load,) = generated(plan)
    assert check_of(load).holds, check_of(load)
    return side_of(load)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", default="b,c", help="of `tillgate bench`")
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    for row in asked.rows.split(","):
        print(f"\n({row}) {KINDS[row].what}", flush=True)
        found: dict[str, list[Side]] = {name: [] for name in VARIANTS}
        for _ in range(asked.rounds):
            for name in VARIANTS:
                found[name].append(measured(name, row, asked.seconds))
        first = [side.per_second for side in found[next(iter(VARIANTS))]]
        for name, sides in found.items():
            ratio = statistics.median(side.per_second / base for side, base in zip(sides, first, strict=True))
            middle = sorted(sides, key=lambda side: side.per_second)[len(sides) // 2]
            valkey = sum(us for process, us in middle.cpu_us.items() if process.startswith("valkey"))
            cost = f"gateway {middle.cpu_us['gateway']:.1f} us, Valkey {valkey:.1f} us a verdict"
            speed = f"p50 {middle.p50_ms:.1f} ms, p99 {middle.p99_ms:.1f} ms, {middle.per_batch:.0f} a batch"
            print(f"{name:31} {middle.per_second:8,.0f} verdicts/s  x {ratio:.2f}  {cost}; {speed}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
