"""What a span costs a message: `make bench-tracing`. Without, with 1 % told, with all told; microseconds, and a ratio.

The exporter has a thread of its own, which is not counted: it costs what is sent, not what is answered. The control is
the same call of the same counters without tracing, measured in turns with the others.
"""

import statistics
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from gateway.metrics import Metrics, Tally
from gateway.settings import TracingConfig
from gateway.tracing import TracedMetrics

MESSAGES, TURNS = 4_000, 7
CODES = bytes(64)


class Sink(BaseHTTPRequestHandler):
    """A collector that takes everything and keeps nothing."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *args: object) -> None:
        return


def cost_us(tally: Tally) -> float:
    began = time.thread_time_ns()
    for _ in range(MESSAGES):
        tally.in_flight += 1
        tally.answered("store-1", CODES, 0.002)
    return (time.thread_time_ns() - began) / MESSAGES / 1000


def main() -> None:
    sink = ThreadingHTTPServer(("127.0.0.1", 0), Sink)
    threading.Thread(target=sink.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{sink.server_port}/v1/traces"
    traced = [TracedMetrics("bench", TracingConfig(url=url, ratio=ratio)) for ratio in (0.0, 0.01, 1.0)]
    rows: dict[str, Callable[[], float]] = {
        "off (control)": lambda: cost_us(Metrics("bench").tally("redeem", "stream")),
        **{
            f"on, ratio {ratio}": (lambda one=one: cost_us(one.tally("redeem", "stream")))
            for ratio, one in zip((0.0, 0.01, 1.0), traced, strict=True)
        },
    }
    seen: dict[str, list[float]] = {name: [] for name in rows}
    for _ in range(TURNS):
        for name, row in rows.items():
            seen[name].append(row())
    control = statistics.median(seen["off (control)"])
    print(f"{'a message of 64 scans':<24} {'us':>8} {'more us':>8}")
    for name, times in seen.items():
        print(f"{name:<24} {statistics.median(times):>8.2f} {statistics.median(times) - control:>8.2f}")
    for one in traced:
        one.close()


if __name__ == "__main__":
    main()
