"""`tillgate top`: what the gateways do right now, on one screen, for those who are on ssh."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from gateway.cli_output import EXIT_UNREACHABLE, EXIT_USAGE, Fault, print_one, prints_results
from gateway.cli_session import GATEWAY_FILE, loaded, takes_data

if TYPE_CHECKING:
    from rich.table import Table

    from gateway.top_view import Labels, View

ANSWER_S = 5.0
BAR_CELLS = 24
COLOURS = {"accepted": "green", "refused": "yellow", "unresolved": "red"}


class _Told(msgspec.Struct, frozen=True):
    """Of GATEWAY_FILE, what this command needs."""

    metrics_url: str


@click.command()
@click.option("--metrics", "urls", multiple=True, metavar="URL", help="A gateway's /metrics, once for each of them.")
@click.option("--every", "every_s", type=click.FloatRange(0.2, 60), default=1.0, show_default=True, help="Seconds.")
@click.option("--once", is_flag=True, help="Show one interval and end; so does --json.")
@takes_data
@prints_results
def top(urls: tuple[str, ...], every_s: float, once: bool, data_dir: str | None, as_json: bool) -> None:
    """Show verdicts, latency, reasons, stores, disk and Valkey, live. Reads /metrics only, and needs no token.

    \b
    tillgate top
    tillgate top --metrics http://10.0.0.7:9108/metrics --metrics http://10.0.0.8:9108/metrics
    """
    scraped = urls or (_own_url(data_dir),)
    try:
        asyncio.run(_show(scraped, every_s, once, as_json))
    except KeyboardInterrupt:
        return


async def _show(urls: Sequence[str], every_s: float, once: bool, as_json: bool) -> None:
    from rich.console import Console
    from rich.live import Live

    views = _views(urls, every_s)
    first = await anext(views)
    if as_json:
        print_one(msgspec.to_builtins(first), as_json)
        return
    console = Console()
    if once or not console.is_terminal:
        console.print(screen(first))
        return
    with Live(screen(first), console=console, screen=True, auto_refresh=False) as live:
        async for seen in views:
            live.update(screen(seen), refresh=True)


async def _views(urls: Sequence[str], every_s: float) -> "AsyncIterator[View]":
    """One for each interval; a gateway that does not answer is missing in it."""
    import aiohttp

    from gateway.top_view import merged, view

    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(ANSWER_S)) as session:
        before, before_s = await _scrapes(session, urls), time.monotonic()
        if not before:
            raise Fault(f"nobody answers at {', '.join(urls)}", EXIT_UNREACHABLE, hint="tillgate doctor")
        while True:
            await asyncio.sleep(every_s)
            after, after_s = await _scrapes(session, urls), time.monotonic()
            known = [url for url in after if url in before]  # one that came back has no interval yet
            yield view(
                merged(before[url] for url in known),
                merged(after[url] for url in known),
                after_s - before_s,
                len(known),
            )
            before, before_s = after, after_s


async def _scrapes(session: object, urls: Sequence[str]) -> "dict[str, dict[tuple[str, Labels], float]]":
    answers = await asyncio.gather(*(_scrape(session, url) for url in urls))
    return {url: answer for url, answer in zip(urls, answers, strict=True) if answer is not None}


async def _scrape(session: object, url: str) -> "dict[tuple[str, Labels], float] | None":
    import aiohttp
    from prometheus_client.parser import text_string_to_metric_families

    assert isinstance(session, aiohttp.ClientSession)
    try:
        async with session.get(url) as answer:
            text = await answer.text()
        return {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }
    except aiohttp.InvalidURL:
        raise Fault(f"--metrics: {url} is not an address like http://127.0.0.1:9108/metrics", EXIT_USAGE) from None
    except (aiohttp.ClientError, TimeoutError, ValueError):  # ValueError: somebody else listens there
        return None


def _own_url(data_dir: str | None) -> str:
    """Of the gateway that serves the data directory, else where the configuration says that one would be."""
    config = loaded(data_dir).config
    try:
        return msgspec.json.decode((Path(config.data_dir) / GATEWAY_FILE).read_bytes(), type=_Told).metrics_url
    except (FileNotFoundError, msgspec.DecodeError):
        return f"http://{config.metrics.host}:{config.metrics.port}/metrics"


# --- the screen -------------------------------------------------------------------------------------------------------


def screen(seen: "View") -> "Table":
    """The whole screen as one renderable."""
    from rich.table import Table

    whole = Table.grid(padding=(0, 3))
    whole.add_row(_headline(seen), _health(seen))
    whole.add_row(_shares("verdicts/s", seen.verdicts, COLOURS), _shares("why refused/s", seen.reasons, {}))
    whole.add_row(_shares("busiest stores/s", seen.stores, {}), _machine(seen))
    return whole


def _headline(seen: "View") -> "Table":
    total = sum(seen.verdicts.values())
    rows = (
        ("verdicts/s", f"[bold]{total:,.0f}[/]"),
        ("p50 / p99", f"{_time(seen.p50_s)} / {_time(seen.p99_s, 0.25)}"),
        ("in flight", f"{seen.in_flight:,}"),
        ("terminals", f"{seen.terminals:,}"),
        ("records/s", f"{seen.records:,.0f}"),
    )
    return _pairs("now", rows)


def _health(seen: "View") -> "Table":
    ready = f"{seen.ready} of {seen.gateways}" + (f", {seen.draining} leaving" if seen.draining else "")
    halted = seen.partitions.get("halted", 0)
    partitions = ", ".join(f"{count} {state}" for state, count in seen.partitions.items()) or "-"
    rows = (
        ("gateways ready", _marked(ready, bad=seen.ready + seen.draining < seen.gateways or seen.gateways == 0)),
        ("partitions", _marked(partitions, bad=halted > 0)),
        ("Valkey", _marked({True: "up", False: "down", None: "?"}[seen.valkey_up], bad=seen.valkey_up is False)),
        ("index behind", _marked(f"{seen.projection_lag_s:.1f} s", bad=seen.projection_lag_s > 5)),
        ("violations", _marked(str(seen.violations), bad=seen.violations > 0)),
    )
    return _pairs("health", rows)


def _machine(seen: "View") -> "Table":
    rows = (
        ("CPU", f"{seen.cpu:.0%} of a core"),
        ("memory", _bytes(seen.memory_bytes)),
        ("commit p99", _time(seen.fsync_p99_s, 0.1)),
        ("loop late p99", _time(seen.loop_lag_p99_s, 0.1)),
        ("Valkey p99", f"{_time(seen.valkey_p99_s)}, {_bytes(seen.valkey_bytes)}"),
        ("log / disk free", f"{_bytes(seen.log_bytes)} / {_marked(_bytes(seen.disk_free_bytes), bad=_is_full(seen))}"),
    )
    return _pairs("machine", rows)


def _is_full(seen: "View") -> bool:
    return 0 < seen.disk_free_bytes < 1 << 30


def _pairs(title: str, rows: Sequence[tuple[str, str]]) -> "Table":
    from rich.table import Table

    table = Table(title=title, title_justify="left", title_style="bold", show_header=False, box=None)
    for name, value in rows:
        table.add_row(f"[dim]{name}[/]", value)
    return table


def _shares(title: str, rates: dict[str, float], colours: dict[str, str]) -> "Table":
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=title, title_justify="left", title_style="bold", show_header=False, box=None)
    most = max(rates.values(), default=0.0)
    for name, rate in rates.items():
        cells = round(BAR_CELLS * rate / most) if most else 0
        table.add_row(f"[dim]{escape(name)}[/]", f"{rate:,.1f}", f"[{colours.get(name, 'cyan')}]{'█' * cells}[/]")
    if not rates:
        table.add_row("[dim]nothing[/]", "", "")
    return table


def _marked(text: str, *, bad: bool) -> str:
    return f"[bold red]{text}[/]" if bad else f"[green]{text}[/]"


def _time(seconds: float | None, limit_s: float = float("inf")) -> str:
    if seconds is None:
        return "-"
    text = f"{seconds * 1000:.1f} ms" if seconds < 1 else f"{seconds:.2f} s"
    return f"[red]{text}[/]" if seconds > limit_s else text


def _bytes(count: int) -> str:
    for power, unit in ((4, "TiB"), (3, "GiB"), (2, "MiB"), (1, "KiB")):
        if count >= 1024**power:
            return f"{count / 1024**power:.1f} {unit}"
    return f"{count} B"
