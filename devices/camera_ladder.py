"""Codes from one picture: a ladder of readings, the cheapest first, until one gives a code. Pure.

Theory of operation. Phone screens fail in different ways, and each rung mends one of them: half size averages the
moire of two pixel grids away and is the fastest; one threshold for the whole picture (`GlobalHistogram`) reads what is
far away; full size reads what is small or under uneven light; smoothed, small codes with moire; sharpened, blur and
glare. Every rung looks for light codes on dark too (a phone in dark mode).

A code that stands alone is looked at a second time before it is taken: the picture may hold another one that this rung
could not read, and which of two vouchers is meant is not for us to guess. What looks like a symbol of about the same
size elsewhere, and cannot be read, is doubt enough. Symbologies without error correction need two rungs that agree (or
two frames, which is for whoever watches the view to see).
"""

import enum
import math
from collections.abc import Callable, Iterable, Iterator

import msgspec
import numpy as np
import zxingcpp
from numpy.typing import NDArray
from PIL import Image, ImageFilter
from zxingcpp import BarcodeFormat as Form

from devices.framing import Frame

Luma = NDArray[np.uint8]  # height x width, 0 is dark

FORMS = {  # of the configuration's symbologies
    "qr": Form.QRCode,
    "aztec": Form.Aztec,
    "datamatrix": Form.DataMatrix,
    "pdf417": Form.PDF417,
    "code128": Form.Code128,
    "code39": Form.Code39,
    "ean": Form.EANUPC,
    "databar": Form.DataBar,
}
CORRECTED = frozenset(("qr", "aztec", "datamatrix", "pdf417"))  # a damaged symbol of these is not read as another one
QUICK_PX = 640  # the longest side of the quickest rung: 5 pixels a module for a code that fills a quarter of the view
SHARPEN = ImageFilter.UnsharpMask(radius=6, percent=300, threshold=0)
SMOOTH = ImageFilter.BoxBlur(1)

# What makes an unreadable symbol another voucher and not noise: shape and size, measured on drawn screens.
SIDES_RATIO_MIN = 0.6  # shortest side to longest
SIZE_RATIO_MIN, SIZE_RATIO_MAX = 0.4, 2.0  # to the code that was read
APART_MIN = 0.8  # between centres, in sizes of that code: nearer, it is a bad reading of the same symbol


class Rung(enum.Enum):
    """In the order they are tried."""

    QUICK = "quick"
    GLOBAL = "global"
    FULL = "full"
    SMOOTH = "smooth"
    SHARP = "sharp"


RUNGS = tuple(Rung)
CAREFUL = (Rung.FULL, Rung.SMOOTH)  # the second look


class Seen(msgspec.Struct, frozen=True):
    """What one picture shows. `codes`: each once, and whether it may be taken from this picture alone."""

    codes: dict[Frame, bool] = {}
    doubt: bool = False  # something else in it looks like a code, and cannot be read
    rung: Rung | None = None  # that gave the first of them

    @property
    def is_one(self) -> bool:
        return len(self.codes) == 1 and not self.doubt


class _Place(msgspec.Struct, frozen=True):
    """A symbol in the picture: centre, size (half the sum of its diagonals, over the square root of 2), in pixels."""

    x: float
    y: float
    size: float
    sides_ratio: float


class Ladder:
    """Reads pictures for some symbologies. Keeps nothing between them."""

    def __init__(self, symbologies: tuple[str, ...]) -> None:
        self._forms = zxingcpp.BarcodeFormats([FORMS[name] for name in symbologies])
        self._has_linear = not CORRECTED.issuperset(symbologies)
        self._corrected = tuple(FORMS[name] for name in symbologies if name in CORRECTED)

    def read(self, luma: Luma, *, up_to: Rung = Rung.SHARP, known: frozenset[Frame] = frozenset()) -> Seen:
        """Climb until a rung gives a code, `up_to` the last. What is `known` needs no second look."""
        for rung in RUNGS[: RUNGS.index(up_to) + 1]:
            codes = {frame: sure for frame, sure, _ in self._codes(luma, rung)}
            if len(codes) > 1 or (codes and known.issuperset(codes)):
                return Seen(codes, rung=rung)
            if codes:
                return self._with_second_look(luma, rung)
        return Seen()

    def read_rung(self, luma: Luma, rung: Rung) -> list[Frame]:
        """What one rung alone gives."""
        return [frame for frame, _, _ in self._codes(luma, rung)]

    def _with_second_look(self, luma: Luma, first: Rung) -> Seen:
        read = list(self._codes(luma, first))
        unread: list[_Place] = []
        for rung in CAREFUL:
            symbols = list(self._symbols(luma, rung, with_errors=True))
            if rung is not first:
                read += self._distinct(symbols)
            unread += [_place(symbol, scale) for symbol, scale in symbols if _is_unread(symbol)]
        codes: dict[Frame, bool] = {}
        for frame, sure, _ in read:
            codes[frame] = sure or frame in codes  # twice read, by two rungs
        (_, _, place), *_ = read
        return Seen(codes, any(_is_another(other, place) for other in unread), first)

    def _codes(self, luma: Luma, rung: Rung) -> Iterator[tuple[Frame, bool, _Place]]:
        return self._distinct(self._symbols(luma, rung, with_errors=False))

    def _distinct(self, symbols: Iterable[tuple[zxingcpp.Barcode, float]]) -> Iterator[tuple[Frame, bool, _Place]]:
        seen: set[Frame] = set()
        for symbol, scale in symbols:
            frame = Frame(symbol.bytes, symbol.symbology_identifier)
            if symbol.valid and frame.octets and frame not in seen:
                seen.add(frame)
                yield frame, symbol.symbology in self._corrected, _place(symbol, scale)

    def _symbols(self, luma: Luma, rung: Rung, *, with_errors: bool) -> Iterator[tuple[zxingcpp.Barcode, float]]:
        prepare, binarizer, downscale = _RUNGS[rung]
        prepared, scale = prepare(luma)
        for symbol in zxingcpp.read_barcodes(
            prepared,
            formats=self._forms,
            binarizer=binarizer,
            text_mode=zxingcpp.TextMode.Plain,
            try_rotate=self._has_linear,  # matrix symbols are found in any direction
            try_downscale=downscale,
            try_invert=True,
            return_errors=with_errors,
        ):
            yield symbol, scale


def _as_it_is(luma: Luma) -> tuple[Luma, float]:
    return luma, 1


def _shrunk(luma: Luma) -> tuple[Image.Image, float]:
    factor = max(2, math.ceil(max(luma.shape) / QUICK_PX))
    return Image.fromarray(luma).reduce(factor), factor


def _filtered(by: ImageFilter.MultibandFilter) -> Callable[[Luma], tuple[Image.Image, float]]:
    return lambda luma: (Image.fromarray(luma).filter(by), 1)


_RUNGS = {  # how to prepare the picture, and how zxing is to read it: the threshold, and whether at smaller scales too
    Rung.QUICK: (_shrunk, zxingcpp.Binarizer.LocalAverage, False),
    Rung.GLOBAL: (_as_it_is, zxingcpp.Binarizer.GlobalHistogram, False),
    Rung.FULL: (_as_it_is, zxingcpp.Binarizer.LocalAverage, True),
    Rung.SMOOTH: (_filtered(SMOOTH), zxingcpp.Binarizer.LocalAverage, False),
    Rung.SHARP: (_filtered(SHARPEN), zxingcpp.Binarizer.LocalAverage, False),
}


def _is_unread(symbol: zxingcpp.Barcode) -> bool:
    """Found as a symbol, with more damage than its error correction mends. Other errors are of things that are none."""
    return bool(symbol.error and symbol.error.type == zxingcpp.ErrorType.Checksum)


def _place(symbol: zxingcpp.Barcode, scale: float) -> _Place:
    at = symbol.position
    corners = [(p.x * scale, p.y * scale) for p in (at.top_left, at.top_right, at.bottom_right, at.bottom_left)]
    sides = [math.dist(corners[n], corners[n - 1]) for n in range(4)]
    diagonals = math.dist(corners[0], corners[2]) + math.dist(corners[1], corners[3])
    x, y = (sum(axis) / 4 for axis in zip(*corners, strict=True))
    return _Place(x, y, diagonals / 2 / math.sqrt(2), min(sides) / max(1.0, *sides))


def _is_another(other: _Place, read: _Place) -> bool:
    size = max(1.0, read.size)
    apart = math.dist((other.x, other.y), (read.x, read.y)) / size
    alike = SIZE_RATIO_MIN < other.size / size < SIZE_RATIO_MAX
    return apart > APART_MIN and alike and other.sides_ratio > SIDES_RATIO_MIN
