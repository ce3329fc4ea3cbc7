"""One scrape of a real gateway that has seen a bit of everything, for the checks that compare names with it."""

import asyncio
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families
from stream_world import site

from gateway.settings import MetricsConfig

WHOLE = (
    "tillgate_valkey_used_memory_bytes ",
    'tillgate_vouchers{campaign="cake"',
)  # what comes a moment after the start
WHOLE_S = 10.0


async def _scraped(directory: Path) -> str:
    metrics = MetricsConfig(port=0, capacity_redeem_per_second=5000.0)
    async with site(directory, metrics=metrics) as here:
        codes = await here.w.codes(3)
        async with here.till(1) as till, asyncio.timeout(WHOLE_S):
            await till.redeem(*(here.w.scan(code) for code in (*codes, codes[0])))
            while True:
                _, page = await here.get(here.gateway.metrics_url)
                if all(name in page.decode() for name in WHOLE):
                    return page.decode()
                await asyncio.sleep(0.05)


def scraped(directory: Path) -> str:
    """The text of one scrape."""
    return asyncio.run(_scraped(directory))


def families(text: str) -> list[str]:
    """`name type label,label` of every family, sorted: what dashboards and rules rest on."""
    return sorted(
        f"{family.name}{'_total' if family.type == 'counter' else ''} {family.type} {','.join(_labels(family.samples))}"
        for family in text_string_to_metric_families(text)
        if family.name.startswith("tillgate_")
    )


def _labels(samples: list[object]) -> list[str]:
    return sorted({name for sample in samples for name in sample.labels} - {"le"})  # type: ignore[attr-defined]
