"""Enrolment against a real HTTP server that speaks the agreed bodies."""

import os
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from devices.config import ConfigFault, TerminalConfig
from devices.enrol import DEVICE_KEY_NAME, EnrolRefused, GatewayUnreachable, enrol

ANSWER = {"terminal": 12, "store": "store-3", "language": "zh"}


class Enroller:
    def __init__(self) -> None:
        self.bodies: list[dict[str, str]] = []
        self.code = 200
        self.content: object = ANSWER
        self.octets = b""  # instead of `content`
        self.url = ""

    async def answer(self, request: web.Request) -> web.Response:
        self.bodies.append(await request.json())
        if self.octets:
            return web.Response(body=self.octets, status=self.code, content_type="application/json")
        return web.json_response(self.content, status=self.code)


@pytest.fixture
async def enroller() -> AsyncIterator[Enroller]:
    one = Enroller()
    app = web.Application()
    app.router.add_post("/v1/terminals/enrol", one.answer)
    async with TestServer(app) as server:
        one.url = str(server.make_url("/"))
        yield one


async def enrolled(url: str, directory: Path) -> TerminalConfig:
    return await enrol(
        url, "one-time", config_path=directory / "till" / "terminal.toml", state_directory=directory / "state"
    )


async def test_a_token_becomes_a_configuration(tmp_path: Path, enroller: Enroller) -> None:
    config = await enrolled(enroller.url, tmp_path)
    assert (config.terminal, config.gateways, config.scanners) == (12, [enroller.url], [])
    assert config.state_directory == os.fspath(tmp_path / "state")
    [body] = enroller.bodies
    assert body["token"] == "one-time"
    assert set(body) == {"token", "public_key"}
    assert len(bytes.fromhex(body["public_key"])) == 32
    assert stat.S_IMODE(os.stat(tmp_path / "state" / DEVICE_KEY_NAME).st_mode) == 0o600
    assert stat.S_IMODE(os.stat(tmp_path / "state").st_mode) == 0o700


async def test_a_configuration_is_never_replaced_and_the_token_not_spent(tmp_path: Path, enroller: Enroller) -> None:
    await enrolled(enroller.url, tmp_path)
    with pytest.raises(ConfigFault, match="exists"):
        await enrolled(enroller.url, tmp_path)
    assert len(enroller.bodies) == 1


async def test_a_refusal_is_told_in_the_gateways_words_and_the_same_key_is_used_again(
    tmp_path: Path, enroller: Enroller
) -> None:
    enroller.code, enroller.content = 403, {"title": "Forbidden", "detail": "this token was used before"}
    with pytest.raises(EnrolRefused, match="403: this token was used before"):
        await enrolled(enroller.url, tmp_path)
    enroller.code, enroller.content = 200, ANSWER
    await enrolled(enroller.url, tmp_path)
    assert enroller.bodies[0] == enroller.bodies[1]


@pytest.mark.parametrize("content", ([], {"terminal": "x", "store": 1}, {}, "text"))
async def test_an_answer_outside_the_contract_is_named(tmp_path: Path, enroller: Enroller, content: object) -> None:
    enroller.content = content
    with pytest.raises(EnrolRefused, match="does not understand"):
        await enrolled(enroller.url, tmp_path)


@pytest.mark.parametrize("octets", (b'{"store": "\xff"}', b'{"detail": ' + b"[" * 10_000))
@pytest.mark.parametrize("code", (200, 403))
async def test_an_answer_that_is_no_json_is_an_answer_outside_the_contract(
    tmp_path: Path, enroller: Enroller, octets: bytes, code: int
) -> None:
    enroller.octets, enroller.code = octets, code
    with pytest.raises(EnrolRefused, match="does not understand" if code == 200 else "403: no reason given"):
        await enrolled(enroller.url, tmp_path)


async def test_nobody_there(tmp_path: Path) -> None:
    with pytest.raises(GatewayUnreachable, match="cannot be reached: connection refused"):
        await enrolled("http://127.0.0.1:9", tmp_path)


async def test_an_address_that_is_none_is_named_before_a_key_is_made(tmp_path: Path) -> None:
    with pytest.raises(ConfigFault, match="gateway is not an address"):
        await enrolled("gateway", tmp_path)
    assert not os.listdir(tmp_path)
