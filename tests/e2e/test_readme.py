"""The README's five-minute tour, run as it stands there."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

README = Path(__file__).parents[2] / "README.md"
WAIT = "for i in $(seq 300); do [ -f tillgate-data/gateway.json ] && break; sleep 0.1; done\n"


def blocks(heading: str) -> list[str]:
    """The shell blocks under a heading of the README."""
    text = README.read_text()
    section = text[text.index(f"## {heading}") :]
    section = section[: section.index("\n## ", 3)]
    return re.findall(r"```sh\n(.*?)```", section, re.DOTALL)


def free_port() -> str:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return str(listener.getsockname()[1])


@pytest.mark.timeout(180)
@pytest.mark.skipif(shutil.which("curl") is None, reason="the tour's till is curl, which is not installed")
def test_the_five_minute_tour_does_what_it_says(tmp_path: Path) -> None:
    tools, home = tmp_path / "bin", tmp_path / "home"
    tools.mkdir()
    home.mkdir()
    command = tools / "tillgate"
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m gateway.cli "$@"\n')
    command.chmod(0o755)
    setup, till = blocks("Five minutes with it")
    port = free_port()
    script = ("set -e\n" + setup + WAIT + till).replace("127.0.0.1:8080", f"127.0.0.1:{port}")
    settings = {"TILLGATE_SERVER__PORT": port, "TILLGATE_METRICS__PORT": free_port()}
    path = {"PATH": f"{tools}:{os.environ['PATH']}", "PYTHONPATH": str(README.parent)}
    ran = subprocess.run(
        ["bash", "-c", script],
        cwd=home,
        env=os.environ | settings | path,
        capture_output=True,
        text=True,
        timeout=170,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    told = next(line for line in ran.stdout.splitlines() if line.startswith('{"redemption_id"'))
    answer, _ = json.JSONDecoder().raw_decode(told)  # curl ends its line with the next command's first
    assert answer["verdict"] == "accepted"
    assert answer["voucher_id"] == "1-1"
    assert "intact          yes" in ran.stdout
