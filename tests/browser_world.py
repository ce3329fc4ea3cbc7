"""A real Chromium for tests of pages: one browser for the run, a fresh context for each page."""

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from axe_playwright_python.async_playwright import Axe
from playwright.async_api import Browser, Page, async_playwright

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on PATH: pages are not tested here")
SIZES = {"phone": (360, 640), "tablet": (820, 1180), "desk": (1280, 800)}
SERIOUS = ("serious", "critical")


@asynccontextmanager
async def chromium(*flags: str) -> AsyncIterator[Browser]:
    """Without a sandbox, because test machines are often containers; pages are our own."""
    async with async_playwright() as started:
        browser = await started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", *flags])
        try:
            yield browser
        finally:
            await browser.close()


@asynccontextmanager
async def opened(browser: Browser, url: str, size: str = "desk", **context: Any) -> AsyncIterator[Page]:
    """A page of its own context. At the end there must have been no script error and no breach of the page's policy."""
    width, height = SIZES[size]
    made = await browser.new_context(viewport={"width": width, "height": height}, **context)
    try:
        page = await made.new_page()
        faults: list[str] = []
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("console", lambda said: faults.append(said.text) if "Content Security Policy" in said.text else None)
        await page.goto(url)
        yield page
        assert not faults, faults
    finally:
        await made.close()


async def axe_faults(page: Page) -> list[str]:
    """Accessibility faults that keep people from using the page, as `rule: elements`."""
    found = (await Axe().run(page)).response
    return [
        f"{fault['id']}: {', '.join(str(node['target']) for node in fault['nodes'])}"
        for fault in found["violations"]
        if fault["impact"] in SERIOUS
    ]
