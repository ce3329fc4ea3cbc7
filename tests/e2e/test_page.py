"""The cashier's page as it is served: to whom, with which headers, and what comes back over its line."""

import asyncio
import hashlib
import re
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest
from page_world import PAGE_BEYOND, PageTill, page_till
from scripted_gateway import SILENT
from till_bench import until

from devices.page import FILES, PAGES_MAX

CODE = "TOPSECRETCODE"
ANSWER_S = 20.0


@pytest.fixture
async def till(tmp_path: Path) -> AsyncIterator[PageTill]:
    async with page_till(tmp_path) as started:
        yield started


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    jar = aiohttp.CookieJar(unsafe=True)  # cookies of addresses too
    async with aiohttp.ClientSession(cookie_jar=jar, connector=aiohttp.TCPConnector(ssl=False)) as session:
        yield session


async def live(http: aiohttp.ClientSession, till: PageTill, **headers: str) -> aiohttp.ClientWebSocketResponse:
    return await http.ws_connect(f"{till.url}/live", headers={"Origin": till.url, **headers})


async def shown(ws: aiohttp.ClientWebSocketResponse, kind: str) -> dict[str, Any]:
    """The first whole state with a scene of this kind."""
    async with asyncio.timeout(ANSWER_S):
        while True:
            state = msgspec.json.decode(await ws.receive_str())
            if "view" in state and state["view"]["scene"]["kind"] == kind:
                return state


async def test_a_page_gets_the_whole_state_and_each_change(till: PageTill, http: aiohttp.ClientSession) -> None:
    ws = await live(http, till)
    state = await shown(ws, "ready")
    assert (state["terminal"], state["language"], state["queue"], state["recents"]) == (7, "en", 0, [])
    till.gateway.plan.append(SILENT)
    till.scan(CODE)
    assert (await shown(ws, "checking"))["queue"] == 1
    state = await shown(ws, "accepted")
    assert (state["queue"], state["view"]["tone"]) == (0, "good")
    late = await live(http, till)
    assert (await shown(late, "accepted"))["recents"] == state["recents"], "a page that comes later knows all"
    assert CODE not in msgspec.json.encode(state).decode()


async def test_what_a_page_sends_is_carried_out(till: PageTill, http: aiohttp.ClientSession) -> None:
    ws = await live(http, till)
    await ws.send_json({"do": "code", "code": f" {CODE}\n"})
    state = await shown(ws, "accepted")
    await ws.send_json({"do": "undo", "redemption_id": state["recents"][0]["redemption_id"]})
    await shown(ws, "undone")
    await ws.send_json({"do": "see", "code": "SEEN"})  # its camera is not on
    await ws.send_json({"do": "camera", "on": True})
    await ws.send_json({"do": "see", "code": CODE})
    await shown(ws, "accepted")
    assert [scan.code for scan in till.gateway.scans] == [CODE, CODE]
    await ws.close()
    await till.bench.until_shown("no camera is on")
    assert CODE not in till.bench.screen()


NONSENSE = (
    "",
    "[]",
    "{",
    '{"do":"code"}',
    '{"do":"fly"}',
    '{"do":"code","code":7}',
    '{"do":"see","code":"\\ud800"}',
    "[" * 20_000,
    '{"do":"code","code":"' + "x" * 40_000 + '"}',
)


async def test_nonsense_ends_the_line_and_nothing_else(till: PageTill, http: aiohttp.ClientSession) -> None:
    for nonsense in NONSENSE:
        ws = await live(http, till)
        await ws.send_str(nonsense)
        async with asyncio.timeout(ANSWER_S):
            while (await ws.receive()).type is aiohttp.WSMsgType.TEXT:
                pass
        assert ws.closed, nonsense[:40]
    await shown(await live(http, till), "ready")


async def test_no_other_page_may_act(till: PageTill, http: aiohttp.ClientSession) -> None:
    for origin in ("", "null", "https://evil.example", "http://127.0.0.1", "http://localhost:1"):
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await live(http, till, Origin=origin)
        assert refused.value.status == 403
        async with http.post(f"{till.url}/pair", data="1", headers={"Origin": origin}) as answer:
            assert answer.status == 403


async def test_a_rebound_name_gets_nothing(till: PageTill, http: aiohttp.ClientSession) -> None:
    rebound = {"Host": "evil.example", "Origin": "http://evil.example"}
    for path in ("/", "/live", "/me", "/page.js"):
        async with http.get(till.url + path, headers=rebound) as answer:
            assert answer.status == 421
            assert "names" in await answer.text()


async def test_every_file_comes_from_here_with_a_strict_policy(till: PageTill, http: aiohttp.ClientSession) -> None:
    for name in (
        "",
        "page.js",
        "page.css",
        "words.js",
        "sound.js",
        "camera.js",
        "decoder.js",
        "zxing_reader.wasm",
        "no",
    ):
        async with http.get(f"{till.url}/{name}") as answer:
            assert answer.status == (404 if name == "no" else 200)
            policy = answer.headers["Content-Security-Policy"]
            assert "default-src 'none'" in policy
            assert "unsafe-inline" not in policy
            assert "'unsafe-eval'" not in policy
            assert answer.headers["X-Content-Type-Options"] == "nosniff"
            assert answer.headers["Referrer-Policy"] == "no-referrer"
    for name in ("../page.py", "..%2fpage.py", "VENDORED.md", "/etc/passwd"):
        async with http.get(f"{till.url}/{name}") as answer:
            assert answer.status == 404
    own = [path for path in FILES.iterdir() if path.suffix in (".html", ".css", ".js") and "zxing" not in path.name]
    for path in own:
        text = path.read_text("utf-8")
        assert not re.search(r"https?://(?!\S*w3\.org)\w", text.replace('"https://"', "")), f"{path.name} names a site"
        assert "innerHTML" not in text.replace(".outerHTML", "")


async def test_pages_are_bounded(till: PageTill, http: aiohttp.ClientSession) -> None:
    lines = [await live(http, till) for _ in range(PAGES_MAX)]
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        await live(http, till)
    assert refused.value.status == 503
    await lines[0].close()
    await shown(await live(http, till), "ready")


async def test_a_taken_port_stops_the_page_and_not_the_till(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        async with page_till(tmp_path) as till:
            till.bench.stop()
            till.bench.configure(till.gateway.url, more=f'[page]\nlisten = "{listen}"')
            till.bench.start()
            await till.bench.until_shown("NO PAGE: the cashier's page cannot be served")
            till.scan(CODE)
            await till.bench.until_shown("ACCEPTED")
            taken.close()
            await till.bench.until_shown("page is ready", times=2)


async def test_beyond_this_machine_a_device_is_paired_by_digits_once(
    tmp_path: Path, http: aiohttp.ClientSession
) -> None:
    async with page_till(tmp_path, PAGE_BEYOND) as till:
        assert till.url.startswith("https://")
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await live(http, till)
        assert refused.value.status == 401
        headers = {"Origin": till.url}
        async with http.post(f"{till.url}/pair", data=till.pairing, headers=headers) as answer:
            assert answer.status == 200
            cookie = answer.headers["Set-Cookie"]
        assert all(word in cookie for word in ("HttpOnly", "Secure", "SameSite=Strict"))
        async with http.post(f"{till.url}/pair", data=till.pairing, headers=headers) as answer:
            assert answer.status == 403
        await shown(await live(http, till), "ready")
        till.bench.type("pair")
        await until(lambda: till.bench.screen().count("open the page on it and type") == 2, till.bench.screen)
        secrets = [path for path in till.bench.state.iterdir() if path.suffix == ".key"]
        assert len(secrets) >= 3
        assert not [path for path in secrets if path.stat().st_mode & 0o077]


def test_files_of_others_are_as_recorded_and_have_their_licence() -> None:
    recorded = re.findall(r"\| `(\S+)` \|.*\| ([0-9a-f]{64}) \|(.*)\|", (FILES / "VENDORED.md").read_text("utf-8"))
    assert {name for name, _, _ in recorded} == {
        path.name for path in FILES.glob("zxing_reader.*") if "LIC" not in path.name
    }
    for name, sha256, licences in recorded:
        assert hashlib.sha256((FILES / name).read_bytes()).hexdigest() == sha256, name
        for licence in re.findall(r"`(\S+)`", licences):
            assert (FILES / licence).stat().st_size > 500
