"""Which scanner a configuration makes, what it says it can do, and what it says when a library is missing."""

import sys
from pathlib import Path

import pytest

from devices.config import (
    CameraConfig,
    ConfigFault,
    HidPosConfig,
    KeyboardConfig,
    ScannerConfig,
    SerialConfig,
    parse_config,
)
from devices.framing import FaultReason, Frame, FrameFault, Signal
from devices.scanner import Capabilities, Feedback, State, Statistics, counted
from devices.scanners import scanner_for


def serial(framing: str, **more: object) -> SerialConfig:
    content = f'gateways = ["http://g"]\nterminal = 1\nstate_directory = "s"\n[[scanners]]\nframing = "{framing}"\n'
    lines = "".join(f"{name} = {str(value).lower()}\n" for name, value in more.items())
    config = parse_config(f'{content}name = "lane1"\npath = "/dev/null"\n{lines}'.encode(), Path("t.toml"))
    assert isinstance(config.scanners[0], SerialConfig)
    return config.scanners[0]


def ignore(*heard: object) -> None:
    pass


@pytest.mark.parametrize(
    ("config", "able"),
    (
        (serial("raw"), Capabilities()),
        (serial("newland"), Capabilities(length_framed=True)),
        (serial("datalogic"), Capabilities(verdict_good=True, verdict_bad=True)),
        (serial("datalogic", label_ack=True), Capabilities(ack=True, verdict_good=True, verdict_bad=True)),
        (
            serial("honeywell"),
            Capabilities(verdict_good=True, verdict_bad=True, length_framed=True, symbology=True),
        ),
        (serial("ssi"), Capabilities(True, True, True, True, True, True)),
    ),
    ids=("raw", "newland", "datalogic", "datalogic-ack", "honeywell", "ssi"),
)
def test_a_serial_scanner_says_what_its_protocol_can_do(config: SerialConfig, able: Capabilities) -> None:
    scanner = scanner_for(config, ignore, ignore)
    assert (scanner.name, scanner.state, scanner.capabilities) == ("lane1", State.CLOSED, able)
    unplugged = Feedback.LOST if able.verdict_good else Feedback.UNSUPPORTED
    assert scanner.feedback(Signal.GOOD) is unplugged


@pytest.mark.parametrize(
    ("config", "able"),
    (
        (KeyboardConfig("lane1", "usb:05e0:1200"), Capabilities()),
        (HidPosConfig("lane1", "usb:0c2e:0b61"), Capabilities(length_framed=True, symbology=True)),
    ),
    ids=("keyboard", "hid-pos"),
)
def test_a_scanner_of_a_usb_class_says_what_it_can_do(config: ScannerConfig, able: Capabilities) -> None:
    scanner = scanner_for(config, ignore, ignore)
    assert (scanner.name, scanner.state, scanner.capabilities) == ("lane1", State.CLOSED, able)
    assert scanner.feedback(Signal.GOOD) is Feedback.UNSUPPORTED, "not known before its device was there"


def test_a_missing_library_is_told_with_what_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "devices.camera", None)  # what an import that fails leaves behind
    with pytest.raises(ConfigFault, match=r"scanner `cam` is of kind `camera`.*pip install 'tillgate\[camera\]'"):
        scanner_for(CameraConfig("cam", "/dev/video0"), ignore, ignore)


def test_everything_handed_over_is_counted() -> None:
    counts, told, taken = Statistics(), [], [True, True, False]
    on_read = counted(counts, lambda name, found, settle: settle(taken.pop(0)))
    for frame in (Frame(b"1"), Frame(b"1", resent=True), Frame(b"2")):
        on_read("lane1", frame, told.append)
    for reason in (FaultReason.CHECKSUM, FaultReason.CHECKSUM, FaultReason.STRAY):
        counted(counts, ignore)("lane1", FrameFault(reason, 3), told.append)
    counted(counts, lambda name, found, settle: settle(False))("lane1", Frame(b" "), told.append)
    assert told == [True, True, False, False], "the scanner hears what the journal said"
    assert (counts.reads, counts.resent, counts.refused) == (4, 1, 1), "an empty read is no full journal"
    assert counts.faults == {FaultReason.CHECKSUM: 2, FaultReason.STRAY: 1, FaultReason.EMPTY: 1}
    assert counts.last_read_ms > 0
