"""Chaos: a real gateway and a real Valkey under a seeded schedule of faults, tills that never give up, and a checker.

`make chaos FAULTS=200 SEED=7`, or `python tests/fault/chaos.py --help`. It prints its seed first; the same seed is the
same schedule. At the end come the counts, and for the first violation the voucher's whole history. Exit code 1: there
was a violation, an id without an answer QUIET_S after the faults, or a server that did what it must not.

A long run is cut into chapters, each of them a deployment of its own with its own check: so the checker's memory, and
what a restart has to load, stay those of one chapter, and every chapter has its quiet end.
"""

import argparse
import asyncio
import contextlib
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import uvloop
from chaos_check import Checker
from chaos_disk import Disk, build, copy_files
from chaos_faults import BY_NAME, Planned, Scene, schedule, strike
from chaos_proxy import Proxy
from chaos_report import QUIET_S, Report, in_chapter, in_words
from chaos_servers import ROOT, START_S, Failed, Gateway, Valkey
from chaos_stage import CAMPAIGN, set_up
from chaos_tills import Fleet

from gateway.core import LOG_FILE
from gateway.deployment import initialise
from gateway.proof import read_live

PARTITIONS = 2
WORKING_ODDS = 0.75  # how often that begins only when answers come again; else the next fault hits while it recovers
WORKING_ANSWERS, WORKING_S_MAX = 100, 5.0
PACE_S_MAX = 15.0  # for answers that are due; a gateway which is slower than asked gets fewer of them
REST_S_MAX = 120.0  # for what was not quiet in time: while a gateway still works, Valkey and log differ rightly
WATCH_S = 0.05
CHAPTER_FAULTS = 50
VOUCHERS_PER_ANSWER = 0.6  # the rest are copies, repeats and reversals
SMALL_BYTES = 24 << 20


@dataclass(frozen=True)
class Options:
    seed: int
    faults: int = 20
    seconds: float = 0.0  # the schedule ends when they are over; 0: with its last fault
    answers: int = 0  # how many the faults are spread over; 0: whatever comes
    only: Sequence[str] = ()
    tills: int = 8
    vouchers: int = 60_000
    rate: float = 2500.0  # new scans a second
    settle_s: float = 0.3  # tills work on for up to this long between two faults, at random
    scans_max: int = 40  # in one message
    small_disk: bool = False  # the gateway's data on a tmpfs of SMALL_BYTES; needs the right to mount
    source: Path = ROOT


class Run:
    """One deployment, from its first event to its check."""

    def __init__(self, options: Options, home: Path, say: Callable[[str], None]) -> None:
        self._options, self._home, self._say = options, home, say
        self.report = Report(options.seed)

    async def whole(self) -> Report:
        """Set up, break and mend, wait until quiet, check."""
        began_s = time.monotonic()
        scene, checker = await self._open()
        try:
            async with asyncio.TaskGroup() as tasks:
                watching = tasks.create_task(self._watch(scene))
                await self._break(scene)
                await self._calm(scene)
                watching.cancel()
            await self._check(scene, checker)
        except* Failed as failures:  # a server that cannot be started again: there is no more to break, or to check
            scene.broken += [("start", str(failure)) for failure in failures.exceptions]
            self.report.unresolved = scene.fleet.open_asks
        finally:
            self._count(scene)
            scene.fleet.close()
            await scene.proxy.close()
            for server in (scene.gateway, scene.valkey):
                server.kill()
                server.disk.close()
        self.report.seconds = time.monotonic() - began_s
        return self.report

    def _count(self, scene: Scene) -> None:
        self.report.violations_of_servers = scene.broken
        self.report.taken_back = scene.gateway.disk.taken_back + scene.valkey.disk.taken_back
        self.report.set_aside = scene.valkey.set_aside
        self.report.counts = scene.fleet.counts

    async def _open(self) -> tuple[Scene, Checker]:
        options, home = self._options, self._home
        data, histories = home / "data", home / "histories"
        histories.mkdir()
        library = build(home)
        await initialise(data, PARTITIONS, time.time_ns() // 1_000_000)
        valkey = await Valkey.make(Disk(library, home / "valkey", home / "valkey-undo"), home / "valkey")
        gateway = Gateway(Disk(library, data, home / "gateway-undo"), data, valkey, options.source)
        await valkey.start()
        await gateway.start()
        stage = await set_up(gateway.url, data, options.tills + 1, options.vouchers)
        witness_number = options.tills + 1
        witness = stage.keys.pop(witness_number)
        proxy = Proxy(lambda: gateway.port)
        await proxy.start()
        fleet = Fleet(stage, histories, proxy.port, options.seed, options.rate, options.scans_max)
        fleet.start()
        older = home / "older-aof"
        copy_files(valkey.files, older)
        scene = Scene(gateway, valkey, proxy, fleet, witness, witness_number, older)
        return scene, Checker(data / LOG_FILE, dict(zip(stage.keys, fleet.paths, strict=True)), CAMPAIGN)

    async def _watch(self, scene: Scene) -> None:
        """A server that ends although nobody made it is a finding, and is started again."""
        while True:
            await asyncio.sleep(WATCH_S)
            for server in (scene.gateway, scene.valkey):
                if server.must_live and not server.runs:
                    assert server.child is not None
                    code = server.child.returncode
                    scene.broken.append((server.name, f"ended by itself with {code}: {server.tail()}"))
                    server.must_live = False
                    await scene.start_both()

    async def _break(self, scene: Scene) -> None:
        options, counts = self._options, scene.fleet.counts
        await _until(lambda: counts.answers > 0, START_S)
        rng, ends_s = random.Random(f"pauses {options.seed}"), time.monotonic() + (options.seconds or float("inf"))
        for number, planned in enumerate(schedule(options.seed, options.faults, options.only), 1):
            await self._strike(scene, planned)
            await self._settle(scene, rng, options.answers * number // options.faults)
            if time.monotonic() > ends_s:
                return
        await _until(lambda: counts.answers >= options.answers, PACE_S_MAX)

    async def _settle(self, scene: Scene, rng: random.Random, due: int) -> None:
        """Let the tills work on for a while: not at all, or until answers come again, or until `due` have come."""
        counts = scene.fleet.counts
        wanted, seconds = counts.answers + WORKING_ANSWERS, rng.uniform(0.0, self._options.settle_s)
        if rng.random() < WORKING_ODDS:
            await _until(lambda: counts.answers >= wanted, WORKING_S_MAX)
            await _until(lambda: counts.answers >= due, PACE_S_MAX)
        await asyncio.sleep(seconds)

    async def _strike(self, scene: Scene, planned: Planned) -> None:
        report, before = self.report, scene.fleet.counts.answers
        try:
            seconds = await strike(scene, planned)
        except Failed as error:
            scene.broken.append((planned.name, str(error)))
            await scene.start_both()
            seconds = 0.0
        report.faults[planned.name] += 1
        report.fault_seconds[planned.name] += seconds  # type: ignore[assignment]
        report.answers_at[planned.name] += scene.fleet.counts.answers - before
        total = sum(report.faults.values())
        self._say(f"{total:5} {planned.name:20} {seconds:5.2f} s, {scene.fleet.counts.answers} answers")

    async def _calm(self, scene: Scene) -> None:
        """End the weather; nothing new is asked; every id that was sent must get its answer."""
        scene.heal()
        await scene.start_both()
        scene.fleet.stopping = True
        self.report.quiet_s = await _until(lambda: not scene.fleet.open_asks, QUIET_S)
        self.report.unresolved = scene.fleet.open_asks
        self.report.quiet_s += await _until(lambda: not scene.fleet.open_asks, REST_S_MAX)
        if halted := scene.gateway.halted():
            scene.broken.append(("halted", halted[0]))

    async def _check(self, scene: Scene, checker: Checker) -> None:
        scene.fleet.close()
        began_s = time.monotonic()
        client = scene.valkey.client()
        live = await read_live(client, PARTITIONS)
        await client.aclose()
        scene.gateway.kill()
        await checker.check_log()
        checker.check_histories()
        checker.check_valkey(live.hashes, live.heads)
        self.report.found = checker.found
        named = [serial for _, _, serial in checker.found.violations if serial is not None]
        if named:
            self.report.counterexample = checker.history_of(named[0])
        self.report.check_seconds = time.monotonic() - began_s


async def _until(true: Callable[[], bool], seconds_max: float) -> float:
    """Wait until something is so, or for so long; how long that was."""
    began_s = time.monotonic()
    while not true() and time.monotonic() - began_s < seconds_max:  # noqa: ASYNC110 - a question, no event
        await asyncio.sleep(0.01)
    return time.monotonic() - began_s


def run(options: Options, *, say: Callable[[str], None] = lambda text: None, keep: bool = False) -> Report:
    """One whole run in a directory of its own, which is removed unless `keep`, or a gateway of ours was at fault."""
    home = Path(tempfile.mkdtemp(prefix="chaos-"))  # short: the path of a socket has 107 bytes
    good, small = False, home / "data"
    if options.small_disk:
        small.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SMALL_BYTES},mode=700", "chaos", small], check=True)
    try:
        report = uvloop.run(Run(options, home, say).whole())
        good = report.is_good
    finally:
        if options.small_disk:
            subprocess.run(["umount", small], check=True)
        if keep or not (good or options.source != ROOT):
            say(f"kept: {home}")
        else:
            shutil.rmtree(home)
    return report


def chapter(whole: Options, number: int, seconds: float) -> Options:
    """The run that is a long one's `number`, from 0; `seconds`: how many are left, 0 where only the faults count."""
    left = whole.faults - number * CHAPTER_FAULTS
    faults = min(left, CHAPTER_FAULTS) if left > 0 else CHAPTER_FAULTS
    answers = whole.answers * faults // whole.faults
    vouchers = max(whole.vouchers, int(answers * VOUCHERS_PER_ANSWER))
    seed = whole.seed + number
    return replace(whole, seed=seed, faults=faults, answers=answers, vouchers=vouchers, seconds=seconds)


def chapters(whole: Options, *, say: Callable[[str], None], keep: bool) -> Report:
    """A run of any length, chapter by chapter; with `seconds`, until they are over. What all of it came to."""
    told, ends_s, number = Report(whole.seed), time.monotonic() + whole.seconds, 0
    while number * CHAPTER_FAULTS < whole.faults or time.monotonic() < ends_s:
        if whole.seconds and time.monotonic() >= ends_s:
            break
        report = run(chapter(whole, number, max(0.0, ends_s - time.monotonic())), say=say, keep=keep)
        told.add(report)
        number += 1
        if not report.is_good:
            say(in_words(report))
        say(f"chapter {number}, {in_chapter(report)}")
    return told


def main() -> int:
    parser = argparse.ArgumentParser(description="Break a gateway and its Valkey in every way there is, and check.")
    parser.add_argument("--faults", type=int, default=100, help="how many (default 100)")
    parser.add_argument("--seconds", type=float, default=0.0, help="stop after these, with more faults if need be")
    parser.add_argument("--answers", type=int, default=0, help="spread the faults over so many answers")
    parser.add_argument("--scans", type=int, default=40, help="in one message, at most (default 40)")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6), help="of the schedule")
    parser.add_argument("--only", default="", help=f"comma-separated kinds, of {', '.join(BY_NAME)}")
    parser.add_argument("--rate", type=float, default=2500.0, help="new scans a second (default 2500)")
    parser.add_argument("--settle", type=float, default=0.3, help="seconds between faults, at most (default 0.3)")
    parser.add_argument("--vouchers", type=int, default=400_000)
    parser.add_argument("--source", type=Path, default=ROOT, help="the checkout whose gateway is run")
    parser.add_argument("--keep", action="store_true", help="keep the directory of the run")
    given = parser.parse_args()
    only = [name for name in given.only.split(",") if name]
    if unknown := [name for name in only if name not in BY_NAME]:
        parser.error(f"no such fault: {unknown[0]}")
    print(f"seed {given.seed}", flush=True)
    options = Options(
        given.seed,
        given.faults,
        given.seconds,
        given.answers,
        only,
        vouchers=given.vouchers,
        rate=given.rate,
        source=given.source,
        settle_s=given.settle,
        scans_max=given.scans,
    )
    report = chapters(options, say=lambda text: print(text, flush=True), keep=given.keep)
    print(in_words(report))
    return 0 if report.is_good else 1


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        sys.exit(main())
