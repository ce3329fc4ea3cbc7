"""What metrics and an open console cost: `make bench-console`. Gateway CPU a verdict, watched and not, in pairs.

Two gateways run side by side. The watched one is scraped every 5 s and has a console open that looks at everything at
once; the other has its console left out (console.served = false) and is never scraped. Each pair loads one after the
other with the same messages of 64 scans as fast as they answer, in changing order, each with vouchers of its own; a
window is as long as a scrape's period, so each watched one holds one scrape. CPU comes from the processes' accounts.
The mark: the median of the pairs' ratios is at most 1.05. Exit code 3 above it. The pairs take five minutes.
"""

import argparse
import http.client
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from random import Random
from urllib.parse import urlsplit

import msgspec

from loadtest.bench_gateway import CAMPAIGN, CODES_PER_CALL, Gateway, running_gateway, set_up
from loadtest.bench_plan import STREAM, Load, Plan, Shape, Target, Till

SCRAPE_S = 5.0
WARM_S = 0.5
SHAPE = Shape(STREAM, connections=8, window=8, scans=64)
RATE_MAX = 130_000  # vouchers a second that one may use up; a faster machine ends a window early
RATIO_MAX = 1.05
WORK_S_MAX = 180.0  # encoding and connecting, beside the measured time


class Watcher:
    """Somebody who looks at everything the console shows, and a Prometheus."""

    def __init__(self, gateway: Gateway) -> None:
        self.events = self.octets = self.scrapes = self.lost = 0
        self.scrape_s: list[float] = []
        self._over = threading.Event()
        self._token = (gateway.directory / "secrets" / "admin.token").read_text().strip()
        served = msgspec.json.decode((gateway.directory / "gateway.json").read_bytes())
        self._url, self._metrics = urlsplit(served["url"]), urlsplit(served["metrics_url"])
        self._threads = [threading.Thread(target=work, daemon=True) for work in (self._look, self._scrape)]
        for thread in self._threads:
            thread.start()

    def _look(self) -> None:
        line = http.client.HTTPConnection(self._url.hostname or "", self._url.port, timeout=60)
        path = "/console/api/stream?topics=now,stores,campaigns,load,tail"
        line.request("GET", path, headers={"Authorization": f"Bearer {self._token}"})
        response = line.getresponse()
        assert response.status == http.client.OK, response.read()
        while not self._over.is_set() and (text := response.readline()):
            self.octets += len(text)
            self.events += text.startswith(b"event:")
            self.lost += text.startswith(b"event: lost")

    def _scrape(self) -> None:
        while not self._over.wait(SCRAPE_S):
            line = http.client.HTTPConnection(self._metrics.hostname or "", self._metrics.port, timeout=60)
            began_s = time.monotonic()
            line.request("GET", self._metrics.path)
            line.getresponse().read()
            self.scrape_s.append(time.monotonic() - began_s)
            self.scrapes += 1
            line.close()

    def close(self) -> None:
        self._over.set()


def measured(gateway: Gateway, tills: list[Till], turn: int, seconds: float) -> Load:
    """One window. Raises AssertionError where an answer was not the one it had to be."""
    count = round(RATE_MAX * (seconds + WARM_S))
    codes = issued(gateway, f"turn {turn}", count)
    Random(turn).shuffle(codes)
    pids = {"gateway": gateway.pid, "valkey": gateway.valkey_pid}
    plan = Plan(
        shape=SHAPE,
        targets=[Target("gateway", gateway.host, gateway.port, pids)],
        tills=tills,
        token="",
        codes=codes,
        seconds=seconds,
        turns=1,
        warm_seconds=WARM_S,
        seed=turn,
    )
    command = [sys.executable, "-m", "loadtest.bench_generator"]
    made = subprocess.run(
        command, input=msgspec.msgpack.encode(plan), stdout=subprocess.PIPE, timeout=WORK_S_MAX + seconds, check=True
    )
    (load,) = msgspec.msgpack.decode(made.stdout, type=list[Load])
    assert (load.wrong, load.unresolved, load.accepted) == (0, 0, load.accepted_expected), load
    return load


def issued(gateway: Gateway, request_id: str, count: int) -> list[str]:
    answer = gateway.post(f"/v1/campaigns/{CAMPAIGN}/issues", {"count": count, "request_id": request_id})
    first, codes = answer["first_serial"], []
    for start in range(first, first + count, CODES_PER_CALL):
        size = min(CODES_PER_CALL, first + count - start)
        text = gateway.ask("GET", f"/v1/campaigns/{CAMPAIGN}/codes?first={start}&count={size}").decode()
        codes += [line.partition(",")[2] for line in text.splitlines()]
    return codes


def cpu_us(load: Load) -> float:
    return load.cpu_seconds["gateway"] * 1e6 / load.scans


def main() -> int:
    parser = argparse.ArgumentParser(description="Gateway CPU a verdict, watched and not.")
    parser.add_argument("--pairs", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=SCRAPE_S, help="of each window")
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="tillgate-") as name,
        running_gateway(Path(name) / "watched") as watched,
        running_gateway(Path(name) / "alone", CONSOLE__SERVED="false") as alone,
    ):
        stages = {gateway: set_up(gateway, SHAPE.connections, 1) for gateway in (watched, alone)}
        watcher, ratios, seen = Watcher(watched), [], {watched: [], alone: []}
        print(f"{'pair':>4} {'watched us':>11} {'alone us':>9} {'ratio':>6} {'watched/s':>10} {'alone/s':>9}")
        for pair in range(options.pairs):
            order = (watched, alone) if pair % 2 else (alone, watched)
            loads = {one: measured(one, stages[one].tills, pair, options.seconds) for one in order}
            costs = {one: cpu_us(load) for one, load in loads.items()}
            ratios.append(costs[watched] / costs[alone])
            rates = {one: round(load.scans / load.seconds) for one, load in loads.items()}
            for one, cost in costs.items():
                seen[one].append(cost)
            row = f"{pair + 1:>4} {costs[watched]:>11.2f} {costs[alone]:>9.2f} {ratios[-1]:>6.3f}"
            print(f"{row} {rates[watched]:>10,} {rates[alone]:>9,}", flush=True)
        watcher.close()
    ratio = statistics.median(ratios)
    middle = {one: statistics.median(costs) for one, costs in seen.items()}
    print(
        f"medians: watched {middle[watched]:.2f} us, alone {middle[alone]:.2f} us; ratio {ratio:.3f} (<= {RATIO_MAX})"
    )
    scrape_ms = 1000 * statistics.median(watcher.scrape_s or [0.0])
    print(f"the console was told {watcher.events} events ({watcher.octets / 1e6:.1f} MB), lost frames {watcher.lost}")
    print(f"{watcher.scrapes} scrapes, {scrape_ms:.0f} ms each under load")
    return 0 if ratio <= RATIO_MAX else 3


if __name__ == "__main__":
    sys.exit(main())
