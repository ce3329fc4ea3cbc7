"""What is told of a maker's scanners: commands to the published byte, test codes that are known again."""

from typing import get_args

import pytest

from devices.config import ScannerConfig, SerialConfig
from devices.framing.honeywell import HoneywellFramer
from devices.framing.newland import NewlandFramer
from devices.framing.ssi import SsiFramer
from devices.vendors import NEEDS, TEST_CODES, VENDORS, known_test_code


def test_what_the_till_sends_itself_is_the_published_command() -> None:
    sent = {kind: [need.octets.hex() for need in needs if need.sent_by_till] for kind, needs in NEEDS.items()}
    assert sent["ssi"] == ["07c60400ffee01fd41", "07c60400ff3800fdf8"]
    assert sent["honeywell"] == ["164d0d" + b"DECHDR1!".hex()]
    assert [kind for kind, commands in sent.items() if commands] == ["ssi", "honeywell"]


def test_what_is_said_to_be_sent_is_what_the_framers_greet_with() -> None:
    packeted, quiet = (need.octets for need in NEEDS["ssi"] if need.sent_by_till)
    framer = SsiFramer()
    assert framer.greeting(0) == packeted
    [reply] = framer.feed(bytes.fromhex("04D00000FF2C"), 1)
    assert reply.octets == quiet  # type: ignore[union-attr]
    assert HoneywellFramer().greeting(0) == NEEDS["honeywell"][1].octets
    assert NewlandFramer().greeting(0) == b""


def test_everything_else_names_a_place_in_the_manual() -> None:
    for kind, needs in NEEDS.items():
        for need in needs:
            assert need.sent_by_till == bool(need.octets), (kind, need.what)
            assert need.sent_by_till or need.look_for, (kind, need.what)


def test_every_kind_and_framing_has_its_needs() -> None:
    kinds = {str(config.__struct_config__.tag) for config in get_args(ScannerConfig)} - {"serial"}
    framings = set(get_args(SerialConfig.__annotations__["framing"]))
    assert set(NEEDS) == kinds | framings
    assert {vendor.framing for vendor in VENDORS.values()} <= framings | {""}


@pytest.mark.parametrize("name", TEST_CODES)
def test_a_test_code_is_known_again_when_it_was_changed(name: str) -> None:
    code = TEST_CODES[name]
    assert known_test_code(code) == name
    assert known_test_code(code.swapcase()) == name
    assert known_test_code(code.replace("-", "ß").replace("y", "z").replace("\x1d", "")) == name


@pytest.mark.parametrize("code", ("T10123456789ABCDEFGHIJKLMNOPQR", "1234567890123452", "GROUPBUY-77-TILL", ""))
def test_a_voucher_is_no_test_code(code: str) -> None:
    assert known_test_code(code) == ""
