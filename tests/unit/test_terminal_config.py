"""terminal.toml: what is accepted, and how what is wrong is named."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devices.config import (
    ConfigFault,
    HidPosConfig,
    KeyboardConfig,
    SerialConfig,
    load_config,
    parse_config,
    stream_url,
)
from devices.framing.datalogic import DatalogicFramer
from devices.framing.honeywell import HoneywellFramer
from devices.framing.newland import NewlandFramer
from devices.framing.raw import RawFramer
from devices.framing.ssi import SsiFramer
from devices.readers import framer_for

HEAD = 'gateways = ["https://a.example"]\nterminal = 7\nstate_directory = "state"\n'
SCANNER = '[[scanners]]\nname = "lane1"\npath = "/dev/ttyACM0"\n'
PATH = Path("/shop/terminal.toml")


def test_a_whole_file() -> None:
    text = (
        HEAD + 'language = "zh"\nca_file = "ca.pem"\n' + SCANNER + 'suffix = "etx"\nprefix = "\\u0002"\ngap_ms = 80\n'
    )
    config = parse_config(text.encode(), PATH)
    assert (config.terminal, config.language) == (7, "zh")
    assert (config.state_directory, config.ca_file) == ("/shop/state", "/shop/ca.pem")
    assert config.scanners == [SerialConfig("lane1", "/dev/ttyACM0", suffix="etx", prefix="\x02", gap_ms=80)]


@pytest.mark.parametrize(
    ("text", "told"),
    (
        (HEAD + "lnguage = 'en'", "did you mean `language`"),
        (HEAD + SCANNER + "sufix = 'cr'", r"scanners\[.*did you mean `suffix`"),
        (HEAD + SCANNER + "suffix = 'crr'", r"\$\.scanners\[.*suffix"),
        (HEAD + SCANNER + "gap_ms = 1", r"gap_ms"),
        (HEAD + SCANNER + 'prefix = "券"', r"prefix"),
        (HEAD + SCANNER + SCANNER, "same name `lane1`"),
        (HEAD + SCANNER + SCANNER.replace("lane1", "lane2"), "same path"),
        (HEAD + SCANNER.replace("/dev/ttyACM0", "usb:c2e:b61"), r"expected a path like `usb:0c2e:0b61`.*\[0\]"),
        (HEAD + SCANNER.replace("/dev/ttyACM0", "usb:046d:0825") + 'kind = "camera"', r"/dev/v4l/by-id.*\[0\]"),
        (HEAD + SCANNER.replace("/dev/ttyACM0", "rfc2217://a"), r"a device of this machine.*\[0\]"),
        (HEAD + SCANNER.replace("lane1", "keyboard"), "`keyboard` is the name of codes typed by hand"),
        (HEAD + "metrics_listen = '127.0.0.1:65536'", "a port is at most 65535"),
        (HEAD + SCANNER + 'kind = "keyboard"\nlayout = "uss"', r"\$\.scanners\[.*layout"),
        (HEAD + SCANNER + 'kind = "keyboard"\ngs_key = "f13"', r"\$\.scanners\[.*gs_key"),
        (HEAD + SCANNER + 'kind = "keyboard"\nlayuot = "us"', "did you mean `layout`"),
        (HEAD + SCANNER + 'framing = "sssi"', r"\$\.scanners\[.*framing"),
        (
            HEAD + SCANNER + 'framing = "ssi"\nsuffix = "tab"',
            r"`suffix` is for framing raw or datalogic.*\[0\]",
        ),
        (HEAD + SCANNER + "cordless = true", r"`cordless` is for framing ssi, and here it is raw"),
        (HEAD.replace("https://a.example", "a.example"), r"\$\.gateways\[0\]"),
        (HEAD.replace("https://a.example", "http://[a"), r"\$\.gateways\[0\]"),
        ("gateways = []\nterminal = 7\nstate_directory = ''", "gateways"),
        ("terminal = 7", "missing required field `gateways`"),
        (HEAD.replace("7", "0"), "terminal"),
        ("]", "not TOML"),
    ),
)
def test_what_is_wrong_is_named(text: str, told: str) -> None:
    with pytest.raises(ConfigFault, match=rf"^/shop/terminal.toml: .*{told}"):
        parse_config(text.encode(), PATH)


def test_scanners_of_usb_classes() -> None:
    text = (
        HEAD
        + """
[[scanners]]
kind = "keyboard"
name = "wedge"
path = "usb:05e0:1200@usb-0000:00:14.0-2"
layout = "de"
suffix = "tab"
gs_key = "f8"
[[scanners]]
kind = "hid-pos"
name = "pos"
path = "usb:0c2e:0b61:S1"
"""
    )
    wedge, pos = parse_config(text.encode(), PATH).scanners
    path = "usb:05e0:1200@usb-0000:00:14.0-2"
    assert wedge == KeyboardConfig("wedge", path, layout="de", suffix="tab", gs_key="f8")
    assert pos == HidPosConfig("pos", "usb:0c2e:0b61:S1")


@pytest.mark.parametrize(
    ("settings", "framer"),
    (
        ("", RawFramer),
        ('framing = "ssi"\ncordless = true', SsiFramer),
        ('framing = "honeywell"', HoneywellFramer),
        ('framing = "newland"\nlrc = "len_type"', NewlandFramer),
        ('framing = "datalogic"\nlabel_ack = true\nnot_on_file = true\nsuffix = "crlf"', DatalogicFramer),
    ),
)
def test_each_framing_has_its_framer(settings: str, framer: type) -> None:
    [scanner] = parse_config((HEAD + SCANNER + settings).encode(), PATH).scanners
    assert type(framer_for(scanner)) is framer


@given(content=st.binary(max_size=100))
def test_any_bytes_are_a_configuration_or_a_named_fault(content: bytes) -> None:
    with pytest.raises(ConfigFault):
        parse_config(content, PATH)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigFault, match=r"terminal\.toml: No such file"):
        load_config(tmp_path / "terminal.toml")


@pytest.mark.parametrize(
    ("gateway", "url"),
    (
        ("https://a.example", "wss://a.example/v1/stream"),
        ("http://127.0.0.1:8080/", "ws://127.0.0.1:8080/v1/stream"),
        ("wss://a.example:8443/tillgate", "wss://a.example:8443/tillgate/v1/stream"),
    ),
)
def test_where_the_stream_is(gateway: str, url: str) -> None:
    assert stream_url(gateway) == url
