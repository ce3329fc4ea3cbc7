"""Brightness from what cameras and files hold: raw frames, JPEG frames, picture files. Bytes in, pixels out."""

import io

import msgspec
import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from devices.camera_ladder import Luma

PICTURE_BYTES_MAX = 32 << 20  # a phone's largest photograph; more is no picture of a voucher
PICTURE_PIXELS_MAX = 50_000_000  # 50 megapixels, the largest sensor in common phones: 50 MB as brightness
PICTURE_KINDS = ("PNG", "JPEG", "BMP", "PPM", "WEBP", "GIF")  # what needs no other program and has no pages
# Unusable content comes as any of these, by kind and by damage (Pillow documents only the first two).
PICTURE_ERRORS = (
    *(UnidentifiedImageError, OSError, SyntaxError, ValueError, IndexError, EOFError, MemoryError, ZeroDivisionError),
    *(Image.DecompressionBombError, Image.DecompressionBombWarning),
)
POINT_PX = 8  # a phone covers hundreds of such points; a picture of 1280x720 has 14,400 of them
MOVED_LIGHT = 24  # of 255: more than a sensor's noise in a dark shop moves a point by, less than a dim screen's edge
MOVED_SHARE = 0.004  # of the points: a phone that comes into a corner of the view moves more


class Pixels(msgspec.Struct, frozen=True):
    """How a camera lays out its frames. `line_bytes` includes what the driver pads."""

    fourcc: str
    width: int
    height: int
    line_bytes: int


FOURCCS = ("GREY", "NV12", "YUYV", "MJPG", "JPEG")  # in the order we would have them: least work first
LUMA_BYTES = {"GREY": 1, "NV12": 1, "YUYV": 2}  # from one pixel's brightness to the next one's


def luma_of_frame(octets: bytes | memoryview, pixels: Pixels) -> Luma | None:
    """The brightness of every pixel; None when the frame is damaged or not whole."""
    step = LUMA_BYTES.get(pixels.fourcc)
    if step is None:
        return luma_of_picture(bytes(octets))
    lines = _lines(octets, pixels, step)
    return None if lines is None else np.ascontiguousarray(lines[:, : pixels.width * step : step])


def luma_of_picture(octets: bytes) -> Luma | None:
    """Of a whole picture file; None when it is damaged, cut off, too large or none at all."""
    if len(octets) > PICTURE_BYTES_MAX:
        return None
    try:
        with Image.open(io.BytesIO(octets), formats=PICTURE_KINDS) as picture:
            if picture.width * picture.height > PICTURE_PIXELS_MAX:
                return None  # by its header: nothing was unpacked
            return _luma_of(picture)
    except PICTURE_ERRORS:
        return None


def points_of_frame(octets: bytes | memoryview, pixels: Pixels) -> Luma | None:
    """A few points of a frame, cheaply: enough to see whether anything moves. None: damaged or not whole."""
    step = LUMA_BYTES.get(pixels.fourcc)
    if step is None:
        return _points_of_jpeg(octets)
    lines = _lines(octets, pixels, step)
    return None if lines is None else lines[::POINT_PX, : pixels.width * step : step * POINT_PX]


class Stillness:
    """Whether the view has changed since it last had."""

    def __init__(self) -> None:
        self._former: NDArray[np.int16] | None = None

    def moved(self, points: Luma) -> bool:
        """True also for the first ones. Slow light, like a cloud's, is compared with what is long ago, and seen too."""
        now = points.astype(np.int16)
        former = self._former
        if former is not None and former.shape == now.shape:
            changed = np.count_nonzero(np.abs(now - former) > MOVED_LIGHT)
            if changed <= MOVED_SHARE * now.size:
                return False
        self._former = now
        return True


def _lines(octets: bytes | memoryview, pixels: Pixels, step: int) -> Luma | None:
    needed = pixels.line_bytes * pixels.height
    if len(octets) < needed or pixels.line_bytes < pixels.width * step:
        return None
    return np.frombuffer(octets, np.uint8, needed).reshape(pixels.height, pixels.line_bytes)


def _points_of_jpeg(octets: bytes | memoryview) -> Luma | None:
    try:
        with Image.open(io.BytesIO(octets), formats=("JPEG",)) as picture:
            picture.draft("L", (picture.width // POINT_PX, picture.height // POINT_PX))  # decoded at an eighth
            return np.asarray(picture.convert("L"), np.uint8)
    except PICTURE_ERRORS:
        return None


def _luma_of(picture: Image.Image) -> Luma:
    if picture.mode in ("LA", "PA", "RGBA") or "transparency" in picture.info:
        white = Image.new("RGBA", picture.size, "white")  # codes are drawn dark on nothing
        return np.asarray(Image.alpha_composite(white, picture.convert("RGBA")).convert("L"), np.uint8)
    return np.asarray(picture.convert("L"), np.uint8)
