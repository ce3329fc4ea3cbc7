"""QR pictures of codes, drawn and read by zxing-cpp; PNG by Pillow."""

import io
from typing import Literal, overload

import zxingcpp
from PIL import Image

PHONE_PX = 600  # about 3 cm on a phone of today: 18 pixels a module for a signed code
PX_MAX = 4096  # wider than any screen; a slip of the keyboard must not fill the memory
_QR_ONLY = zxingcpp.BarcodeFormats(zxingcpp.BarcodeFormat.QRCode)


@overload
def render(text: str, *, px: int = PHONE_PX, fmt: Literal["png"]) -> bytes: ...
@overload
def render(text: str, *, px: int = PHONE_PX, fmt: Literal["svg"]) -> str: ...
def render(text: str, *, px: int = PHONE_PX, fmt: Literal["png", "svg"]) -> bytes | str:
    """A QR symbol (ISO/IEC 18004, level M, quiet zone of 4 modules), as PNG bytes or SVG text.

    At least `px` pixels wide; every module is the same whole number of pixels, so that no screen blurs its
    edges. A signed code is version 2: 33 modules with the quiet zone. ValueError if `px` is not in 1-4096, or
    the text is empty or more than version 40 holds at level M (2,331 bytes; 3,391 of the alphanumeric set).
    """
    if not 1 <= px <= PX_MAX:
        raise ValueError(f"a picture {px} pixels wide: only 1-{PX_MAX} can be drawn")
    charset = {} if text.isascii() else {"eci": "UTF-8"}  # without it Latin-1 bytes are read as Shift-JIS
    symbol = zxingcpp.create_barcode(text, zxingcpp.BarcodeFormat.QRCode, ec_level="M", **charset)
    modules = symbol.to_image(scale=1).shape[0]
    scale = -(-px // modules)
    return symbol.to_svg(scale=scale) if fmt == "svg" else _png(symbol.to_image(scale=scale))


def decode(picture: bytes) -> list[str]:
    """The text of every QR symbol in a picture file, separators kept. OSError if it is no picture."""
    with Image.open(io.BytesIO(picture)) as image:
        found = zxingcpp.read_barcodes(image.convert("L"), formats=_QR_ONLY, text_mode=zxingcpp.TextMode.Plain)
    return [symbol.text for symbol in found]


def _png(pixels: zxingcpp.Image) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).convert("1", dither=Image.Dither.NONE).save(out, "PNG")
    return out.getvalue()
