"""Reports of load runs in a real browser, from a file: two widths, two themes, the values under pointer and keys."""

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
import pytest_asyncio
from browser_world import SIZES, axe_faults, chromium, needs_chromium, opened
from load_runs import Story, write_run
from playwright.async_api import Browser, expect

from gateway.cli import run as tillgate
from loadtest.run_files import Fault

pytestmark = [needs_chromium, pytest.mark.timeout(120), pytest.mark.asyncio(loop_scope="module")]
SIZES.update({"laptop": (1366, 768), "mobile": (390, 844)})
RISING = Story(
    rate=lambda at: 20 * (1 + at // 6),
    seconds=60,
    capacity=140,
    in_flight=150,
    freezes=[(30, 33)],
    faults=[Fault("kill-valkey-and-wait-for-it", 30, 33), Fault("rolling-restart", 58.5, None)],
    marks=[("p99, ms from the intended start", 900.0, 50.0)],
    scenario={
        "marks": {"p99_ms": 50.0},
        "title": "An<b> unusually long title of a scenario_that_has_a_very_long_word_in_it_and_more",
    },
)


Stage = tuple[str, Browser]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stage(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stage]:
    directory = tmp_path_factory.mktemp("runs")
    base, other = (write_run(directory / name, story) for name, story in
                   (("base", RISING), ("other", replace(RISING, capacity=160))))  # fmt: skip
    page = directory / "report.html"
    assert tillgate(["load", "report", str(other), "--baseline", str(base), "--html", str(page)]) == 0
    async with chromium() as browser:
        yield page.as_uri(), browser


@pytest.mark.parametrize(
    ("size", "theme", "axe"),
    (
        ("laptop", "light", True),
        ("mobile", "dark", True),
        ("laptop", "dark", False),  # colours and widths were judged above; here the two meet
        ("mobile", "light", False),
    ),
)
async def test_it_is_whole_and_readable(stage: Stage, size: str, theme: str, axe: bool) -> None:
    address, browser = stage
    async with opened(browser, address, size, color_scheme=theme) as page:
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        await page.reload()
        assert asked == [address], "it fetches nothing"
        assert not axe or await axe_faults(page) == []
        assert not await page.evaluate("document.documentElement.scrollWidth > innerWidth"), "wider than the screen"
        shown = "svg.chart:visible"
        assert await page.locator(shown).count() == await page.locator("figure").count()
        too_wide = await page.evaluate(
            """() => [...document.querySelectorAll('svg.chart')].filter(svg => svg.clientWidth).flatMap(svg => {
                const frame = svg.parentElement.parentElement.getBoundingClientRect();
                return [...svg.querySelectorAll('text')].filter(text => {
                    const box = text.getBoundingClientRect();
                    return box.left < frame.left || box.right > frame.right;
                }).map(text => svg.getAttribute('aria-label') + ': ' + text.textContent);
            })"""
        )
        assert too_wide == []


async def test_words_on_an_axis_do_not_lie_upon_each_other(stage: Stage) -> None:
    address, browser = stage
    for size in ("laptop", "mobile"):
        async with opened(browser, address, size) as page:
            covered = await page.evaluate(
                """() => [...document.querySelectorAll('svg.chart')].filter(svg => svg.clientWidth).flatMap(svg => {
                    const boxes = [...svg.querySelectorAll('text.tick')].map(text => [text.textContent,
                                                                                     text.getBoundingClientRect()]);
                    const meet = (a, b) => a.left < b.right && b.left < a.right
                        && a.top + 3 < b.bottom && b.top + 3 < a.bottom;
                    return boxes.flatMap(([one, a], at) => boxes.slice(at + 1).filter(([, b]) => meet(a, b))
                        .map(([two]) => `${svg.getAttribute('aria-label')}: ${one} and ${two}`));
                })"""
            )
            assert covered == [], size


async def test_values_are_read_out_under_the_pointer_and_by_arrow_keys(stage: Stage) -> None:
    address, browser = stage
    async with opened(browser, address, "laptop") as page:
        chart = page.locator("figure#waiting svg.chart.wide")
        await chart.hover(position={"x": 400, "y": 100})
        box = page.locator("figure#waiting .readout")
        await expect(box).to_contain_text("waited p99.9")
        first = await box.inner_text()
        await chart.focus()
        await page.keyboard.press("ArrowRight")
        assert await box.inner_text() != first
        await page.keyboard.press("Escape")
        await expect(box).to_have_count(0)


async def test_it_can_be_read_without_its_script(stage: Stage) -> None:
    address, browser = stage
    async with opened(browser, address, "laptop", java_script_enabled=False) as page:
        await expect(page.get_by_role("img", name="Waiting time by second")).to_be_visible()
        await expect(page.locator("h1")).to_contain_text("An<b> unusually long")


async def test_it_prints_on_white(stage: Stage) -> None:
    address, browser = stage
    async with opened(browser, address, "laptop", color_scheme="dark") as page:
        await page.emulate_media(media="print", color_scheme="dark")
        assert await page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
        await expect(page.locator("figure#waiting svg.chart.wide")).to_be_visible()
