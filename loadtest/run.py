"""A run as a whole: the deployment is set up, loaded, and left as it is for whoever verifies it."""

import asyncio
import signal
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

from loadtest.bench_gateway import Desk
from loadtest.conductor import Conductor
from loadtest.faults import FAULTS, Target
from loadtest.generator import raise_file_limit
from loadtest.own_server import GatewayFailed
from loadtest.run_files import Run
from loadtest.run_plan import environment_of
from loadtest.scenario import Scenario
from loadtest.scenario_rules import vouchers_needed
from loadtest.stage import set_up, vouchers_before

SERVER_FILES = 1024  # what a gateway needs beside its tills' connections


async def make(
    scenario: Scenario,
    directory: Path,
    opened: AbstractContextManager[tuple[Desk, Target, str]],
    tell: Callable[[str], None],
) -> Run:
    """Run a checked scenario against a deployment that `opened` starts and ends. Raises GatewayFailed, OSError.

    SIGINT and SIGTERM break it off: what there is by then is written; before there is anything, CancelledError.
    """
    task, loop = asyncio.current_task(), asyncio.get_running_loop()
    assert task is not None
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, task.cancel)
    try:
        raise_file_limit(scenario.terminals.count + SERVER_FILES)  # a gateway of our own inherits it
    except ValueError as error:
        raise GatewayFailed(str(error)) from None
    with opened as (desk, target, metrics_url):
        for fault in scenario.faults:
            if (why := FAULTS[fault.name].refusal(target)) is not None:
                raise GatewayFailed(f"{fault.name} cannot be done there: {why}")
        if scenario.replay is not None and not target.own:
            raise GatewayFailed("a replay stops the gateway, and this one was not made for the run")
        vouchers = vouchers_before(scenario, vouchers_needed(scenario))
        stage = await asyncio.to_thread(set_up, desk, target, metrics_url, scenario, vouchers, tell)
        environment = environment_of(directory, stage)
        return await Conductor(scenario, stage, directory, tell).run(environment)
