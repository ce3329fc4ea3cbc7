"""What the ladder reads from drawn phone screens and from symbols of every kind, and what it refuses to guess."""

import numpy as np
import phone_screens
import pytest
import zxingcpp
from hypothesis import given, settings
from hypothesis.extra import numpy as arrays
from zxingcpp import BarcodeFormat as Form

from devices.camera_ladder import Ladder, Luma, Rung, Seen
from devices.framing import FaultReason, Frame, FrameFault
from devices.scan import Scan, scan_of

QR = Ladder(("qr",))
EVERY = Ladder(("qr", "aztec", "datamatrix", "pdf417", "code128", "code39", "ean", "databar"))
BY_NAME = {one.name: one for one in (*phone_screens.CONDITIONS, *phone_screens.WITHOUT_ONE_CODE)}


def symbol(content: str | bytes, form: Form, scale: int = 3, **how: object) -> Luma:
    made = zxingcpp.create_barcode(content, form, **how)
    return np.pad(np.asarray(made.to_image(scale=scale), np.uint8), 10 * scale, constant_values=255)


def the_one(seen: Seen) -> Frame:
    assert seen.is_one, seen
    [(frame, sure)] = seen.codes.items()
    assert sure
    return frame


@pytest.mark.parametrize(
    ("name", "first"),
    (
        ("bright, held well", Rung.QUICK),
        ("dark mode (inverted)", Rung.QUICK),
        ("dark mode, dim", Rung.QUICK),
        ("overexposed", Rung.QUICK),
        ("far away (2.2-3 px a module)", Rung.GLOBAL),
        ("moire on a small code", Rung.SMOOTH),
        ("finger over a corner", Rung.QUICK),
    ),
)
def test_phone_screens_are_read(name: str, first: Rung) -> None:
    firsts = []
    for seed in range(3):
        picture = phone_screens.picture(BY_NAME[name], seed)
        seen = QR.read(picture.luma)
        assert the_one(seen).octets.decode() == picture.codes[0]
        firsts.append(seen.rung)
        assert list(QR.read(picture.luma, known=frozenset(seen.codes)).codes) == list(seen.codes)
        if first in firsts:
            return
    pytest.fail(f"{first} was not needed, but {firsts}")


def test_blur_is_read_where_the_slowest_rung_is_tried() -> None:
    pictures = [phone_screens.picture(BY_NAME["out of focus"], seed) for seed in range(4)]
    shares = [sum(bool(QR.read(one.luma, up_to=rung).codes) for one in pictures) for rung in (Rung.SMOOTH, Rung.SHARP)]
    assert shares[0] < shares[1]


@pytest.mark.parametrize("condition", (phone_screens.TWO_IN_VIEW, phone_screens.TWO_UNLIKE), ids=lambda c: c.name)
def test_two_vouchers_are_no_one(condition: phone_screens.Condition) -> None:
    for seed in range(4):
        picture = phone_screens.picture(condition, seed)
        seen = QR.read(picture.luma)
        assert {frame.octets.decode() for frame in seen.codes} <= set(picture.codes)
        assert not seen.is_one


def test_a_page_without_a_code_has_none() -> None:
    for seed in range(2):
        assert QR.read(phone_screens.picture(phone_screens.NOTHING, seed).luma) == Seen()


@pytest.mark.parametrize(
    ("content", "form", "how", "octets", "aim"),
    (
        ("0123ABC", Form.QRCode, {}, b"0123ABC", "]Q1"),
        ("0123ABC", Form.Aztec, {}, b"0123ABC", "]z0"),
        ("0123ABC", Form.DataMatrix, {}, b"0123ABC", "]d1"),
        ("0123ABC", Form.PDF417, {}, b"0123ABC", "]L2"),
        ("0123ABC", Form.Code128, {}, b"0123ABC", "]C0"),
        ("0123ABC", Form.Code39, {}, b"0123ABC", "]A0"),
        ("590123412345", Form.EAN13, {}, b"5901234123457", "]E0"),
        ("(01)09506000134352(10)AB(21)9", Form.QRCode, {"gs1": True}, b"010950600013435210AB\x1d219", "]Q3"),
        ("(01)09506000134352(10)AB(21)9", Form.DataMatrix, {"gs1": True}, b"010950600013435210AB\x1d219", "]d2"),
        ("(01)09506000134352(10)AB(21)9", Form.Code128, {"gs1": True}, b"010950600013435210AB\x1d219", "]C1"),
        ("(01)0950", Form.QRCode, {}, b"(01)0950", "]Q1"),  # text that looks like GS1 in print, and is none
        ("券12", Form.QRCode, {"eci": "UTF-8"}, "券12".encode(), "]Q1"),
        (bytes(range(256)), Form.QRCode, {}, bytes(range(256)), "]Q1"),
        (b"A\r\nB\x1dC", Form.QRCode, {}, b"A\r\nB\x1dC", "]Q1"),
    ),
)
def test_bytes_and_identifier_of_every_kind(
    content: str | bytes, form: Form, how: dict[str, object], octets: bytes, aim: str
) -> None:
    assert the_one(EVERY.read(symbol(content, form, **how))) == Frame(octets, aim)


def test_only_what_is_configured_is_looked_for() -> None:
    assert QR.read(symbol("0123ABC", Form.DataMatrix)) == Seen()
    assert Ladder(("code128",)).read(symbol("590123412345", Form.EAN13)) == Seen()


def test_a_linear_code_that_only_one_rung_reads_is_not_sure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("devices.camera_ladder.CAREFUL", ())
    [sure] = Ladder(("code128",)).read(symbol("0123ABC", Form.Code128)).codes.values()
    assert sure is False


def test_a_code_longer_than_any_voucher_is_a_named_fault() -> None:
    [frame] = QR.read(symbol("1" * 7000, Form.QRCode, ec_level="L")).codes
    assert len(frame.octets) == 7000
    assert scan_of(frame, "camera") == FrameFault(FaultReason.TOO_LONG, 7000)


def test_another_character_set_is_read_as_its_bytes_like_by_any_scanner() -> None:
    [frame] = QR.read(symbol("日本", Form.QRCode, eci="Shift_JIS")).codes
    assert frame.octets == "日本".encode("shift_jis")
    assert isinstance(scan_of(frame, "camera"), Scan)


@settings(max_examples=60)
@given(arrays.arrays(np.uint8, arrays.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=70)))
def test_any_picture_has_a_result(luma: Luma) -> None:
    assert isinstance(EVERY.read(luma), Seen)
