"""A run shared out among its generators, and what is told of the machine it ran on."""

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from random import Random

import msgspec
import psutil

from loadtest.bench_machine import LIBRARIES, beside, commit, cpu_model, said
from loadtest.generator_plan import BadCode, Codes, Plan
from loadtest.run_files import Environment
from loadtest.scenario import Scenario
from loadtest.stage import SPECIAL, Stage

CUT_CHARS = 3  # a code this much shorter is none
FORGED = 200  # codes with a wrong signature, each of them different


def plans(scenario: Scenario, stage: Stage, directory: Path) -> list[Plan]:
    """One for each generator process: every n-th till, those with a stream first. Raises GatewayFailed."""
    terminals, generators = scenario.terminals, scenario.generators
    streams = round(terminals.count * (1 - terminals.http))
    bad = _bad_codes(stage) if scenario.mix.bad else []
    made = []
    for generator in range(generators):
        numbers = range(generator, terminals.count, generators)
        cut_off = [
            place
            for place, number in enumerate(numbers)
            if scenario.outage is not None and number % terminals.stores < scenario.outage.stores and number < streams
        ]
        made.append(
            Plan(
                scenario=msgspec.to_builtins(scenario),
                directory=str(directory),
                generator=generator,
                generators=generators,
                host=stage.desk.host,
                port=stage.desk.port,
                token=stage.token,
                tills=[stage.tills[number] for number in numbers],
                streams=sum(number < streams for number in numbers),
                cut_off=cut_off,
                campaign=stage.main.number,
                bad=bad,
            )
        )
    return made


def _bad_codes(stage: Stage) -> list[BadCode]:
    """Codes that were cut short, of a campaign that is over, of one that is not for these stores; and nobody's."""
    past = stage.codes(stage.expired, 0, SPECIAL)
    far = stage.codes(stage.elsewhere, 0, SPECIAL)
    made = [BadCode(code[:-CUT_CHARS], None) for code in past]
    for codes, campaign in ((past, stage.expired), (far, stage.elsewhere)):
        serials = range(campaign.first_serial, campaign.first_serial + len(codes))
        made += [BadCode(code, f"{campaign.number}-{serial}") for code, serial in zip(codes, serials, strict=True)]
    rng = Random(stage.tag)  # noqa: S311 - load, not secrets
    for code in far[:FORGED]:
        place = len(code) - 1 - rng.randrange(CUT_CHARS)
        other = "0" if code[place] != "0" else "1"
        made.append(BadCode(code[:place] + other + code[place + 1 :], None, guess=True))
    return made


def codes_for(stage: Stage, first: int, count: int, generators: int) -> list[Codes]:
    """The vouchers from `first` on, every n-th for each generator. Raises GatewayFailed."""
    codes = stage.codes(stage.main, first, count)
    serial = stage.main.first_serial + first
    return [Codes(serial + number, generators, codes[number::generators]) for number in range(generators)]


def environment_of(directory: Path, stage: Stage) -> Environment:
    """The machine; the disk is the one of the run's directory."""
    disk = beside(directory)
    versions = {name: version(name) for name in LIBRARIES}
    if "valkey" in stage.target.pids:
        program = psutil.Process(stage.target.pids["valkey"]).exe()
        versions["valkey"] = said([program, "--version"]).partition(" sha=")[0]
    return Environment(
        cpu=cpu_model(),
        cores=os.cpu_count() or 0,
        same_machine=stage.desk.host in ("127.0.0.1", "localhost", "::1"),
        kernel=f"{platform.system()} {platform.release()}",
        python=f"{platform.python_implementation()} {platform.python_version()}",
        tillgate=_tillgate(),
        commit=commit(),
        fsync_p50_ms=round(disk.fsync_p50_ms, 3),
        fsync_p99_ms=round(disk.fsync_p99_ms, 3),
        versions=versions,
    )


def _tillgate() -> str:
    try:
        return version("tillgate")
    except PackageNotFoundError:  # run from a checkout
        return ""
