"""A serial scanner that others wrote: emupos (PyPI, Apache-2.0, Python 3.13 or newer), where it is on the PATH."""

import asyncio
import json
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import pytest
from scripted_gateway import ScriptedGateway
from till_bench import TillBench, until

EMUPOS = shutil.which("emupos")
pytestmark = pytest.mark.skipif(not EMUPOS, reason="emupos is not installed: pipx install --python 3.13 emupos==0.4.0")
STARTS = {"enter": "cr", "tab": "tab", "none": "none"}  # its suffix, and ours


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture
def till(tmp_path: Path) -> Iterator[TillBench]:
    with TillBench(tmp_path) as bench:
        bench.scanner.unplug()
        bench.scanner.path.unlink()
        yield bench


class Emupos:
    """The program with one serial scanner; its pseudo-terminal becomes the till's `lane1`."""

    def __init__(self, directory: Path, suffix: str) -> None:
        self.port = free_port()
        self.line = directory / "emupos" / "lane1"
        config = directory / "emupos.yaml"
        lane1: dict[str, object] = {"id": "lane1", "type": "scanner", "mode": "serial", "suffix": suffix}
        lane1["connections"] = [{"serial": {"pty": True}}]
        config.write_text(json.dumps({"schema": 1, "api": {"port": self.port}, "devices": [lane1]}))  # JSON is YAML
        assert EMUPOS
        self.process = subprocess.Popen(
            [EMUPOS, "run", "--config", config],
            env=os.environ | {"TMPDIR": str(directory)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def end(self) -> None:
        self.process.terminate()
        self.process.wait(20)


@pytest.mark.parametrize("suffix", STARTS)
async def test_what_emupos_scans_is_redeemed_to_the_character(till: TillBench, tmp_path: Path, suffix: str) -> None:
    emupos = Emupos(tmp_path, suffix)
    try:
        async with ScriptedGateway(till.public_key) as gateway, aiohttp.ClientSession() as session:
            await until(emupos.line.is_symlink, lambda: "the line of emupos")
            till.scanner.path.symlink_to(emupos.line)
            till.configure(gateway.url, suffix=STARTS[suffix])
            till.start()
            await till.until_shown("scanner ready")
            await till.until_shown("connected to the gateway")
            codes = ["T10A1B2C3D4E5F6G7H8I9J0K1L2M3N4", "naïve-é-漢", "0109501101530003\x1d10AB-1", "X" * 3000]
            for number, code in enumerate(codes, 1):
                body = {"data": code, "countdown_seconds": 0, "unicode": not code.isascii()}
                async with session.post(
                    f"http://127.0.0.1:{emupos.port}/api/v1/devices/lane1/scans", json=body
                ) as answer:
                    assert answer.status == 202, await answer.text()
                await gateway.until(lambda: len(gateway.scans) >= number)  # noqa: B023 - awaited in the same turn
            assert [scan.code for scan in gateway.scans] == codes
            assert till.stop() == 0
    finally:
        await asyncio.to_thread(emupos.end)
