"""How long a scan takes to the cashier's eye: from the last byte of its frame to a page that has drawn it, on loopback.

    make bench-page            prints a table; needs chromium

The daemon, the page in headless Chromium and a gateway that answers at once run on this machine. `heard` is the tick
(journalled, and drawn), `verdict` the answer, gateway and network included. Drawn means: the frame after the change
has begun, which is the earliest a screen can show it.
"""

import asyncio
import statistics
import sys
import tempfile
import time
from pathlib import Path

from browser_world import CHROMIUM, chromium, opened
from page_world import PageTill, page_till
from playwright.async_api import Page

SCANS = 200
PAUSE_S = 0.05  # a person is slower; without it the next scan would stand in the way of the last one's verdict
BUDGET_MS = 50.0
WATCH = """() => {
  window.drawn = [];
  const note = () => {
    const kind = document.documentElement.dataset.kind, tail = document.querySelector('#tail').textContent;
    requestAnimationFrame(() => drawn.push([kind, tail, performance.timeOrigin + performance.now()]));
  };
  new MutationObserver(note).observe(document.querySelector('#tail'), { childList: true, subtree: true });
  new MutationObserver(note).observe(document.documentElement, { attributeFilter: ['data-kind'] });
}"""


async def measure(till: PageTill, page: Page) -> tuple[list[float], list[float]]:
    """Milliseconds from the end of each frame to `heard` and to its verdict."""
    await page.wait_for_selector("html[data-kind=ready]")
    heard, verdicts = [], []
    await page.evaluate(WATCH)
    for n in range(SCANS):
        await page.evaluate("drawn.length = 0")
        sent_ms = time.time_ns() / 1e6
        till.scan(f"CODE{n}")
        await page.wait_for_function("() => drawn.some(([kind]) => kind === 'accepted') && drawn.length > 1")
        drawn = await page.evaluate("drawn")
        heard.append(drawn[0][2] - sent_ms)
        verdicts.append(next(at_ms for kind, _, at_ms in drawn if kind == "accepted") - sent_ms)
        await asyncio.sleep(PAUSE_S)
    return heard, verdicts


async def main() -> int:
    if CHROMIUM is None:
        print("no chromium on PATH: nothing is measured")
        return 0
    with tempfile.TemporaryDirectory() as directory:
        async with page_till(Path(directory)) as till, chromium() as browser, opened(browser, till.url) as page:
            heard, verdicts = await measure(till, page)
    print(f"{SCANS} scans, from the end of the frame to the page, milliseconds")
    for name, values in (("heard", heard), ("verdict", verdicts)):
        cuts = statistics.quantiles(values, n=100)
        print(f"{name:8} median {cuts[49]:6.1f}   p95 {cuts[94]:6.1f}   p99 {cuts[98]:6.1f}   worst {max(values):6.1f}")
    within = statistics.median(heard) <= BUDGET_MS
    print(f"budget: {BUDGET_MS:.0f} ms at the median, {'kept' if within else 'MISSED'}")
    return 0 if within else 1


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
