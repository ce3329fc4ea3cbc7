"""`terminal detect`, `setup` and `test`: on machines without any device, on made-up ones, and on a real line."""

import asyncio
import base64
import io
import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pytest
import zxingcpp
from cli_world import spawn, tillgate
from PIL import Image
from scanner_wire import msgget
from scripted_scanners import SsiScanner
from till_bench import PtyScanner, TillBench, until

from devices.config import load_config
from devices.detect import Found, detect
from devices.vendors import TEST_CODES

CONFIG = '# ours\ngateways = ["http://g.example"]\nterminal = 7\nstate_directory = "state"\n\n# [[scanners]]\n'
SIGNED = b"T1" + b"0A1B2C3D" * 4


@pytest.fixture
def config(tmp_path: Path) -> Path:
    file = tmp_path / "terminal.toml"
    file.write_text(CONFIG)
    return file


@pytest.fixture
def line(tmp_path: Path) -> Iterator[PtyScanner]:
    scanner = PtyScanner(tmp_path / "lane1")
    yield scanner
    scanner.close()


def usb(sysfs: Path, name: str, vendor: str, product: str, about: str, serial: str = "") -> Path:
    """A USB device's directory, as sysfs shows it, below its bus."""
    device = sysfs / "devices" / "pci0" / "usb1" / name
    device.mkdir(parents=True)
    (device / "idVendor").write_text(vendor + "\n")
    (device / "idProduct").write_text(product + "\n")
    (device / "product").write_text(about + "\n")
    (device / "serial").write_text(serial + "\n")
    (device / "devpath").write_text(name.partition("-")[2] + "\n")
    return device


def node(sysfs: Path, dev: Path, subsystem: str, name: str, device: Path) -> None:
    place = sysfs / "class" / subsystem / name
    place.mkdir(parents=True)
    (place / "device").symlink_to(device)
    (place / "uevent").write_text(f"DEVNAME={name}\n")
    dev.mkdir(exist_ok=True)


def scanner_at(sysfs: Path, dev: Path, vendor: str = "05e0", serial: str = "S123") -> Found:
    node(sysfs, dev, "tty", "ttyACM0", usb(sysfs, "1-2", vendor, "1701", "DS2208", serial))
    by_id = dev / "serial" / "by-id"
    by_id.mkdir(parents=True)
    (by_id / "usb-DS2208_S123-if00").symlink_to("/dev/ttyACM0")
    [found] = detect(sysfs, dev)
    return found


def test_a_machine_without_devices_is_no_error(tmp_path: Path) -> None:
    assert detect(tmp_path / "sys", tmp_path / "dev") == []
    told = tillgate("terminal", "detect", "--json")
    assert told.code == 0
    assert isinstance(told.json, list)


def test_a_known_makers_serial_scanner_is_named_with_its_protocol_and_lasting_path(tmp_path: Path) -> None:
    found = scanner_at(tmp_path / "sys", tmp_path / "dev")
    assert (found.kind, found.vendor, found.serial, found.usb_id) == ("serial", "Zebra (Symbol)", "S123", "05e0:1701")
    assert found.path == str(tmp_path / "dev" / "serial" / "by-id" / "usb-DS2208_S123-if00")
    assert found.framing == "ssi"
    assert "is not there" in found.problem, "the kernel of this test has no such node"


def test_a_scanner_without_a_serial_number_is_named_by_its_socket(tmp_path: Path) -> None:
    found = scanner_at(tmp_path / "sys", tmp_path / "dev", serial="")
    assert found.path == "usb:05e0:1701@usb-pci0-2"


def test_an_adapter_says_that_anything_may_hang_on_it(tmp_path: Path) -> None:
    found = scanner_at(tmp_path / "sys", tmp_path / "dev", "0403")
    assert (found.framing, "cannot be seen" in found.guess) == ("raw", True)


def test_a_port_that_this_user_may_not_open_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda *asked: False)
    node(tmp_path / "sys", tmp_path / "dev", "video4linux", "null", tmp_path)
    [found] = detect(tmp_path / "sys", Path("/dev"))
    assert (found.kind, found.node) == ("camera", "/dev/null")
    assert "may not open /dev/null" in found.problem
    assert "detect again" in found.next_step


# --- setup ------------------------------------------------------------------------------------------------------------


def test_setup_adds_a_scanner_and_keeps_the_rest(config: Path) -> None:
    config.chmod(0o640)
    add = ("terminal", "setup", "--config", config, "--path", "/dev/ttyACM0", "--framing", "ssi")
    told = tillgate(*add, "--set", "baud=115200", "--set", "cordless=true", "--json")
    assert told.json["written"]
    assert config.read_text().startswith(CONFIG.rstrip("\n"))
    assert config.stat().st_mode & 0o777 == 0o640
    [scanner] = load_config(config).scanners
    assert (scanner.name, scanner.path, scanner.framing, scanner.baud, scanner.cordless) == (  # type: ignore[union-attr]
        "lane1", "/dev/ttyACM0", "ssi", 115200, True
    )  # fmt: skip
    needs = {need["what"]: need for need in told.json["needs"]}
    assert needs["reads in packets"]["octets"] == "07 c6 04 00 ff ee 01 fd 41"
    assert "manual" in next(need for what, need in needs.items() if what.startswith("SSI on its line"))["how"]


async def test_at_a_terminal_setup_asks_and_writes_nothing_unconfirmed(config: Path) -> None:
    for answers, written in (("till-a\nn\n", False), ("till-a\ny\n", True)):
        master, slave = os.openpty()
        asking = spawn("terminal", "setup", "--config", config, "--path", "/dev/ttyACM0", stdin=slave)
        os.close(slave)
        os.write(master, answers.encode())
        out, err = await asyncio.to_thread(asking.communicate, timeout=20)
        os.close(master)
        assert "Name [lane1]" in err
        assert 'name = "till-a"' in out
        assert asking.returncode == (0 if written else 130)
        assert [one.name for one in load_config(config).scanners] == (["till-a"] if written else [])


def test_setup_replaces_only_when_asked_and_only_that_one(config: Path) -> None:
    for name in ("lane1", "lane2"):
        path = f"/dev/{name}"
        assert tillgate("terminal", "setup", "--config", config, "--name", name, "--path", path).code == 0
    before = config.read_text()
    again = ("terminal", "setup", "--config", config, "--name", "lane1", "--kind", "hid-pos", "--path", "usb:05e0:1701")
    refused = tillgate(*again)
    assert (refused.code, config.read_text()) == (2, before)
    assert "--replace" in refused.err
    assert tillgate(*again, "--replace", "--dry-run").code == 0
    assert config.read_text() == before
    assert tillgate(*again, "--replace").code == 0
    kinds = [(one.name, one.__struct_config__.tag) for one in load_config(config).scanners]
    assert kinds == [("lane2", "serial"), ("lane1", "hid-pos")]


@pytest.mark.parametrize(
    ("arguments", "told"),
    (
        (("--path", "/dev/x", "--set", "sufix=tab"), "did you mean `suffix`"),
        (("--path", "/dev/x", "--framing", "ssi", "--set", "suffix=tab"), "`suffix` is for framing raw"),
        (("--path", "/dev/x", "--set", "nonsense"), "expected NAME=VALUE"),
        (("--path", "/dev/x", "--name", "no blanks"), "name"),
        ((), "--path"),
    ),
)
def test_setup_refuses_what_the_daemon_would_not_take(config: Path, arguments: tuple[str, ...], told: str) -> None:
    refused = tillgate("terminal", "setup", "--config", config, *arguments)
    assert refused.code in (1, 2)
    assert told in refused.err
    assert config.read_text() == CONFIG


def test_a_file_that_cannot_be_changed_safely_is_left_alone(config: Path) -> None:
    config.write_text(CONFIG + 'scanners = [{name = "a", path = "/dev/a"}]\n')
    before = config.read_text()
    refused = tillgate("terminal", "setup", "--config", config, "--path", "/dev/b")
    assert refused.code == 2
    assert config.read_text() == before


def test_the_sheet_has_every_test_code_as_a_picture_a_camera_reads(config: Path, tmp_path: Path) -> None:
    sheet = tmp_path / "sheet.html"
    told = tillgate("terminal", "setup", "--config", config, "--path", "/dev/x", "--framing", "ssi", "--sheet", sheet)
    assert told.code == 0, told.err
    page = sheet.read_text()
    assert "Select SSI Host" in page
    pictures = re.findall(r"base64,([^\"]+)", page)
    texts = [zxingcpp.read_barcode(Image.open(io.BytesIO(base64.b64decode(one)))) for one in pictures]
    assert [text and text.bytes.decode() for text in texts] == list(TEST_CODES.values())


# --- test -------------------------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def _none_is_left() -> Iterator[None]:
    """A `terminal test` that outlives its test would hold the lock of a pty whose number another test gets."""
    yield
    while Watched.begun:
        process = Watched.begun.pop()
        if process.poll() is None:
            process.kill()
            process.communicate()


class Watched:
    """`terminal test --json` on a line, and what it has shown."""

    begun: ClassVar[list[subprocess.Popen[str]]] = []

    def __init__(self, *arguments: object, out: Path) -> None:
        self._out = out
        with out.open("w") as file:
            self.process = spawn("terminal", "test", *arguments, "--json", stdout=file)
        self.begun.append(self.process)

    @property
    def text(self) -> str:
        return self._out.read_text()

    def lines(self, what: str) -> list[dict[str, object]]:
        rows = [json.loads(row) for row in self.text.splitlines(keepends=True) if row.endswith("\n")]
        return [row for row in rows if row["what"] == what]

    async def until(self, what: str, count: int = 1) -> dict[str, object]:
        await until(lambda: len(self.lines(what)) >= count, lambda: f"{count} {what}: {self.text}")
        return self.lines(what)[count - 1]

    def end(self) -> int:
        code: int = self.process.wait(20)
        assert self.process.stderr is not None
        assert "Traceback" not in self.process.stderr.read()
        self.process.stderr.close()
        return code


async def test_what_an_ssi_scanner_sends_is_shown_without_its_code(line: PtyScanner, tmp_path: Path) -> None:
    watched = Watched("--path", line.path, "--framing", "ssi", "--reads", 2, "--signal", "good", out=tmp_path / "out")
    await watched.until("port")
    scanner = SsiScanner(line)
    scanner.send(SIGNED)
    assert await scanner.until_heard(0xE6) == b"\x01"
    read = await watched.until("read")
    assert (read["aim"], read["bytes"]) == ("]Q1", len(SIGNED))
    assert "signed" in str(read["code_kind"])
    assert "code" not in read
    shown = await watched.until("bytes")
    assert str(shown["hex"]).startswith(f"{len(SIGNED) + 5:02x} f3 00 00 1c ·· ··")
    assert SIGNED.hex(" ") not in watched.text
    assert SIGNED.decode() not in watched.text
    assert (await watched.until("signal"))["text"] == "good: sent"
    scanner.send(TEST_CODES["plain"].encode())
    assert await scanner.until_heard(0xE6, 2) == b"\x01"
    known = await watched.until("read", 2)
    assert (known["text"], known["code_kind"]) == ("arrived whole", "test code `plain`")
    assert await asyncio.to_thread(watched.end) == 0
    counts = json.loads(str(watched.lines("statistics")[-1]["text"]))
    assert counts["reads"] == 2
    sent = " ".join(str(row["hex"]) for row in watched.lines("sent"))
    assert "07 c6 04 00 ff ee 01 fd 41" in sent, "the set-up at connect"
    assert "04 d0 04 00 ff 28" in sent, "the ACK"
    assert "05 e6 04 00 01 ff 10" in sent, "two short beeps"


async def test_a_burst_leaves_no_code_in_the_hex(line: PtyScanner, tmp_path: Path) -> None:
    watched = Watched("--path", line.path, "--reads", 3, out=tmp_path / "out")
    await watched.until("port")
    codes = [b"SECRET-%d-AAAA" % n for n in range(3)]
    line.write(codes[0] + b"\r" + codes[1] + b"\r" + codes[2][:5])
    await watched.until("read", 2)
    line.write(codes[2][5:] + b"\r")
    assert await asyncio.to_thread(watched.end) == 0
    shown = " ".join(str(row["hex"]) for row in watched.lines("bytes")).split()
    assert [octet for octet in shown if octet != "··"] == ["0d"] * 3
    assert "SECRET" not in watched.text


async def test_codes_are_shown_when_asked_for_and_faults_in_any_case(line: PtyScanner, tmp_path: Path) -> None:
    watched = Watched("--path", line.path, "--framing", "honeywell", "--show-code", out=tmp_path / "out")
    await watched.until("port")
    line.write(msgget(b"1234567890123452"))
    read = await watched.until("read")
    assert read["code"] == "'1234567890123452'"
    line.write(b"bare text\r")
    fault = await watched.until("fault")
    assert fault["text"] == "stray"
    watched.process.send_signal(signal.SIGINT)
    assert await asyncio.to_thread(watched.end) == 130


async def test_everything_that_is_no_code_has_a_result_of_its_own(line: PtyScanner, tmp_path: Path) -> None:
    watched = Watched("--path", line.path, "--reads", 4, out=tmp_path / "out")
    await watched.until("port")
    for _ in range(7):
        line.write(b"A" * 1000)  # no code is so long
    line.write(b"\r")
    assert (await watched.until("fault"))["text"] == "too_long"
    line.write(b"]Q1 \r")
    assert (await watched.until("fault", 2))["text"] == "empty"
    line.write(b"\xff\x00\x80\x07\xfe\r")  # bytes of no text
    assert "no voucher code" in str((await watched.until("read"))["code_kind"])
    line.write(b"]C1011234567890123110AB\x1d99X\r")  # GS1
    read = await watched.until("read", 2)
    assert (read["aim"], "foreign code" in str(read["code_kind"])) == ("]C1", True)
    assert await asyncio.to_thread(watched.end) == 0
    counts = json.loads(str(watched.lines("statistics")[-1]["text"]))
    assert counts["faults"] == {"too_long": 1, "empty": 1}
    assert counts["reads"] == 3, "an empty read was whole on the line"


async def test_a_scanner_that_the_terminal_has_is_not_taken_from_it(tmp_path: Path) -> None:
    with TillBench(tmp_path) as till:
        till.configure("http://127.0.0.1:9")
        till.start()
        await till.until_shown("scanner ready")
        refused = await asyncio.to_thread(tillgate, "terminal", "test", "--config", till.config)
        assert refused.code == 1
        assert "running and has `lane1`" in refused.err
