"""A phone or tablet as scanner: its camera in Chromium reads a clip made here, and what it reads is redeemed."""

from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest
import zxingcpp
from browser_world import axe_faults, chromium, needs_chromium, opened
from page_world import PAGE_BEYOND, PageTill, page_till
from playwright.async_api import Browser, Page

from gateway.messages import Verdict

pytestmark = needs_chromium
CODE = "T1K0VOUCHER0123456789ABCDEFGHIJKLM"
WIDTH, HEIGHT, SECONDS = 640, 480, 1
WHOLE = """() => document.documentElement.scrollWidth <= innerWidth && video.getBoundingClientRect().top >= 0
    && document.querySelector('#rest').getBoundingClientRect().bottom <= innerHeight"""
LOOKS = 12  # more than a second's


def clip(path: Path, code: str) -> str:
    """A y4m clip (YUV4MPEG2, 4:2:0) of a QR code on a grey phone, which Chromium plays for ever as its camera."""
    symbol = zxingcpp.create_barcode(code, zxingcpp.BarcodeFormat.QRCode, ec_level="M").to_image(scale=7)
    pixels = np.asarray(symbol, dtype=np.uint8)
    luma = np.full((HEIGHT, WIDTH), 90, np.uint8)
    top, left = (HEIGHT - pixels.shape[0]) // 2, (WIDTH - pixels.shape[1]) // 2
    luma[top : top + pixels.shape[0], left : left + pixels.shape[1]] = 16 + pixels * 0.85
    chroma = np.full((2, HEIGHT // 2, WIDTH // 2), 128, np.uint8)
    frame = b"FRAME\n" + luma.tobytes() + chroma.tobytes()
    path.write_bytes(f"YUV4MPEG2 W{WIDTH} H{HEIGHT} F10:1 Ip A1:1 C420jpeg\n".encode() + frame * (10 * SECONDS))
    return str(path)


@pytest.fixture
async def browser(tmp_path: Path) -> AsyncIterator[Browser]:
    """Chromium with a camera that sees a voucher."""
    camera = "--use-fake-device-for-media-stream"
    seen = f"--use-file-for-fake-video-capture={clip(tmp_path / 'clip.y4m', CODE)}"
    async with chromium(camera, seen) as started:
        yield started


@pytest.fixture
async def till(tmp_path: Path) -> AsyncIterator[PageTill]:
    async with page_till(tmp_path) as started:
        yield started


async def until_kind(page: Page, kind: str) -> None:
    await page.wait_for_selector(f"html[data-kind={kind}]")


async def looked(page: Page, times: int) -> None:
    """Wait until the camera has seen the voucher so often."""
    await page.wait_for_function("times => window.looks >= times", arg=times)


async def count_looks(page: Page) -> None:
    await page.evaluate(
        """() => { window.looks = 0; const send = WebSocket.prototype.send;
            WebSocket.prototype.send = function (text) { looks += text.includes('"see"'); send.call(this, text); }; }"""
    )


async def test_a_voucher_before_the_camera_is_one_redemption(till: PageTill, browser: Browser) -> None:
    async with opened(browser, till.url, "phone", permissions=["camera"]) as page:
        await until_kind(page, "ready")
        await count_looks(page)
        await page.get_by_role("button", name="Camera").click()
        await until_kind(page, "accepted")
        await looked(page, LOOKS)
        assert [scan.code for scan in till.gateway.scans] == [CODE]
        assert await page.get_by_text("Hold the voucher into the picture.").is_visible()
        assert await axe_faults(page) == []
        await page.get_by_role("button", name="Stop camera").click()
        await till.bench.until_shown("[page] scanner not connected (no camera is on)")
    assert CODE not in till.bench.screen()


async def test_a_refused_voucher_in_view_is_not_asked_again_and_again(till: PageTill, browser: Browser) -> None:
    till.gateway.verdict_of[CODE] = Verdict.EXPIRED
    async with opened(browser, till.url, "tablet", permissions=["camera"]) as page:
        await count_looks(page)
        await page.get_by_role("button", name="Camera").click()
        await until_kind(page, "refused")
        await looked(page, LOOKS)
        assert len(till.gateway.scans) == 1


async def test_a_camera_that_stops_by_itself_is_told(till: PageTill, browser: Browser) -> None:
    async with opened(browser, till.url, "phone", permissions=["camera"]) as page:
        await until_kind(page, "ready")
        await page.get_by_role("button", name="Camera").click()
        await till.bench.until_shown("[page] scanner ready")
        await page.evaluate("video.srcObject.getVideoTracks()[0].dispatchEvent(new Event('ended'))")
        await page.wait_for_function("document.querySelector('#camera-says').textContent.includes('has stopped')")
        assert await page.inner_text("#camera-button") == "Camera"
        await till.bench.until_shown("[page] scanner not connected")


async def test_a_camera_that_may_not_be_used_says_why(till: PageTill, browser: Browser) -> None:
    async with opened(browser, till.url, "phone", permissions=[]) as page:
        await until_kind(page, "ready")
        await page.get_by_role("button", name="Camera").click()
        await page.get_by_text("The camera is not allowed for this page.").wait_for()
        await page.evaluate("() => Object.defineProperty(window, 'isSecureContext', { value: false })")
        await page.get_by_role("button", name="Camera").click()
        await page.get_by_text("only to pages with https://").wait_for()
        await page.click("#language-button")
        await page.get_by_role("button", name="摄像头").click()
        await page.get_by_text("浏览器只允许 https://").wait_for()


async def test_a_phone_is_paired_once_and_scans_over_tls(tmp_path: Path, browser: Browser) -> None:
    async with page_till(tmp_path, PAGE_BEYOND) as till:
        asked = {"permissions": ["camera"], "ignore_https_errors": True}
        async with opened(browser, till.url, "phone", **asked) as page:
            label = page.get_by_text("This device is not paired with the till yet.")
            await label.wait_for()
            assert await axe_faults(page) == []
            await page.fill("#digits", "0000 0000")
            await page.get_by_role("button", name="Pair", exact=True).click()
            await page.get_by_text("Those digits are not right").wait_for()
            await page.fill("#digits", till.pairing)
            await page.get_by_role("button", name="Pair", exact=True).click()
            await until_kind(page, "ready")
            await page.reload()
            await until_kind(page, "ready")
            await page.get_by_role("button", name="Pair a phone").click()
            await page.get_by_text("To pair a phone, open this page").wait_for()
            await page.get_by_role("button", name="Camera").click()
            await until_kind(page, "accepted")
            assert await page.evaluate(WHOLE), "picture and verdict are on the screen together"
