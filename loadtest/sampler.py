"""What the watched processes spend, once a second, and what a gateway's metrics say of its loop and its log."""

import http.client
import re
from collections.abc import Mapping, Sequence
from urllib.parse import urlsplit

import psutil

from loadtest.run_files import Sample

SCRAPE_SECONDS = 5.0  # as Prometheus would; a scrape costs the gateway some milliseconds
SCRAPE_SECONDS_MAX = 2.0
LAG, FSYNC = "tillgate_event_loop_lag_seconds", "tillgate_event_log_fsync_duration_seconds"
_bucket = re.compile(r'^(?P<name>\w+)_bucket\{le="(?P<le>[^"]+)"\} (?P<count>[0-9.e+]+)$', re.MULTILINE)
Buckets = dict[str, list[tuple[float, float]]]  # name -> (upper bound in seconds, observations so far)


class Sampler:
    """Reads the accounts of named processes; of one that is gone it says nothing."""

    def __init__(self, pids: Mapping[str, int], metrics_url: str) -> None:
        self._processes: dict[str, psutil.Process] = {}
        self.watch(pids)
        self._metrics = urlsplit(metrics_url) if metrics_url else None
        self._scraped_s = float("-inf")
        self._earlier: Buckets = {}

    def watch(self, pids: Mapping[str, int]) -> None:
        """These processes from now on: after a fault there may be others."""
        for name, pid in pids.items():
            known = self._processes.get(name)
            if known is None or known.pid != pid:
                try:
                    self._processes[name] = psutil.Process(pid)
                except psutil.NoSuchProcess:
                    self._processes.pop(name, None)

    def sample(self, at_s: float) -> list[Sample]:
        """One of each process. May wait for a scrape: call it in a thread."""
        lag_ms, fsync_ms = self._scrape(at_s)
        found = []
        for name, process in self._processes.items():
            tells = name == "gateway"
            try:
                with process.oneshot():
                    times = process.cpu_times()
                    rss, fds = process.memory_info().rss, process.num_fds()
            except psutil.Error:
                continue
            cpu_s = times.user + times.system
            found.append(Sample(at_s, name, cpu_s, rss, fds, lag_ms if tells else None, fsync_ms if tells else None))
        return found

    def _scrape(self, at_s: float) -> tuple[float | None, float | None]:
        """Loop lag and fsync time at their p99 since the last scrape, in milliseconds."""
        if self._metrics is None or self._metrics.hostname is None or at_s - self._scraped_s < SCRAPE_SECONDS:
            return None, None
        self._scraped_s = at_s
        connection = http.client.HTTPConnection(self._metrics.hostname, self._metrics.port, timeout=SCRAPE_SECONDS_MAX)
        try:
            connection.request("GET", self._metrics.path)
            text = connection.getresponse().read().decode()
        except (OSError, http.client.HTTPException):
            return None, None
        finally:
            connection.close()
        now = buckets(text, (LAG, FSYNC))
        earlier, self._earlier = self._earlier, now
        told = [_p99_ms(earlier.get(name, []), now.get(name, [])) for name in (LAG, FSYNC)]
        return told[0], told[1]


def buckets(text: str, names: Sequence[str]) -> Buckets:
    """Cumulative buckets of histograms without further labels, from Prometheus' text format."""
    found: Buckets = {name: [] for name in names}
    for match in _bucket.finditer(text):
        if match["name"] in found:
            found[match["name"]].append((float(match["le"]), float(match["count"])))
    return found


def _p99_ms(earlier: Sequence[tuple[float, float]], now: Sequence[tuple[float, float]]) -> float | None:
    """The bound of the bucket with the p99 of what came between; None where nothing came, or beyond all bounds."""
    before = dict(earlier)
    gained = [(bound, count - before.get(bound, 0.0)) for bound, count in now]
    if not gained or gained[-1][1] <= 0:
        return None
    bound = next(bound for bound, count in gained if count >= 0.99 * gained[-1][1])
    return None if bound == float("inf") else bound * 1000
