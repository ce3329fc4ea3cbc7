"""From Locust's options to a run and what came of it; again for every start from the web page."""

import logging
import subprocess
import sys
import time
from argparse import Namespace
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

import msgspec
from locust.env import Environment
from locust.runners import MasterRunner

from loadtest import run_files
from loadtest.arrivals import rate_most
from loadtest.judge import judged, why_void
from loadtest.locust_master import MasterRun
from loadtest.locust_rules import (
    FAILED,
    OWN_GATEWAY,
    REFUSED,
    check_for_locust,
    exit_code,
    number,
    verdict_lines,
    whole,
)
from loadtest.locust_share import Model, Ready, Report, Share
from loadtest.own_server import GatewayFailed
from loadtest.run_files import Run
from loadtest.run_plan import codes_for, environment_of, plans
from loadtest.scenario import Race, Scenario, ScenarioRefused
from loadtest.scenario_rules import adjusted, named, vouchers_needed
from loadtest.stage import Stage, own_deployment, running_deployment, set_up

_log = logging.getLogger("tillgate")


class Master:
    """The master's side of all runs of one Locust; where there are no workers it is in the one process."""

    def __init__(self, environment: Environment) -> None:
        self._environment = environment
        self._own_url = ""
        self._deployment = ExitStack()
        self._told: run_files.Environment | None = None
        self._run: MasterRun | None = None
        self._ended = False
        self.model: Model = "open"
        self.users = 1  # Locust's, of the run that begins

    @property
    def is_over(self) -> bool:
        """Whether there is nothing (more) to wait for."""
        return self._ended or (self._run is not None and self._run.is_over)

    def expect(self) -> None:
        """A run is about to begin: how many of Locust's users it takes."""
        options = self._options
        self.model, self._ended = options.model, False
        self.users = len(self._workers()) if self.model == "open" else options.closed_users

    def begin(self) -> None:
        """Set the stage and share the run out; what is wrong with it is logged and told by the exit code."""
        try:
            self._begin()
        except ScenarioRefused as error:
            self._give_up(REFUSED, str(error))
        except (GatewayFailed, OSError) as error:
            self._give_up(FAILED, str(error))
        except BaseException:  # Locust would log it, and wait for ever for a run that does not begin
            self._give_up(FAILED, "the run could not begin")
            raise

    def ready(self, told: Ready) -> None:
        """A worker has connected its tills, or cannot."""
        if self._run is not None:
            self._run.ready(told)

    def add(self, report: Report, *, last: bool = False) -> None:
        """What a worker reports, of the run that is on."""
        if self._run is not None:
            self._run.add(report, last=last)

    def end(self) -> None:
        """Write the run and judge it; once."""
        master_run = self._run
        if master_run is None or self._ended:
            return
        self._ended = True
        master_run.close()  # takes in the last reports
        self._run = None
        run = self._written(master_run)
        self._deployment.close()
        for line in verdict_lines(run):
            _log.info("%s", line)
        invariants_hold = not self._options.verify or self._verified(master_run.directory)
        self._environment.process_exit_code = exit_code(run, invariants_hold=invariants_hold)
        _log.info("the run is in %s", master_run.directory)

    def _begin(self) -> None:
        workers = self._workers()
        scenario = self._scenario(len(workers))
        directory = self._new_directory(scenario)
        stage = self._staged(scenario, directory)
        self._told = environment_of(directory, stage)
        self._environment.host = stage.desk.url
        shares = _shares(scenario, stage, directory)
        if self.model == "closed":
            pause_s = self.users / rate_most(scenario)
            shares = [msgspec.structs.replace(share, model=self.model, pause_s=pause_s) for share in shares]
        self._run = MasterRun(self._environment, directory, scenario, dict(zip(workers, shares, strict=True)))
        self._run.watch(stage.target.pids, stage.metrics_url)
        self._run.share_out()

    def _give_up(self, code: int, why: str) -> None:
        _log.error("%s", why)
        self._environment.process_exit_code = code
        self._run, self._ended = None, True
        self._deployment.close()

    def _written(self, master_run: MasterRun) -> Run:
        told, scenario = master_run.gathering, master_run.scenario
        assert self._told is not None, "a run that has begun knows its machine"
        void = [*master_run.faults, *why_void(scenario, told)]
        starts_s = master_run.starts_ms / 1000 or time.time()  # it may never have begun
        run = Run(
            tool="locust" if self.model == "open" else "closed",
            scenario=msgspec.to_builtins(scenario),
            started_ms=master_run.starts_ms,
            seconds=max(round(time.time() - starts_s, 3), 0.0),
            generators=scenario.generators,
            counts=told.counts,
            outcomes=told.outcomes,
            latencies=told.latencies(),
            faults=[],
            marks=judged(scenario, told, void=bool(void)),
            void=void,
            environment=self._told,
        )
        told.write(master_run.directory, run)
        return run

    def _verified(self, directory: Path) -> bool:
        """Whether the ten invariants hold, by `tillgate load verify`; a gateway that is not ours it cannot find."""
        if not self._own_url:
            _log.warning("not verified: name the gateway's data: tillgate load verify %s --data DIRECTORY", directory)
            return True
        command = [sys.executable, "-m", "gateway.cli", "load", "verify", str(directory)]
        made = subprocess.run(command, capture_output=True, text=True, check=False)
        for line in (made.stdout + made.stderr).splitlines():
            _log.info("%s", line)
        return made.returncode == 0

    @property
    def _options(self) -> Namespace:
        options = self._environment.parsed_options
        assert isinstance(options, Namespace), "Locust has parsed its command line"
        return options

    def _workers(self) -> list[str]:
        """Locust's names of the processes that make the load, by their indexes."""
        runner = self._environment.runner
        if not isinstance(runner, MasterRunner):
            return ["local"]
        return sorted((client.id for client in runner.clients.ready), key=runner.get_worker_index)

    def _scenario(self, generators: int) -> Scenario:
        """The one that the options name. Raises ScenarioRefused."""
        options = self._options
        scenario = adjusted(
            named(options.scenario),
            rate=number(options.rate, "rate"),
            seconds=number(options.seconds, "seconds"),
            terminals=whole(options.terminals, "terminals"),
            seed=whole(options.seed, "seed"),
            generators=generators,
        )
        check_for_locust(scenario)
        return scenario

    def _new_directory(self, scenario: Scenario) -> Path:
        name = f"{scenario.name}-{datetime.now(UTC):%Y%m%d-%H%M%S}"
        directory = Path(self._options.run_directory or Path("runs") / name).absolute()
        directory.mkdir(parents=True, exist_ok=True)
        if any(directory.iterdir()):
            raise GatewayFailed(f"{directory} is not empty: a run needs a directory of its own")
        return directory

    def _staged(self, scenario: Scenario, directory: Path) -> Stage:
        host = self._environment.host
        if host and host not in (OWN_GATEWAY, self._own_url):  # Locust's page shows the last run's host again
            opened = running_deployment(host.rstrip("/"), self._options.admin_token, None)
            self._own_url = ""
            desk, target, metrics_url = self._deployment.enter_context(opened)
        else:
            desk, target, metrics_url = self._deployment.enter_context(own_deployment(directory, scenario))
            self._own_url = desk.url
        return set_up(desk, target, metrics_url, scenario, vouchers_needed(scenario), _log.info)


def _shares(scenario: Scenario, stage: Stage, directory: Path) -> list[Share]:
    made = plans(scenario, stage, directory)
    if isinstance(scenario.arrivals, Race):
        codes = codes_for(stage, 0, stage.main.count, 1) * len(made)  # everybody is after the same ones
    else:
        codes = codes_for(stage, 0, stage.main.count, len(made))
    return [Share(plan, some, stage.desk.url) for plan, some in zip(made, codes, strict=True)]
