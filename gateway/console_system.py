"""The console's System screen: this gateway and what it stands on, as of now. Shows no secret."""

import os
import platform
from collections.abc import Iterator
from pathlib import Path

import msgspec

from eventstore.follower import Follower
from gateway import console_bodies as b
from gateway.config import SETTINGS
from gateway.console_files import runbooks
from gateway.console_live import quantile
from gateway.core import Core, wall_ms
from gateway.metrics import Metrics
from gateway.scrape import Scrapes
from gateway.settings import Config
from gateway.stream import Stream


class Surroundings:
    """What the System screen looks at. `counting` says why the counts stand still, if they do."""

    def __init__(self, stream: Stream, scrapes: Scrapes, follower: Follower, config: Config, metrics: Metrics) -> None:
        self._stream, self._scrapes, self._follower, self._config = stream, scrapes, follower, config
        self.metrics = metrics
        self.counting = ""
        self._started_ms = wall_ms()

    def system(self, core: Core, viewers: int) -> b.System:
        """One look. Blocks for some tens of microseconds."""
        snapshot, lag = self._scrapes.snapshot(), self.metrics.loop_lag
        disk = snapshot.sampled.disk
        return b.System(
            version=self.metrics.version,
            python=platform.python_version(),
            pid=os.getpid(),
            started_ms=self._started_ms,
            draining=core.leaving,
            troubles=core.troubles(),
            partitions=list(self._partitions(core)),
            log_bytes=(disk.log_bytes or 0) if disk else 0,
            disk_free_bytes=disk.free_bytes if disk else 0,
            disk_bytes=disk.size_bytes if disk else 0,
            lag_p99_ms=round(1000 * quantile(lag.bounds, lag.counts, 0.99), 2),
            tills=sum(snapshot.connected.values()),
            viewers=viewers,
            memory_bytes=_resident_bytes(),
            valkey=snapshot.sampled.valkey,
            valkey_restarts=snapshot.valkey_restarts,
            config=shown(self._config),
            runbooks=runbooks(),
            counting=self.counting,
        )

    def _partitions(self, core: Core) -> Iterator[b.PartitionRow]:
        for lane in core.lanes:
            indexed, counted = core.follower.applied(lane.partition).seq, self._follower.applied(lane.partition).seq
            yield b.PartitionRow(str(lane.partition), str(lane.state), lane.why, lane.durable_seq, indexed, counted)
        seq = core.control.directory.control_seq
        state = "confirmed" if core.control.is_confirmed() else "unconfirmed"
        yield b.PartitionRow("control", state, "", seq, seq, seq)


def _resident_bytes() -> int:
    # The one file for it that is there under ProcSubset=pid of the systemd unit.
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def shown(config: Config) -> dict[str, str]:
    """Every setting by its dotted key. There is no secret among them: those are in files, and only paths are set."""
    built = msgspec.to_builtins(config)
    found: dict[str, str] = {}
    for key in SETTINGS:
        at = built
        for name in key.split("."):
            at = at[name]
        found[key] = str(at)
    return found
