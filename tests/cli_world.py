"""Runs `tillgate` command lines in this process, and a gateway to talk to in another one."""

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from source_tree import ROOT

from gateway.cli import run

STOP_SECONDS = 20.0


@dataclass(frozen=True)
class Told:
    """What a command printed, and its exit code."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        assert self.code in (0, 3), self.err
        return json.loads(self.out)


@dataclass(frozen=True)
class Shell:
    """Command lines about one data directory."""

    data: Path

    def __call__(self, *args: object, stdin: str = "") -> Told:
        return tillgate(*args, "--data", self.data, stdin=stdin)

    def json(self, *args: object, stdin: str = "") -> Any:
        return self(*args, "--json", stdin=stdin).json


def tillgate(*args: object, stdin: str = "") -> Told:
    """One command line, carried out here: standard streams are no terminal."""
    out, err, before = io.StringIO(), io.StringIO(), sys.stdin
    sys.stdin = io.StringIO(stdin)
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = run([str(arg) for arg in args])
    finally:
        sys.stdin = before
    assert "Traceback" not in err.getvalue(), err.getvalue()
    return Told(code, out.getvalue(), err.getvalue())


def spawn(*args: object, **options: Any) -> subprocess.Popen[str]:
    """One command line as a process."""
    command = [sys.executable, "-m", "gateway.cli", *map(str, args)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "stdin": subprocess.DEVNULL} | options
    environ = {name: value for name, value in os.environ.items() if not name.startswith("TILLGATE_")}
    return subprocess.Popen(command, text=True, cwd=ROOT, env=environ, **pipes)


@contextlib.contextmanager
def serving(data: Path) -> Iterator[str]:
    """The URL of a gateway process on a data directory."""
    process = spawn(
        *("serve", "--data", data, "--server-port", 0, "--metrics-port", 0, "--drain-seconds", 0, "--json"),
        stderr=subprocess.DEVNULL,
    )
    with process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line, "the gateway ended before it was ready"
            yield json.loads(line)["url"]
        finally:
            process.send_signal(signal.SIGTERM)
            assert process.wait(STOP_SECONDS) == 0


OFFER = """
title = "Autumn noodles"
kind = "prepaid"
value = "12.50 CNY"
starts = 2025-01-01
ends = "2099-12-31"
hours = ["mon-sun 00:00-24:00"]
stores = ["nk-1"]
"""


def open_market(shell: Shell, directory: Path) -> None:
    """A merchant, its store, and the campaign `noodles`."""
    offer = directory / "offer.toml"
    offer.write_text(OFFER)
    for args in (
        ("merchant", "add", "noodle-king", "--title", "Noodle King"),
        ("store", "open", "nk-1", "--merchant", "noodle-king", "--title", "Noodle King 1"),
        ("campaign", "create", "noodles", "--file", offer),
    ):
        told = shell(*args)
        assert told.code == 0, told.err
