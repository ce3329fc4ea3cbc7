"""Enrolment: a new till trades a single-use token for its number, with a device key that never leaves it."""

import json
import os
import ssl
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
import msgspec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from devices.config import ConfigFault, TerminalConfig, load_config
from devices.keys import device_key, read_or_create_secret, sync_directory
from devices.uplink import UNDECODABLE

DEVICE_KEY_NAME = "device.key"
ANSWER_S = 10.0
ANSWER_BYTES_MAX = 16_384


class EnrolRefused(Exception):
    """The gateway did not take this till; the text says what it answered."""


class GatewayUnreachable(Exception):
    """Nobody answered, or not in time; the token may be spent, and the same call again is safe."""


class Enrolled(msgspec.Struct, frozen=True):
    """What the gateway answers with HTTP 200."""

    terminal: int
    store: str
    language: str = ""


async def enrol(url: str, token: str, *, config_path: Path, state_directory: Path, ca_file: str = "") -> TerminalConfig:
    """POST {token, public_key} to `{url}/v1/terminals/enrol` and write `config_path`, scanners still to be filled in.

    Refuses to replace a configuration, because the token would be spent for nothing. When the answer is lost, the same
    call again uses the same key. Raises `EnrolRefused`, `GatewayUnreachable`, `ConfigFault`, `KeyFault`, `OSError`.
    """
    if urlsplit(url).scheme not in ("http", "https"):
        raise ConfigFault(f"{url} is not an address like `https://gateway.example`")
    public_key = _prepare(config_path, state_directory)
    enrolled = await _ask(url.rstrip("/"), {"token": token, "public_key": public_key}, ca_file)
    _write_config(config_path, url, state_directory, ca_file, enrolled)
    return load_config(config_path)


def _prepare(config_path: Path, state_directory: Path) -> str:
    """Everything that could fail here does so before the token is spent; returns the public key, hex."""
    if config_path.exists():
        raise ConfigFault(f"{config_path} exists: move it aside, or name another file")
    state_directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    config_path.parent.mkdir(parents=True, exist_ok=True)
    key = device_key(read_or_create_secret(state_directory / DEVICE_KEY_NAME))
    return key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw).hex()


async def _ask(url: str, body: dict[str, str], ca_file: str) -> Enrolled:
    tls = ssl.create_default_context(cafile=ca_file) if ca_file else True
    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=ANSWER_S)) as session,
            session.post(f"{url}/v1/terminals/enrol", json=body, ssl=tls, allow_redirects=False) as response,
        ):
            content = await response.content.read(ANSWER_BYTES_MAX)
            code = response.status
    except (aiohttp.ClientError, TimeoutError) as error:
        raise GatewayUnreachable(f"{url} cannot be reached: {_why(error)}") from None
    if code != 200:
        raise EnrolRefused(f"{url} answered {code}: {_problem(content)}")
    try:
        return msgspec.json.decode(content, type=Enrolled)
    except UNDECODABLE as error:
        raise EnrolRefused(f"{url} gave an answer this till does not understand: {error}") from None


def _why(error: Exception) -> str:
    if isinstance(error, aiohttp.ClientConnectorError) and error.os_error.errno and error.os_error.errno > 0:
        return os.strerror(error.os_error.errno).lower()
    return str(error) or "no answer in time"


def _problem(content: bytes) -> str:
    """The words of a problem+json body (RFC 9457), as far as there are any."""
    try:
        body = msgspec.json.decode(content, type=dict[str, object])
    except UNDECODABLE:
        return "no reason given"
    return str(body.get("detail") or body.get("title") or "no reason given")


def _write_config(path: Path, url: str, state_directory: Path, ca_file: str, enrolled: Enrolled) -> None:
    text = "\n".join(
        [
            f"# Terminal {enrolled.terminal} of store {_one_line(enrolled.store)}.",
            f"gateways = [{_quoted(url)}]",
            f"terminal = {enrolled.terminal}",
            f"state_directory = {_quoted(str(state_directory.absolute()))}",
            *([f"ca_file = {_quoted(str(Path(ca_file).absolute()))}"] if ca_file else []),
            "",
            "# One block for each scanner; suffix: cr, lf, crlf, tab, etx or none.",
            "# [[scanners]]",
            '# name = "lane1"',
            '# path = "/dev/serial/by-id/..."',
            '# suffix = "cr"',
            "",
            "# The cashier's page, at http://127.0.0.1:8470; listen lets phones in, by TLS and paired.",
            "# [page]",
            '# listen = "0.0.0.0:8443"',
            "",
            "# A slip for each accepted voucher; needs the extra `receipt`.",
            "# [receipt]",
            '# printer = "/dev/usb/lp0"',
            "",
        ]
    )
    with open(path, "x", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    sync_directory(path.parent)


def _one_line(text: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in text)


def _quoted(text: str) -> str:
    """A TOML basic string: JSON's escapes are TOML's, but for DEL, and for surrogates, which are not written here."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
