"""Frames and picture files, whole, damaged and hostile: pixels, or None, and never much memory."""

import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from devices.camera_pixels import (
    PICTURE_BYTES_MAX,
    Pixels,
    Stillness,
    luma_of_frame,
    luma_of_picture,
    points_of_frame,
)

RAMP = np.arange(64 * 48, dtype=np.uint32).reshape(48, 64).astype(np.uint8)


def picture(form: str, mode: str = "L", size: tuple[int, int] = (64, 48)) -> bytes:
    out = io.BytesIO()
    Image.fromarray(RAMP).resize(size).convert(mode).save(out, form)
    return out.getvalue()


def png_of(width: int, height: int, pixels: bytes = b"") -> bytes:
    """A PNG that claims a size, whatever is in it."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(pixels)) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("fourcc", "step", "line_bytes"), (("GREY", 1, 64), ("GREY", 1, 80), ("NV12", 1, 64), ("YUYV", 2, 128))
)
def test_raw_frames(fourcc: str, step: int, line_bytes: int) -> None:
    lines = np.full((48, line_bytes), 7, np.uint8)
    lines[:, : 64 * step : step] = RAMP
    octets, pixels = lines.tobytes(), Pixels(fourcc, 64, 48, line_bytes)
    luma, points = luma_of_frame(octets, pixels), points_of_frame(octets, pixels)
    assert luma is not None
    assert points is not None
    assert (luma == RAMP).all()
    assert (points == RAMP[::8, ::8]).all()
    assert luma_of_frame(octets[:-1], pixels) is points_of_frame(octets[:-1], pixels) is None
    assert luma_of_frame(octets, Pixels(fourcc, 64, 48, 63)) is None, "a driver that lies about its lines"


def test_jpeg_frames() -> None:
    octets, pixels = picture("JPEG", size=(640, 480)), Pixels("MJPG", 640, 480, 0)
    luma, points = luma_of_frame(octets, pixels), points_of_frame(octets, pixels)
    assert luma is not None
    assert points is not None
    assert (luma.shape, points.shape) == ((480, 640), (60, 80))
    assert luma_of_frame(octets[:2000], pixels) is None
    assert points_of_frame(b"no picture", pixels) is None


@pytest.mark.parametrize("form", ("PNG", "JPEG", "BMP", "PPM", "WEBP", "GIF"))
def test_picture_files(form: str) -> None:
    luma = luma_of_picture(picture(form, "RGB" if form == "WEBP" else "L"))
    assert luma is not None
    assert luma.shape == (48, 64)


def test_transparent_is_white() -> None:
    out = io.BytesIO()
    Image.new("RGBA", (4, 4), (0, 0, 0, 0)).save(out, "PNG")
    luma = luma_of_picture(out.getvalue())
    assert luma is not None
    assert luma.min() == 255


@pytest.mark.parametrize(
    "octets",
    (
        b"",
        b"no picture",
        b"%PDF-1.7 and more",
        picture("PNG")[:-40],
        picture("JPEG")[:-40],
        picture("GIF")[:100],
        png_of(64, 48),  # none of the pixels it claims
        png_of(60_000, 60_000, bytes(1000)),  # 3.6 gigapixels from a kilobyte
        png_of(0, 0),
        png_of(0x7FFFFFFF, 1),
        bytes(PICTURE_BYTES_MAX + 1),
    ),
)
def test_hostile_files_are_none(octets: bytes) -> None:
    assert luma_of_picture(octets) is None


def test_a_damaged_picture_is_none() -> None:
    octets = bytearray(picture("PNG"))
    octets[60] ^= 0xFF  # in the pixels: their checksum
    assert luma_of_picture(bytes(octets)) is None


@settings(max_examples=200)
@given(st.sampled_from(("PNG", "JPEG", "BMP", "GIF", "PPM", "WEBP")), st.integers(0, 400), st.binary(max_size=12))
def test_any_damage_gives_pixels_or_none(form: str, at: int, octets: bytes) -> None:
    whole = picture(form, "RGB" if form == "WEBP" else "L")
    luma = luma_of_picture(whole[:at] + octets + whole[at + len(octets) :])
    assert luma is None or luma.ndim == 2


@pytest.mark.parametrize("height_width", (0xFFFFFFFF, 0x0001FFFF, 0x0000000A, 0x00040040, 0))
def test_a_jpeg_frame_with_a_damaged_size_is_none_or_pixels(height_width: int) -> None:
    octets = bytearray(picture("JPEG", size=(64, 48)))
    at = octets.index(b"\xff\xc0") + 5  # SOF0: length, precision, then height and width
    octets[at : at + 4] = height_width.to_bytes(4, "big")
    pixels = Pixels("MJPG", 64, 48, 0)
    for luma in (points_of_frame(bytes(octets), pixels), luma_of_frame(bytes(octets), pixels)):
        assert luma is None or luma.ndim == 2


@pytest.mark.parametrize("size", ((1, 1), (1, 300), (300, 1)))
def test_tiny_pictures(size: tuple[int, int]) -> None:
    luma = luma_of_picture(picture("PNG", size=size))
    assert luma is not None
    assert luma.shape == size[::-1]


def test_noise_is_stillness_and_a_phone_is_not() -> None:
    rng = np.random.default_rng(1)
    shop = np.full((90, 160), 40, np.uint8)
    stillness = Stillness()
    assert stillness.moved(shop), "the first"
    assert not any(
        stillness.moved((shop + rng.normal(0, 5, shop.shape)).clip(0, 255).astype(np.uint8)) for _ in range(9)
    )
    shop[60:80, 100:112] = 120
    assert stillness.moved(shop)
    assert not stillness.moved(shop)
    assert stillness.moved(shop[:45]), "another size is another view"
