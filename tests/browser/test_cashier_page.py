"""The cashier's page in Chromium: each state as it looks, two-stage feedback, undo, both languages, three sizes."""

import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from browser_world import axe_faults, chromium, needs_chromium, opened
from page_world import PageTill, page_till
from playwright.async_api import Browser, Page
from screenshots import looks_like
from scripted_gateway import AT_MS, SILENT
from till_bench import until

from devices.offline_desk import FILE_NAME
from gateway.codes import CodeKeys, KeyRing
from gateway.messages import Grant, OfflineOffer, Verdict, Winner
from gateway.offline_codes import OfflineKeys

pytestmark = [needs_chromium, pytest.mark.asyncio(loop_scope="module")]
STATES = ("ready", "checking", "accepted", "refused", "kept", "again", "gone")
FITS = "() => document.documentElement.scrollWidth <= innerWidth && scene.scrollHeight <= scene.clientHeight"
INJECTION = "<img src=x onerror=\"document.title='hit'\"><script>document.title='hit'</script>"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    async with chromium() as started:
        yield started


@pytest_asyncio.fixture(loop_scope="module")
async def till(tmp_path: Path) -> AsyncIterator[PageTill]:
    async with page_till(tmp_path) as started:
        yield started


async def until_kind(page: Page, kind: str, head: str = "") -> None:
    await page.wait_for_selector(f"html[data-kind={kind}]")
    if head:
        await page.wait_for_function("head => document.querySelector('#head').textContent === head", arg=head)


async def tones(page: Page) -> None:
    """From now on the page keeps the tones it sounds in `window.tones`."""
    await page.evaluate(
        """() => {
            window.tones = [];
            new MutationObserver(() => tones.push(document.documentElement.dataset.tone))
              .observe(document.documentElement, { attributeFilter: ["data-tone"] });
        }"""
    )


async def in_each_state(till: PageTill) -> AsyncIterator[str]:
    """Bring the till into one state after the other."""
    till.gateway.winners["USED"] = bytes(16)
    till.gateway.offers["GOOD"] = "Mooncake gift box, 88.00 CNY"
    yield "ready"
    till.gateway.plan.append(SILENT)
    till.scan("GOOD")
    yield "checking"  # until the till asks again
    yield "accepted"
    till.scan("USED")
    yield "refused"
    await till.gateway.stop()
    await till.bench.until_shown("no connection to the gateway")
    till.scan("LATER")
    yield "kept"
    till.scan("]Q1")
    yield "again"
    assert till.bench.stop() == 0
    yield "gone"


@pytest.mark.timeout(180)  # 28 pictures, and a machine may be busy
async def test_each_state_looks_like_itself_on_every_screen(till: PageTill, browser: Browser) -> None:
    still = {"reduced_motion": "reduce"}
    async with (
        opened(browser, till.url, "phone", **still) as phone,
        opened(browser, till.url, "tablet", **still) as tablet,
        opened(browser, till.url, "desk", **still) as desk,
        opened(browser, till.url, "desk", **still) as chinese,
    ):
        await chinese.click("#language-button")
        pages = {"phone": phone, "tablet": tablet, "desk": desk, "desk-zh": chinese}
        async for state in in_each_state(till):
            for size, page in pages.items():
                await until_kind(page, state)
                assert await page.evaluate(FITS), f"{state} is cut off on {size}"
                px = await page.evaluate("() => parseFloat(getComputedStyle(head).fontSize)")
                assert px >= (40 if size == "phone" else 48), f"{state} is small on {size}"
                looks_like(await page.screenshot(), size, state, STATES)
            assert await axe_faults(desk) == []
        assert await axe_faults(phone) == []
        assert await axe_faults(chinese) == []


@pytest.mark.timeout(120)
async def test_accepted_offline_looks_like_nothing_else(till: PageTill, browser: Browser) -> None:
    keys = CodeKeys(keys={1: b"k" * 32}, active=1, pepper=b"p" * 32)
    signer, ring = OfflineKeys(keys), KeyRing(keys)
    always = [(0, 2 * AT_MS)]
    offer = OfflineOffer(7, "Mooncake gift box, 88.00 CNY", 8800, "CNY", always, [(1, 100)], 50, 10_000_000, 600)
    till.gateway.grant = Grant(AT_MS, 2 * AT_MS, signer.public_keys, [offer])
    await till.gateway.stop()
    await till.gateway.start()
    await till.gateway.until(lambda: till.gateway.greetings > 1)
    await until((till.bench.state / FILE_NAME).exists, till.bench.screen)  # the grant is on the till's disk
    await till.gateway.stop()
    states = (*STATES, "offline")
    async with (
        opened(browser, till.url, "phone", reduced_motion="reduce") as phone,
        opened(browser, till.url, "desk", reduced_motion="reduce") as desk,
        opened(browser, till.url, "desk", reduced_motion="reduce") as chinese,
    ):
        await chinese.click("#language-button")
        for code in ring.mint(1, 7, 1, 40):  # until the line has been away long enough
            till.scan(signer.signed(code))
            await desk.wait_for_timeout(250)
            if "ACCEPTED OFFLINE" in till.bench.screen():
                break
        for size, page in (("phone", phone), ("desk", desk), ("desk-zh", chinese)):
            await until_kind(page, "offline")
            assert await page.evaluate(FITS), f"cut off on {size}"
            looks_like(await page.screenshot(), size, "offline", states)
            assert await axe_faults(page) == []
        assert await desk.inner_text("#head") == "ACCEPTED OFFLINE"
        assert "88.00 CNY" in await desk.inner_text("#worth")


async def test_heard_ticks_before_the_verdict_and_the_good_tone_waits_for_it(till: PageTill, browser: Browser) -> None:
    async with opened(browser, till.url) as page:
        await until_kind(page, "ready")
        await tones(page)
        till.gateway.plan.append(SILENT)
        till.scan("CODE")
        await until_kind(page, "checking")
        assert await page.evaluate("tones") == ["tick"]
        await until_kind(page, "accepted")
        assert await page.evaluate("tones") == ["tick", "good"]
        till.gateway.verdict_of["LATE"] = Verdict.EXPIRED
        till.scan("LATE")
        await until_kind(page, "refused", "EXPIRED")
        assert (await page.evaluate("tones"))[-1] == "bad"


async def test_sound_asks_for_a_touch_and_can_be_muted(till: PageTill, browser: Browser) -> None:
    async with opened(browser, till.url) as page:
        button = page.locator("#sound-button")
        await until_kind(page, "ready")
        assert await button.inner_text() == "Touch for sound"
        await page.click("#scene")
        await page.wait_for_function("() => document.querySelector('#sound-button').textContent === 'Sound on'")
        await button.click()
        assert await button.inner_text() == "Sound off"
        assert await button.get_attribute("aria-pressed") == "false"
        await page.reload()
        await until_kind(page, "ready")
        assert await button.inner_text() == "Sound off", "it is remembered"


async def test_undo_asks_first_and_shows_what_came_of_it(till: PageTill, browser: Browser) -> None:
    async with opened(browser, till.url) as page:
        till.scan("CODE")
        await until_kind(page, "accepted")
        undo = page.get_by_role("button", name=re.compile("^Undo #"))
        await undo.focus()
        await page.keyboard.press("Enter")
        assert await page.locator("li.asking").inner_text() != ""
        assert not till.gateway.reversals
        await page.keyboard.press("Escape")
        await undo.click()
        await page.get_by_role("button", name="Yes, undo it").click()
        await until_kind(page, "undone", "UNDONE")
        assert len(till.gateway.reversals) == 1
        await page.wait_for_selector("#recents li[data-kind=undone]")
        assert await undo.count() == 0


async def test_a_scan_goes_before_a_question(till: PageTill, browser: Browser) -> None:
    async with opened(browser, till.url) as page:
        till.scan("CODE")
        await until_kind(page, "accepted")
        await page.get_by_role("button", name=re.compile("^Undo #")).click()
        till.gateway.winners["USED"] = bytes(16)
        till.scan("USED")
        await until_kind(page, "refused", "ALREADY USED")
        assert await page.locator("li.asking").count() == 0


async def test_a_code_is_typed_and_left_nowhere(till: PageTill, browser: Browser) -> None:
    async with opened(browser, till.url) as page:
        said: list[str] = []
        page.on("console", lambda message: said.append(message.text))
        await until_kind(page, "ready")
        await page.keyboard.type("topsecretcode")  # typing is typing a code, wherever the focus was
        await page.keyboard.press("Enter")
        await until_kind(page, "accepted")
        assert [(scan.code, scan.entry) for scan in till.gateway.scans] == [("topsecretcode", 2)]
        left = await page.evaluate(
            """async () => JSON.stringify([location.href, history.state, document.documentElement.outerHTML, code.value,
               {...localStorage}, {...sessionStorage}, document.cookie, performance.getEntries(),
               await indexedDB.databases(), await caches.keys()])"""
        )
        assert "topsecretcode" not in left
        assert not any("topsecretcode" in line for line in said)
    assert "topsecretcode" not in till.bench.screen()


async def test_no_name_or_note_becomes_markup(till: PageTill, browser: Browser) -> None:
    till.gateway.winners["USED"] = bytes(16)
    till.gateway.place_of_winner = Winner(INJECTION, INJECTION, 0)
    till.gateway.offers["GOOD"] = INJECTION
    async with opened(browser, till.url) as page:
        till.scan("GOOD")
        await until_kind(page, "accepted")
        assert INJECTION in await page.locator("#worth").inner_text()
        till.scan("USED")
        await until_kind(page, "refused")
        assert INJECTION in await page.locator("#used").inner_text()
        assert await page.locator("#live img, #live script").count() == 0
        assert await page.title() == "ALREADY USED · Tillgate"


async def test_banners_name_what_is_wrong(till: PageTill, browser: Browser) -> None:
    async with opened(browser, till.url) as page:
        await until_kind(page, "ready")
        till.bench.scanner.unplug()
        await page.get_by_text("Scanner lane1 is not connected").wait_for()
        till.bench.scanner.plug()
        await page.get_by_text("Scanner lane1 is not connected").wait_for(state="detached")
        await till.gateway.stop()
        await page.get_by_text("No connection to the gateway").wait_for()
        till.scan("A")
        till.scan("B")
        await page.get_by_text("2 scans wait for an answer").wait_for()
        assert await page.locator("#line").inner_text() == "Offline · 2 waiting"
        await till.gateway.start()
        await page.get_by_text("No connection to the gateway").wait_for(state="detached")
        await until_kind(page, "accepted")
        assert "Answer to an earlier scan" in await page.locator("#late").inner_text()


async def test_a_page_that_lost_its_till_says_so_and_comes_back_to_the_same(till: PageTill, browser: Browser) -> None:
    till.bench.configure(till.gateway.url, more=f'[page]\nlisten = "{till.url.removeprefix("http://")}"')
    async with opened(browser, till.url) as page:
        await until_kind(page, "ready")
        await tones(page)
        till.scan("CODE")
        await until_kind(page, "accepted")
        till.bench.kill()
        await until_kind(page, "gone", "NO TILL")
        await till.start()
        await until_kind(page, "ready")
        await page.wait_for_selector("#recents li[data-kind=accepted]")
        assert await page.evaluate("tones") == ["tick", "good"], "what is old is not sounded again"


async def test_a_code_typed_while_the_till_is_gone_waits_in_its_field(till: PageTill, browser: Browser) -> None:
    till.bench.configure(till.gateway.url, more=f'[page]\nlisten = "{till.url.removeprefix("http://")}"')
    async with opened(browser, till.url) as page:
        await until_kind(page, "ready")
        assert till.bench.stop() == 0
        await until_kind(page, "gone")
        await page.fill("#code", "TYPED-CODE")
        await page.press("#code", "Enter")
        assert await page.input_value("#code") == "TYPED-CODE"
        await till.start()
        await until_kind(page, "ready")
        await page.press("#code", "Enter")
        await until_kind(page, "accepted")
        assert await page.input_value("#code") == ""


async def test_a_verdict_steps_back_when_it_is_old(till: PageTill, browser: Browser) -> None:
    async with opened(browser, "about:blank") as page:
        await page.clock.install()
        await page.goto(till.url)
        till.scan("CODE")
        await until_kind(page, "accepted")
        assert await page.locator("html[data-old]").count() == 0
        await page.clock.fast_forward(15_000)
        await page.wait_for_selector("html[data-kind=accepted][data-old]")
        assert await page.locator("#head").inner_text() == "ACCEPTED"


async def test_chinese_on_the_stores_wish_and_on_the_cashiers(till: PageTill, browser: Browser) -> None:
    till.bench.stop()
    till.bench.configure(till.gateway.url, language="zh", more='[page]\nlisten = "127.0.0.1:0"')
    till.bench.start()
    await till.bench.until_shown("收银页面已就绪")
    port = re.findall(r"收银页面已就绪 \(http://127.0.0.1:(\d+)\)", till.bench.screen())[-1]
    async with opened(browser, f"http://127.0.0.1:{port}") as page:
        await until_kind(page, "ready", "请扫码")
        assert await page.locator("html").get_attribute("lang") == "zh"
        await page.click("#language-button")
        await until_kind(page, "ready", "READY")
        assert await page.locator("html").get_attribute("lang") == "en"
