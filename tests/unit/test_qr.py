"""QR pictures: what is drawn is read again, at sizes a phone shows."""

import io
import re

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from gateway import qr
from gateway.codes import CodeKeys, KeyRing, Signed

RING = KeyRing(CodeKeys(keys={1: b"k" * 32}, active=1, pepper=b"p" * 32))
(CODE,) = RING.mint(1, 7, 123456, 1)
QUIET = 4
VERSION_2 = 25


def pixels(png: bytes) -> Image.Image:
    with Image.open(io.BytesIO(png)) as image:
        return image.convert("L")


@pytest.mark.parametrize("px", (33, 99, 100, 320, qr.PHONE_PX, 1080))
def test_round_trip_at_phone_sizes(px: int) -> None:
    png = qr.render(CODE, px=px, fmt="png")
    width, height = pixels(png).size
    assert width == height
    assert px <= width < px + 33
    assert width % 33 == 0
    (text,) = qr.decode(png)
    assert RING.parse(text) == Signed(7, 123456)


def test_signed_code_is_version_2_with_its_quiet_zone() -> None:
    image = pixels(qr.render(CODE, px=1, fmt="png"))
    assert image.size == (VERSION_2 + 2 * QUIET, VERSION_2 + 2 * QUIET)
    dark = image.point(lambda level: 255 - level).getbbox()
    assert dark == (QUIET, QUIET, QUIET + VERSION_2, QUIET + VERSION_2)


def test_svg_draws_the_same_modules() -> None:
    svg = qr.render(CODE, px=330, fmt="svg")
    assert re.search(r'<svg width="330" height="330"', svg)
    assert re.search(r'<rect x="0" y="0" width="330" height="330" fill="#FFFFFF"/>', svg)
    assert CODE not in svg
    drawn = Image.new("L", (330, 330), 255)
    for x, y, width, height in re.findall(r"M(\d+) (\d+)h(\d+)v(\d+)h-\d+Z", svg):
        box = (int(x), int(y), int(x) + int(width), int(y) + int(height))
        assert min(box) >= 10 * QUIET
        assert max(box) <= 10 * (QUIET + VERSION_2)
        drawn.paste(0, box)
    assert drawn.tobytes() == pixels(qr.render(CODE, px=330, fmt="png")).tobytes()


@given(st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Cc")), min_size=1, max_size=60))
@example("\u00a1")  # one Latin-1 byte that readers without ECI take for Shift-JIS
@settings(max_examples=30)
def test_any_printable_text_is_read_again(text: str) -> None:
    assert qr.decode(qr.render(text, px=300, fmt="png")) == [text]


def test_separators_survive() -> None:
    text = "8112106141410222\x1d123456"
    assert qr.decode(qr.render(text, px=300, fmt="png")) == [text]


def test_no_symbol_no_text() -> None:
    blank = io.BytesIO()
    Image.new("L", (200, 200), 255).save(blank, "PNG")
    assert qr.decode(blank.getvalue()) == []
    with pytest.raises(OSError, match="cannot identify"):
        qr.decode(b"not a picture")


@pytest.mark.parametrize("px", (0, -1, qr.PX_MAX + 1))
def test_sizes_nobody_can_use(px: int) -> None:
    with pytest.raises(ValueError, match=f"a picture {px} pixels wide"):
        qr.render(CODE, px=px, fmt="png")


def test_text_that_does_not_fit() -> None:
    secret = "Z" * 3391
    assert qr.decode(qr.render(secret, px=177 * 4, fmt="png")) == [secret]
    with pytest.raises(ValueError, match="too long") as caught:
        qr.render(secret + "Z", px=100, fmt="png")
    assert "ZZ" not in str(caught.value)
    with pytest.raises(ValueError, match="empty"):
        qr.render("", px=100, fmt="png")
