"""A Locust master's side of a run: shares it out, starts it, adds up what workers report, judges and writes it.

Where there are no workers the one process is both sides, and the messages stay inside it.
"""

import logging
import time
from collections.abc import Mapping
from pathlib import Path

import gevent
import msgspec
from locust.env import Environment
from locust.runners import STATE_MISSING, MasterRunner

from loadtest.locust_share import END, SHARE, START, Ready, Report, Share, Start
from loadtest.recorder import Gathering, SampleFile
from loadtest.sampler import Sampler
from loadtest.scenario import Scenario

READY_S_MAX = 120.0  # ten thousand greetings take ten
LEAD_S = 1.0  # from telling all workers to the first intended start
REST_S_MAX = 10.0  # for the last reports after a run was stopped
POLL_S = 0.05
SAMPLE_S = 1.0
STARTS_FILE = "starts"  # in the run's directory while it goes on: when it began, for whoever disturbs it on purpose

_log = logging.getLogger("tillgate")


class MasterRun:
    """One run, from sharing it out to its files."""

    def __init__(
        self, environment: Environment, directory: Path, scenario: Scenario, shares: Mapping[str, Share]
    ) -> None:
        """`shares` by Locust's names of the workers."""
        self._environment, self.scenario, self._shares = environment, scenario, shares
        self.directory = directory
        self._gathering = Gathering()
        self._samples = SampleFile(directory)
        self._watching: gevent.Greenlet | None = None
        self._ready: dict[int, str] = {}
        self._rested: set[int] = set()
        self.faults: list[str] = []  # why the figures must not be believed
        self.starts_ms = 0

    @property
    def gathering(self) -> Gathering:
        return self._gathering

    def watch(self, pids: Mapping[str, int], metrics_url: str) -> None:
        """Take down what these processes spend, once a second from the first intended start."""
        self._watching = gevent.spawn(self._watch, Sampler(pids, metrics_url))

    def _watch(self, sampler: Sampler) -> None:
        while True:
            if self.starts_ms and (now_s := time.time() - self.starts_ms / 1000) >= 0:
                self._samples.note(sampler.sample(round(now_s, 3)))
            gevent.sleep(SAMPLE_S)

    def share_out(self) -> None:
        """Tell every worker its part, and all of them when to start, as soon as they are ready."""
        for name, share in self._shares.items():
            self._tell(SHARE, name, msgspec.msgpack.encode(share))
        gevent.spawn(self._start)

    def _start(self) -> None:
        until_s = time.monotonic() + READY_S_MAX
        while len(self._ready) < len(self._shares) and time.monotonic() < until_s and not self.faults:
            gevent.sleep(POLL_S)
        unready = sorted({share.plan.generator for share in self._shares.values()} - set(self._ready))
        if unready:
            self.faults.append(f"generators {unready} did not become ready within {READY_S_MAX:.0f} s")
        if self.faults:
            return
        self.starts_ms = round((time.time() + LEAD_S) * 1000)
        for name in self._shares:
            self._tell(START, name, msgspec.msgpack.encode(Start(self.starts_ms)))
        (self.directory / STARTS_FILE).write_text(str(self.starts_ms))
        _log.info("first intended start in %.1f s", LEAD_S)

    def ready(self, told: Ready) -> None:
        """A worker's tills are connected, or cannot be."""
        self._ready[told.generator] = told.fault
        if told.fault:
            self.faults.append(f"generator {told.generator} could not connect its tills: {told.fault}")

    def add(self, report: Report, *, last: bool = False) -> None:
        """What a worker reports. Raises OSError."""
        for part in report.parts:
            self._gathering.add(part)
        if report.journal:
            with (self.directory / f"journal-{report.generator}.ndjson").open("ab") as journal:
                journal.write(report.journal)
        self._samples.note(report.samples)
        if last:
            self._rested.add(report.generator)
            if not report.is_whole:
                self.faults.append(f"generator {report.generator} was stopped before its end")

    @property
    def is_over(self) -> bool:
        """Whether nothing more will be reported, by whoever is still there."""
        if self.faults:
            return True
        return all(share.plan.generator in self._rested or self._is_gone(name) for name, share in self._shares.items())

    def close(self) -> None:
        """End what is still going on, take in its last reports, and close the files."""
        missing = {
            name: share.plan.generator
            for name, share in self._shares.items()
            if share.plan.generator not in self._rested
        }
        for name in missing:
            self._tell(END, name, b"")
        until_s = time.monotonic() + REST_S_MAX
        while not self._rested.issuperset(missing.values()) and time.monotonic() < until_s:
            gevent.sleep(POLL_S)
        self.faults += [
            f"generator {generator} did not report to the end"
            for generator in missing.values()
            if generator not in self._rested
        ]
        if self._watching is not None:
            self._watching.kill()
        self._samples.close()
        (self.directory / STARTS_FILE).unlink(missing_ok=True)

    def _tell(self, kind: str, name: str, told: bytes) -> None:
        runner = self._environment.runner
        assert runner is not None, "a run has a runner"
        runner.send_message(kind, {"told": told}, name)

    def _is_gone(self, name: str) -> bool:
        runner = self._environment.runner
        if not isinstance(runner, MasterRunner):
            return False
        client = runner.clients.get(name)
        return client is None or client.state == STATE_MISSING
