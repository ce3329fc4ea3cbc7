"""`tillgate demo`: a small campaign on this machine, with real processes, pictures, serial lines and plugs pulled.

One alliance of ten stores, 400 phones with three vouchers each. The gateway, its private Valkey and ten terminal
daemons are processes of their own; all files are in one directory that is removed, and nothing is left running.
"""

import asyncio
import secrets
import shutil
import signal
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import click
import msgspec
from rich.console import Console

from gateway.cli_output import EXIT_DIFFERENT, EXIT_FAILED, Fault, prints_results, progress, say
from gateway.client import ClientFault
from gateway.demo_children import Children, DemoFailed, end_orphaned_valkey
from gateway.demo_plan import LOSSY_TILL, PHONES, PRINTED, STORES, Voucher, as_presented, plan_of
from gateway.demo_result import Result, cases_of, result_of, shown
from gateway.demo_setup import Gateway, issue_vouchers, open_market, open_tills, through_pictures, void
from gateway.demo_story import Story
from gateway.demo_till import Till
from gateway.demo_wire import LOOPBACK, LossyLine
from gateway.proof import Proof
from gateway.proof_equalities import Told

SEED_END = 1_000_000
STORES_AHEAD = timedelta(hours=8)  # offers name days of Asia/Shanghai
STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@click.command()
@click.option("--seed", type=click.IntRange(0), help="Who scans what where, and when plugs are pulled (else any).")
@click.option("--keep", type=click.Path(path_type=Path, file_okay=False), help="Play in this new directory, keep it.")
@prints_results
def command(seed: int | None, keep: Path | None, as_json: bool) -> int:
    """Play a small campaign on this machine and prove its result: half a minute; exit code 1 if anything differs.

    \b
    tillgate demo
    """
    directory = _new_directory(keep)
    try:
        result = asyncio.run(_until_stopped(directory, secrets.randbelow(SEED_END) if seed is None else seed))
    except asyncio.CancelledError:
        _tidy(directory, keep)
        raise click.Abort from None
    except (DemoFailed, ClientFault) as error:
        raise Fault(f"{error}. The output of all processes is in {directory}/logs") from None
    _tidy(directory, keep)
    if as_json:
        click.echo(msgspec.json.encode(result).decode())
    else:
        Console().print(shown(result))
    return 0 if result.holds else EXIT_FAILED


def _new_directory(keep: Path | None) -> Path:
    if keep is None:
        return Path(tempfile.mkdtemp(prefix="tillgate-demo-"))
    try:
        keep.mkdir(mode=0o700, parents=True)
    except OSError as error:
        raise Fault(f"{keep}: {error.strerror}; --keep needs the name of a new directory") from None
    return keep.absolute()


def _tidy(directory: Path, keep: Path | None) -> None:
    if keep is None:
        shutil.rmtree(directory)
    else:
        say(f"kept: {directory} (data/ is the gateway's, till-0/ a terminal's, logs/ what all of them said)")


async def _until_stopped(directory: Path, seed: int) -> Result:
    """Ctrl-C, SIGTERM and SIGHUP end the demo once, in order; while it tidies up, they change nothing."""
    loop, played = asyncio.get_running_loop(), asyncio.ensure_future(_play(directory, seed))

    def stop() -> None:
        for number in STOPS:
            loop.add_signal_handler(number, lambda: None)
        played.cancel()

    for number in STOPS:
        loop.add_signal_handler(number, stop)
    return await played


async def _play(directory: Path, seed: int) -> Result:
    """Raises DemoFailed, ClientFault; whatever happens, no process is left."""
    logs = directory / "logs"
    logs.mkdir()
    children = Children(logs)
    gateway = Gateway(directory / "data", children)
    async with LossyLine(gateway.port) as line:
        demo = asyncio.ensure_future(_Demo(directory, seed, children, gateway, line).play())
        try:
            await asyncio.wait((demo, children.trouble), return_when=asyncio.FIRST_COMPLETED)
            if not demo.done():
                children.trouble.result()  # raises
            return await demo
        except* (DemoFailed, ClientFault) as faults:
            fault = children.trouble.exception() if children.trouble.done() else _first(faults)
        finally:
            demo.cancel()
            await asyncio.gather(demo, return_exceptions=True)
            await children.end_all()
            await end_orphaned_valkey(gateway.directory)
    assert fault is not None
    raise fault


def _first(faults: BaseExceptionGroup[BaseException]) -> BaseException:
    first: BaseException = faults
    while isinstance(first, BaseExceptionGroup):
        first = first.exceptions[0]
    return first


class _Demo:
    """One run, from an empty directory to its result."""

    def __init__(self, directory: Path, seed: int, children: Children, gateway: Gateway, line: LossyLine) -> None:
        self._directory, self._seed, self._plan = directory, seed, plan_of(seed)
        self._children, self._gateway, self._line = children, gateway, line
        self._seconds: dict[str, float] = {}
        self._began_s = self._lap_s = time.monotonic()

    async def play(self) -> Result:
        say(f"seed {self._seed}: {len(STORES)} stores, {PHONES} phones with three vouchers each")
        codes = await self._set_up()
        texts, tills = await self._open(codes)
        story = await self._perform(tills, texts)
        journals, proof = await self._prove(tills)
        self._seconds["total"] = time.monotonic() - self._began_s
        return result_of(
            self._plan,
            cases_of(story.outcomes, journals, STORES),
            story.kills,
            [till.scanner.used() for till in tills],
            proof,
            seed=self._seed,
            stores=len(STORES),
            phones=PHONES,
            vouchers={"issued": len(codes), "voided before": len(self._plan.voided)},
            seconds=self._seconds,
        )

    async def _set_up(self) -> dict[Voucher, str]:
        await self._children.run("init", ["-m", "gateway.cli", "init", "--data", str(self._gateway.directory)])
        await self._gateway.start()
        self._lap("start", "a gateway with its private Valkey runs")
        async with self._gateway.client() as client:
            await open_market(client)
            codes = await issue_vouchers(client, (datetime.now(UTC) + STORES_AHEAD).date())
            await void(client, self._plan.voided, codes)
        self._lap("issue", f"{len(codes):,} vouchers are issued")
        return codes

    async def _open(self, codes: dict[Voucher, str]) -> tuple[dict[Voucher, str], list[Till]]:
        """What scanners will send, each text read from its picture, and the tills they are plugged into."""
        urls = dict.fromkeys(range(len(STORES)), f"http://{LOOPBACK}:{self._gateway.port}")
        urls[LOSSY_TILL] = f"http://{LOOPBACK}:{self._line.port}"
        presented = as_presented(self._plan, codes)
        on_phones = {voucher: text for voucher, text in presented.items() if voucher.campaign != PRINTED}
        with progress("pictures", len(on_phones)) as advance:
            async with self._gateway.client() as client, asyncio.TaskGroup() as group:
                seen = group.create_task(through_pictures(on_phones, advance))
                tills = group.create_task(open_tills(client, self._directory, self._children, urls))
        self._lap("open", f"{len(on_phones):,} QR pictures are drawn and read back; {len(STORES)} tills are open")
        return presented | seen.result(), tills.result()

    async def _perform(self, tills: Sequence[Till], texts: dict[Voucher, str]) -> Story:
        with progress("scans", sum(act.scans for act in self._plan.acts)) as advance:
            story = Story(tills, texts, self._gateway, self._line, advance)
            for act in self._plan.acts:
                await story.play(act)
                killed = f"; {act.kill} killed in the middle" if act.kill else ""
                self._lap(act.name, f"{act.name}: {act.scans} scans{killed}")
        return story

    async def _prove(self, tills: Sequence[Till]) -> tuple[list[list[Told]], Proof]:
        """The journals as their own program prints them, and what another process makes of them."""
        await asyncio.gather(*(till.stop() for till in tills))
        journals = [str(till.journal) for till in tills]
        printed = await self._children.piped("journals", ["-m", "devices.journal", *journals], b"")
        told = msgspec.json.Decoder(Told).decode_lines(printed)
        arguments = ["-m", "gateway.proof", str(self._gateway.directory), "--json"]
        proof = await self._children.piped("proof", arguments, printed, fine=(0, EXIT_DIFFERENT))
        self._lap("proof", "the proof is computed by another process")
        return [[one for one in told if one.journal == journal] for journal in journals], _proof(proof)

    def _lap(self, name: str, done: str) -> None:
        now_s = time.monotonic()
        self._seconds[name] = now_s - self._lap_s
        say(f"{now_s - self._began_s:5.1f} s  {done}")
        self._lap_s = now_s


def _proof(printed: bytes) -> Proof:
    return msgspec.json.decode(printed, type=Proof)
