"""`tillgate load verify`: hold a run's journals against the event log, the gateways' read models and Valkey."""

import asyncio
import contextlib
import gc
import os
import random
import sqlite3
import tempfile
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

import click

from gateway.cli_output import EXIT_DIFFERENT, EXIT_FAILED, EXIT_USAGE, Fault, prints_results, progress, say

if TYPE_CHECKING:
    from gateway.client import Client
    from gateway.load_evidence import LogSource
    from gateway.settings import Config
    from loadtest.evidence import Control, Judgement
    from loadtest.run_files import Run
    from loadtest.verify import Verification
    from loadtest.verify_ids import Expected

ASKED_MAX = 200  # answered attempts that the gateway is asked for again: a second or two
CAUGHT_UP_S_MAX = 10.0  # how long read models may take to reach the end of the log once nothing is redeemed
POLL_S = 0.1
WORDS = {True: ("holds", "green"), False: ("BROKEN", "red"), None: ("unknown", "yellow")}
TOLD_EVERY = 10_000  # attempts between two looks at the progress bar


@click.command()
@click.argument("run", metavar="RUN", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--data", "data_dir", metavar="DIR", help="Data directory of the deployment (else RUN/deployment).")
@click.option("--config", type=click.Path(path_type=Path, dir_okay=False), help="TOML file (else TILLGATE_CONFIG).")
@prints_results
def verify(run: Path, data_dir: str | None, config: Path | None, as_json: bool) -> int:
    """Compare what a run was told with the event log and Valkey, by ten invariants.

    Nothing may be redeemed meanwhile. Where no gateway serves the deployment, one is started while this works.
    Exit codes: 0 all hold, 3 one does not (its first counterexample is told), 1 one cannot be told.

    \b
    tillgate load verify runs/smoke
    """
    from eventstore.log import LogFailed, LogLost, LogUnreadable
    from gateway.keyfile import KeyFault
    from loadtest.run_files import RunUnreadable
    from loadtest.verify_rows import BadAttempt

    settings = _settings(run, data_dir, config)
    began_s = time.monotonic()
    try:
        judgements = asyncio.run(_judged(run, settings, is_whole=data_dir is None))
    except FileNotFoundError as error:
        raise Fault(f"{error}: name the deployment's data directory with --data", EXIT_USAGE) from None
    except (RunUnreadable, BadAttempt) as error:
        raise Fault(str(error)) from None
    except (LogUnreadable, LogLost, LogFailed, KeyFault, sqlite3.Error) as error:
        raise Fault(f"the deployment {settings.data_dir} cannot be read: {error}", hint="tillgate doctor") from None
    seconds = time.monotonic() - began_s
    _keep(run, judgements, seconds)
    _print(judgements, seconds, as_json)
    if any(one.holds is False for one in judgements):
        return EXIT_DIFFERENT
    return 0 if all(one.holds for one in judgements) else EXIT_FAILED


def _settings(run: Path, data_dir: str | None, file: Path | None) -> "Config":
    """Raises Fault."""
    from gateway.config import BadConfig, read
    from loadtest.run_files import DEPLOYMENT

    # A deployment of the run's own has nothing to do with the one this shell is set up for.
    environ = os.environ if data_dir or file else _made_with(run)
    flags = {} if file and not data_dir else {"data": data_dir or str(run / DEPLOYMENT)}
    try:
        return read(file, environ, flags).config
    except BadConfig as error:
        raise Fault(str(error), EXIT_USAGE) from None


def _made_with(run: Path) -> dict[str, str]:
    """The settings of a deployment that was made for the run."""
    from loadtest.run_files import SETTINGS_FILE

    file = run / SETTINGS_FILE
    lines = file.read_text().splitlines() if file.exists() else []
    return {f"TILLGATE_{name}": value for name, _, value in (line.partition("=") for line in lines)}


async def _judged(directory: Path, config: "Config", *, is_whole: bool) -> list["Judgement"]:
    from gateway.load_evidence import open_source, totals_of
    from loadtest.run_files import read_run
    from loadtest.verify import Verification

    run = read_run(directory)
    source = await open_source(config)
    try:
        async with _gateway(config) as (client, why_not, is_own):
            control = await _control(source)
            await _wait_for_read_models(config, client, control.campaigns, await source.newest())
            make_file, sample = partial(_file, directory), _sample(run)
            verification = Verification(run, control, totals_of(config), make_file, is_whole=is_whole, sample=sample)
            verification.was_started = is_own
            await asyncio.to_thread(_read_journals, verification, directory)
            await _read_log(verification, source)
            await asyncio.to_thread(_read_indexes, verification, config)
            await _read_valkey(verification, config, source, why_not)
            expected = await asyncio.to_thread(_compare, verification)
            if client is None:
                verification.not_asked = why_not
            else:
                await _ask(verification, client, expected)
            return await asyncio.to_thread(verification.judged, time.time_ns() // 1_000_000)
    finally:
        await source.close()


def _sample(run: "Run") -> list[int]:
    """Which attempts the gateway is asked for again: the same ones each time."""
    offered = run.counts.offered
    seed = str(run.scenario.get("seed", ""))
    return random.Random(seed).sample(range(offered), min(ASKED_MAX, offered))  # noqa: S311 - a sample, no secret


def _file(directory: Path) -> BinaryIO:
    """A file for a bucket of rows, on the run's own disk; it has no name and is gone with this process."""
    return cast("BinaryIO", tempfile.TemporaryFile(buffering=0, dir=directory))


@asynccontextmanager
async def _gateway(config: "Config") -> AsyncIterator[tuple["Client | None", str, bool]]:
    """A client of the gateway that serves the deployment, or (True) of one of our own; None, and why there is none."""
    from gateway.cli_session import ADMIN_TOKEN, own_certificate, read_token, served_url
    from gateway.client import Client

    directory = Path(config.data_dir)
    async with AsyncExitStack() as stack:
        url, why_not = await served_url(config, directory), ""
        is_own = url is None
        if is_own:
            url, why_not = await _own_gateway(stack, config)
        if not (directory / ADMIN_TOKEN).is_file():
            url, why_not = None, why_not or f"{directory} has no admin token, so no gateway was asked"
        if url is None:
            yield None, why_not, is_own
            return
        token = read_token(directory / ADMIN_TOKEN)
        yield await stack.enter_async_context(Client(url, token, tls=own_certificate(config))), "", is_own


async def _own_gateway(stack: AsyncExitStack, config: "Config") -> tuple[str | None, str]:
    """The address of a gateway that runs while `stack` is open; else None, and why it could not be started."""
    import msgspec

    from eventstore.log import LogDamaged, LogFailed, LogLocked, LogLost, LogUnreadable
    from gateway.config import BadConfig
    from gateway.embedded import EmbeddedError
    from gateway.keyfile import KeyFault
    from gateway.main import running
    from gateway.settings import MetricsConfig, ServerConfig

    private = msgspec.structs.replace(config, server=ServerConfig(port=0), metrics=MetricsConfig(port=0))
    try:
        own = await stack.enter_async_context(running(private, report=say, announce=False))
    except (LogLocked, LogUnreadable, LogDamaged, LogFailed, LogLost, EmbeddedError, KeyFault, BadConfig, OSError) as e:
        return None, f"no gateway serves it, and none could be started: {e}"
    say("no gateway serves this deployment: one was started until this is done")
    if troubles := own.core.troubles():
        return None, f"no gateway serves it, and the one started for this is not ready: {troubles[0]}"
    return own.url, ""


async def _control(source: "LogSource") -> "Control":
    from eventstore.log import LogDamaged
    from gateway.load_evidence import fold_control
    from loadtest.evidence import CONTROL, Control

    control = Control({}, {})
    with contextlib.suppress(LogDamaged):  # the chain's matter, below
        await source.walk(CONTROL, lambda batch: fold_control(control, batch))
    return control


async def _wait_for_read_models(
    config: "Config", client: "Client | None", campaigns: Iterable[int], newest: dict[int, int]
) -> None:
    """Until the gateway has computed, and written down, everything up to the end of the log; or CAUGHT_UP_S_MAX."""
    import msgspec

    from gateway.client import ClientFault
    from gateway.load_evidence import is_caught_up

    deadline_s, campaign = time.monotonic() + CAUGHT_UP_S_MAX, next(iter(campaigns), 0)
    while client is not None and not is_caught_up(config, newest) and time.monotonic() < deadline_s:
        with contextlib.suppress(ClientFault):  # there is no campaign, or no console, which then counts nothing
            await client.get(f"/console/api/campaigns/{campaign}", msgspec.Raw)  # it saves what it tells
        await asyncio.sleep(POLL_S)


def _read_journals(verification: "Verification", directory: Path) -> None:
    from loadtest.run_files import read_attempts

    with progress("journals", verification.run.counts.offered) as advance:
        for attempt in read_attempts(directory):
            verification.attempt(attempt)
            if verification.attempts % TOLD_EVERY == 0:
                advance(TOLD_EVERY)


async def _read_log(verification: "Verification", source: "LogSource") -> None:
    from eventstore.log import LogDamaged
    from loadtest.evidence import CONTROL

    newest = await source.newest()
    with progress("log", sum(newest.values())) as advance:
        for partition in (CONTROL, *range(source.partitions)):
            try:
                await source.walk(partition, verification.batch)
            except LogDamaged as error:
                verification.walk.cut_off(partition, error.seq, error.why)
            advance(newest.get(partition, 0))


def _read_indexes(verification: "Verification", config: "Config") -> None:
    from gateway.load_evidence import indexes_of

    for where, applied, rows in indexes_of(config):
        index = verification.index(where, applied)
        for row in rows:
            index.take(row)


async def _read_valkey(verification: "Verification", config: "Config", source: "LogSource", why_not: str) -> None:
    from gateway.load_evidence import read_valkey, valkey_of
    from gateway.valkey_client import UNREADABLE

    try:
        async with valkey_of(config) as valkey:
            if valkey is None:
                verification.no_valkey = why_not or "its private Valkey does not run"
                return
            heads = await read_valkey(valkey, source.partitions, verification.held)
    except UNREADABLE as error:
        verification.no_valkey = why_not or f"Valkey cannot be read: {error}"
        return
    newest = await source.newest()
    read = {partition: verification.walk.heads.get(partition, (0, b""))[0] for partition in newest}
    if newest != read:
        verification.no_valkey = f"the log grew from {read} to {newest} while it was read: stop what redeems"
        return
    verification.heads(heads)


def _compare(verification: "Verification") -> list["Expected"]:
    from loadtest.verify_rows import BUCKETS

    gc.disable()  # millions of rows, none in a cycle: looking for some takes a quarter of the time
    try:
        with progress("compare", BUCKETS) as advance:
            return verification.compare(advance)
    finally:
        gc.enable()


async def _ask(verification: "Verification", client: "Client", expected: Sequence["Expected"]) -> None:
    from gateway.client import ClientFault
    from gateway.load_evidence import ask_gateway

    try:
        answers = await ask_gateway(client, [one.redemption_id for one in expected])
    except ClientFault as error:
        verification.not_asked = f"the gateway did not answer: {error}"
        return
    verification.answers(expected, answers)


def _whole(judgements: Sequence["Judgement"], seconds: float) -> bytes:
    import msgspec

    holds = all(one.holds for one in judgements)
    return msgspec.json.encode({"holds": holds, "seconds": round(seconds, 1), "invariants": judgements})


def _keep(run: Path, judgements: Sequence["Judgement"], seconds: float) -> None:
    """For `tillgate load report`."""
    from loadtest.run_files import VERIFY_FILE

    (run / VERIFY_FILE).write_bytes(_whole(judgements, seconds) + b"\n")


def _print(judgements: Sequence["Judgement"], seconds: float, as_json: bool) -> None:
    """One line an invariant: a JSON object, or the invariants, numbers and the first counterexample of each."""
    if as_json:
        click.echo(_whole(judgements, seconds).decode())
        return
    for one in judgements:
        word, colour = WORDS[one.holds]
        numbers = ", ".join(f"{name} {number:,}" for name, number in one.compared.items())
        click.echo(f"{one.name:<3}  {click.style(f'{word:<7}', fg=colour)}  {one.says}; {numbers}")
        if one.counterexample:
            more = f" (and {one.broken - 1:,} more)" if one.broken > 1 else ""
            click.echo(f"              first: {one.counterexample}{more}")
        if one.why:
            click.echo(f"              {'left out' if one.holds else 'because'}: {one.why}")
