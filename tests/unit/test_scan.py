"""From frame to scan: identifier, text, and what is kept of the bytes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devices.framing import FaultReason, Frame, FrameFault
from devices.scan import Scan, scan_of
from gateway.messages import CODE_CHARS_MAX


@pytest.mark.parametrize(
    ("octets", "aim", "code"),
    (
        (b"0123ABC", "", "0123ABC"),
        (b"]Q10123ABC", "]Q1", "0123ABC"),
        (b"]C18112\x1d99", "]C1", "8112\x1d99"),
        (b"\x02]d2CODE \n", "]d2", "CODE"),
        (b"]", "", "]"),
        (b"]Q", "", "]Q"),
        (b"]1Qx", "", "]1Qx"),
        ("券12".encode(), "", "券12"),
        ("１２\u3000".encode(), "", "１２"),
        (b"caf\xe9", "", "café"),
        (b"\x00\x00A B\x7f", "", "A B"),
    ),
)
def test_text_and_identifier(octets: bytes, aim: str, code: str) -> None:
    assert scan_of(Frame(octets), "lane1") == Scan("lane1", code, aim, octets)


@pytest.mark.parametrize(
    ("octets", "told", "aim", "code"),
    (
        (b"0123ABC", "]Q1", "]Q1", "0123ABC"),
        (b"]Q30123ABC", "]Q1", "]Q3", "0123ABC"),  # in front of the text it is exact, a type byte knows no modifier
        (b"]C10123ABC", "]Q1", "]Q1", "]C10123ABC"),  # a QR that holds the text of an identifier
    ),
)
def test_the_protocols_identifier_and_the_texts(octets: bytes, told: str, aim: str, code: str) -> None:
    assert scan_of(Frame(octets, told), "lane1") == Scan("lane1", code, aim, octets)


@pytest.mark.parametrize(
    ("octets", "code"),
    (
        (b"]Q2\\000026T1ABC", "T1ABC"),  # what zxing-cpp and scanners make of a QR that names UTF-8
        (b"]Q2\\000026" + "券12".encode(), "券12"),
        (b"]Q2\\000003caf\xe9\\000026" + "é".encode(), "caféé"),
        (
            b"]d4\\000020" + "券表".encode("shift_jis").replace(b"\\", b"\\\\"),
            "券表",
        ),  # 表 has a backslash in its bytes
        (b"]Q2AB\\\\000026CD", "AB\\000026CD"),  # doubled: the text's own backslash
        (b"]Q2\\000027\xff", "ÿ"),  # not ASCII, whatever it says
        (b"]Q2\\999999X", "X"),
        (b"]Q1\\000026T1", "\\000026T1"),  # no ECI protocol: it is text
    ),
)
def test_encodings_named_by_eci(octets: bytes, code: str) -> None:
    scan = scan_of(Frame(octets), "lane1")
    assert isinstance(scan, Scan)
    assert scan.code == code
    assert scan.octets == octets


@pytest.mark.parametrize("octets", (b" ", b"]Q1", b"\x02\x03", b"]Q1 \r"))
def test_nothing_but_noise_is_a_fault(octets: bytes) -> None:
    assert scan_of(Frame(octets), "lane1") == FrameFault(FaultReason.EMPTY, len(octets))


@given(octets=st.binary(min_size=1, max_size=300))
def test_any_bytes_are_a_scan_or_a_named_fault(octets: bytes) -> None:
    scan = scan_of(Frame(octets), "lane1")
    if isinstance(scan, Scan):
        assert scan.octets == octets
        assert 0 < len(scan.code) <= CODE_CHARS_MAX
        scan.code.encode()  # can always be sent
        again = scan_of(Frame(scan.code.encode()), "lane1")
        assert isinstance(again, FrameFault) or again.aim or again.code == scan.code


def test_a_scan_never_shows_its_code() -> None:
    assert "SECRET" not in repr(scan_of(Frame(b"]Q1SECRET"), "lane1"))
