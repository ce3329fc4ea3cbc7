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
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import redis
from private_cluster import private_cluster
from private_valkey import server_program

from loadtest.bench import KINDS, WARM_SECONDS, generated
from loadtest.bench_gateway import Gateway, Stage, set_up
from loadtest.bench_plan import Plan, Shape, Target
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
BASE = "one Valkey, 6 partitions"
SHARE = 0.6  # of a row's highest rate: what three deployments on one machine may use up


class Running:
    """A deployment whose gateway serves, with its vouchers."""

    def __init__(self, gateway: Gateway, stage: Stage, valkeys: list[int]) -> None:
        self.gateway, self.stage, self._codes = gateway, stage, iter(stage.codes)
        self.pids = {"gateway": gateway.pid} | {f"valkey {number}": pid for number, pid in enumerate(valkeys)}

    def measured(self, shape: Shape, seconds: float, vouchers: int) -> Side:
        """One turn of load, on vouchers that no turn before had."""
        plan = Plan(
            shape=shape,
            targets=[Target("gateway", self.gateway.host, self.gateway.port, self.pids)],
            tills=self.stage.tills,
            token=self.stage.token,
            codes=list(islice(self._codes, vouchers)),
            seconds=seconds,
            turns=1,
            warm_seconds=WARM_SECONDS,
            seed=1,
        )
        (load,) = generated(plan)
        assert check_of(load).holds, check_of(load)
        return side_of(load)


@contextlib.contextmanager
def running(name: str, tills: int, vouchers: int) -> Iterator[Running]:
    valkey, partitions = VARIANTS[name]
    with tempfile.TemporaryDirectory(prefix="tillgate-") as home, valkey(Path(home) / "v") as (url, pids):
        server = Server(Path(home) / "d", {"VALKEY__URL": url})
        server.init("--partitions", str(partitions))
        try:
            gateway = Gateway(server, server.start())
            yield Running(gateway, set_up(gateway, tills, vouchers), pids)
            gateway.close()
        finally:
            server.leave()


def bench(row: str, seconds: float, rounds: int) -> None:
    """The variants in turns, each one's gateway idle while another's is loaded."""
    kind, found = KINDS[row], {name: list[Side]() for name in VARIANTS}
    vouchers = round(kind.rate_max * SHARE * (seconds + WARM_SECONDS))
    print(f"\n({row}) {kind.what}", flush=True)
    with contextlib.ExitStack() as stack:
        deployments = {
            name: stack.enter_context(running(name, kind.shape.connections, vouchers * rounds)) for name in VARIANTS
        }
        for number in range(rounds):
            for name in list(VARIANTS)[:: 1 if number % 2 else -1]:
                found[name].append(deployments[name].measured(kind.shape, seconds, vouchers))
    base = [side.per_second for side in found[BASE]]
    for name, sides in found.items():
        ratio = statistics.median(side.per_second / of for side, of in zip(sides, base, strict=True))
        middle = sorted(sides, key=lambda side: side.per_second)[len(sides) // 2]
        valkey = sum(us for process, us in middle.cpu_us.items() if process.startswith("valkey"))
        cost = f"gateway {middle.cpu_us['gateway']:.1f} us, Valkey {valkey:.1f} us a verdict"
        speed = f"p50 {middle.p50_ms:.1f} ms, p99 {middle.p99_ms:.1f} ms, {middle.per_batch:.0f} a batch"
        print(f"{name:31} {middle.per_second:8,.0f} verdicts/s  x {ratio:.2f}  {cost}; {speed}", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", default="b,c", help="of `tillgate bench`")
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()
    for row in asked.rows.split(","):
        bench(row, asked.seconds, asked.rounds)
    return 0


if __name__ == "__main__":
    sys.exit(main())
