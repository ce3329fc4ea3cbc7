"""The console in a real browser: every screen, two widths, two themes, two languages; hostile names; its deeds."""

import re
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from browser_world import axe_faults, chromium, needs_chromium, opened
from console_world import HOSTILE, ConsoleWorld, console_world
from playwright.async_api import Browser, Page, Request, expect

pytestmark = [needs_chromium, pytest.mark.timeout(180), pytest.mark.asyncio(loop_scope="module")]
SCREENS = {  # place: what is there once it is drawn
    "now": ".chart canvas",
    "stores": "table >> text=Lotus, East Gate",
    "stores/mean-1": "table >> text=18",
    "campaigns": "text=autumn-noodles",
    "campaigns/autumn-noodles": ".chart canvas",
    "vouchers/1-3": "ol.life li",
    "vouchers/4-1": "section.card >> text=4-1",
    "events": "select",
    "events/0/5": ".events .row",
    "system": "text=server.host",
    "load": ".chart canvas",
}
UNUSED = 8000


Stage = tuple[ConsoleWorld, Browser]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stage(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stage]:
    """One gateway and one browser for all of them: each test has a page, and vouchers, of its own."""
    async with console_world(tmp_path_factory.mktemp("console") / "d") as w, chromium() as browser:
        yield w, browser


async def sign_in(page: Page, token: str) -> None:
    await page.fill("input[name=token]", token)
    await page.click("button[type=submit]")
    await page.wait_for_selector("nav a")


async def go(page: Page, w: ConsoleWorld, place: str) -> None:
    await page.goto(f"{w.url}#/{place}")
    await page.wait_for_selector(SCREENS[place])


@pytest.mark.parametrize(
    ("size", "theme", "locale", "axe"),
    (
        ("desk", "light", "en-GB", True),
        ("phone", "dark", "zh-CN", True),
        ("desk", "dark", "zh-CN", False),  # colours and widths were judged above; here the two meet
        ("phone", "light", "en-GB", False),
    ),
)
async def test_every_screen_is_whole_and_usable(stage: Stage, size: str, theme: str, locale: str, axe: bool) -> None:
    w, browser = stage
    async with opened(browser, w.url, size, color_scheme=theme, locale=locale) as page:
        wrong = [f"signing in: {fault}" for fault in await axe_faults(page)] if axe else []
        await sign_in(page, w.viewers["admin"].token)
        for place in SCREENS:
            await go(page, w, place)
            if axe:
                wrong += [f"{place}: {fault}" for fault in await axe_faults(page)]
            if await page.evaluate("document.documentElement.scrollWidth > innerWidth"):
                wrong.append(f"{place}: is wider than the screen")
            if await page.locator("img[src=x]").count() or "pwned" in await page.title():
                wrong.append(f"{place}: a name became markup")
        assert not wrong, "\n".join(wrong)


async def test_hostile_names_and_reasons_are_only_ever_text(stage: Stage) -> None:
    w, browser = stage
    async with opened(browser, w.url, locale="en-GB") as page:
        await page.fill("input[name=token]", HOSTILE)
        await page.click("button[type=submit]")
        await expect(page.get_by_role("alert")).to_be_visible()
        await sign_in(page, w.viewers["admin"].token)
        for place, text in (
            ("stores", HOSTILE), ("stores/mean-1", HOSTILE[:40]), ("campaigns", HOSTILE), ("vouchers/4-1", HOSTILE[:60])
        ):  # fmt: skip
            await go(page, w, place)
            await expect(page.get_by_text(text, exact=place != "stores/mean-1").first).to_be_visible()
        await go(page, w, "vouchers/4-1")
        await page.get_by_role("button", name=re.compile("^Void")).click()
        await page.fill("textarea[name=reason]", HOSTILE)
        await page.get_by_role("dialog").get_by_role("button", name="Void", exact=True).click()
        await expect(page.get_by_text(f"“{HOSTILE}”")).to_be_visible()
        await page.fill("input[name=voucher]", HOSTILE)
        await page.click("form.search button")
        await expect(page.get_by_role("alert")).to_be_visible()
        await go(page, w, "events")
        for name in ("Store", "Campaign"):
            await page.get_by_label(name, exact=True).fill(HOSTILE)
        await expect(page.get_by_text("Live")).to_be_visible()
        for place in (f"events/{HOSTILE}/1", f"stores/{HOSTILE}", f"campaigns/{HOSTILE}", f"{HOSTILE}"):
            await page.evaluate(
                "place => { location.hash = '#/' + place.split('/').map(encodeURIComponent).join('/') }", place
            )
            await page.wait_for_timeout(50)
        assert "pwned" not in await page.title()
        assert await page.locator("img[src=x]").count() == 0


async def test_a_voucher_is_found_by_its_code_and_reversed_by_keyboard_alone(stage: Stage) -> None:
    w, browser = stage
    async with opened(browser, w.url, locale="en-GB") as page:
        addresses: list[str] = []

        def note(request: Request) -> None:
            addresses.append(request.url)

        page.on("request", note)
        (code,) = w.codes("tea-box", 2000, 1)
        async with w.site.till(4) as till:
            await w.redeem(till, [code])
        await sign_in(page, w.viewers["admin"].token)
        await page.goto(f"{w.url}#/vouchers")
        await page.fill("input[name=voucher]", code)
        await page.keyboard.press("Enter")
        await expect(page.locator("ol.life li")).to_have_count(1)
        assert await page.input_value("input[name=voucher]") == "", "a code is not left standing"
        assert page.url.endswith("#/vouchers/2-2000")
        await page.get_by_role("button", name=re.compile("^Reverse")).focus()
        await page.keyboard.press("Enter")
        await page.keyboard.type("rang it up twice")
        await page.keyboard.press("Tab")
        await page.keyboard.press("Tab")
        await page.keyboard.press("Enter")
        await expect(page.locator("ol.life li")).to_have_count(2)
        await expect(page.get_by_text("“rang it up twice”")).to_be_visible()
        await expect(page.get_by_text("unused", exact=True)).to_be_visible()
        assert not [address for address in addresses if code in address or "tg_" in address]


async def test_events_come_live_stop_when_paused_and_lead_into_the_log(stage: Stage) -> None:
    w, browser = stage
    async with opened(browser, w.url, locale="en-GB") as page:
        await sign_in(page, w.viewers["merchant"].token)
        assert await page.locator("nav a").all_inner_texts() == ["Now", "Stores", "Campaigns", "Event stream"]
        await page.goto(f"{w.url}#/events")
        await expect(page.get_by_text("Live")).to_be_visible()
        codes = w.codes("autumn-noodles", UNUSED, 4)
        async with w.site.till(4) as till, w.site.till(8) as foreign:
            await w.redeem(till, codes[:1])
            await expect(page.locator(".events .row")).to_have_count(1, timeout=2000)
            await w.redeem(foreign, codes[1:2])
            await page.get_by_role("button", name="Pause").click()
            await w.redeem(till, codes[2:])
            await expect(page.get_by_text("2 events came meanwhile")).to_be_visible()
            await expect(page.locator(".events .row")).to_have_count(1)
            await page.get_by_role("button", name="Resume").click()
            await expect(page.locator(".events .row")).to_have_count(3)
        await page.locator(".events .row a.mono").first.click()
        await expect(page.get_by_text("Previous tip")).to_be_visible()
        await expect(page.locator(".events .row").first).to_be_visible()  # its batch, of one scan or both


async def test_language_theme_and_token_stay_until_they_are_changed(stage: Stage) -> None:
    w, browser = stage
    async with opened(browser, w.url, locale="en-GB") as page:
        await sign_in(page, w.viewers["auditor"].token)
        await page.get_by_role("button", name="中文").click()
        await page.get_by_role("button", name=re.compile("主题")).click()
        await page.get_by_role("button", name=re.compile("主题")).click()
        await page.reload()
        await expect(page.locator("h1")).to_have_text("现况")
        assert await page.evaluate("document.documentElement.dataset.theme") == "dark"
        assert await page.evaluate("document.documentElement.lang") == "zh-Hans"
        assert await page.evaluate("Object.values(localStorage).some(value => value.includes('tg_'))") is False
        await page.keyboard.press("Tab")
        await expect(page.locator("a.skip")).to_be_focused()
        await page.keyboard.press("Enter")
        await expect(page.locator("#main")).to_be_focused()
        await page.get_by_role("button", name="退出").click()
        await expect(page.locator("input[name=token]")).to_be_visible()
        await page.reload()
        await expect(page.locator("input[name=token]")).to_be_visible()
