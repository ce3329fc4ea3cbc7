"""Phone screens as a till's camera sees them, drawn with their ground truth: every condition, seeded, nothing stored.

A picture is made in the order light takes: the page on the phone (code, words, dark mode), its glass (brightness,
glare, the pixel grid), the way to the camera (distance, turn, tilt), then lens and sensor (blur, noise, resolution).
"""

import random
from collections.abc import Callable, Sequence

import msgspec
import numpy as np
import zxingcpp
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

WIDTH, HEIGHT = 1280, 720
ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUV"  # of a signed code
QUIET_MODULES = 4
PAGE_PX_A_MODULE = 8  # on the phone, before the way to the camera
Luma = NDArray[np.uint8]


class Look(msgspec.Struct, frozen=True, kw_only=True):
    """One picture. Lengths are in modules of the code unless they are called px, light is 0 to 1."""

    codes: int = 1
    module_px: float = 6.0  # in the camera's picture
    dark_mode: bool = False
    white: float = 0.85  # of the screen, as the sensor sees it
    black: float = 0.06
    turn_deg: float = 0.0
    tilt: float = 0.0  # how much shorter the far side is
    blur: float = 0.15  # standard deviation
    motion: float = 0.0  # length of the smear
    glare: float = 0.0  # radius of a lamp's reflection, as a share of the code's width
    moire_px: float = 0.0  # period of the beat between the two pixel grids
    noise: float = 0.015
    covered: float = 0.0  # share of the code's width under a finger, from a corner without finder pattern


class Picture(msgspec.Struct, frozen=True):
    luma: Luma
    codes: tuple[str, ...]  # what is really in view


class Condition(msgspec.Struct, frozen=True):
    name: str
    look: Callable[[random.Random], Look]


def _spread(rng: random.Random, **fixed: float | bool) -> Look:
    """A hand never holds a phone twice the same way."""
    look = Look(
        module_px=rng.uniform(4.5, 8),
        turn_deg=rng.uniform(-12, 12),
        tilt=rng.uniform(0, 0.08),
        white=rng.uniform(0.7, 0.95),
        blur=rng.uniform(0.08, 0.22),
    )
    return msgspec.structs.replace(look, **fixed)


CONDITIONS = (
    Condition("bright, held well", _spread),
    Condition("dark mode (inverted)", lambda r: _spread(r, dark_mode=True)),
    Condition("dim screen", lambda r: _spread(r, white=r.uniform(0.16, 0.28), black=0.08, noise=0.02)),
    Condition("dark mode, dim", lambda r: _spread(r, dark_mode=True, white=r.uniform(0.2, 0.3), black=0.07)),
    Condition("overexposed", lambda r: _spread(r, white=r.uniform(1.3, 1.9), black=0.35)),
    Condition("glare of a lamp", lambda r: _spread(r, glare=r.uniform(0.15, 0.35))),
    Condition("moire, period 2.2-5 px", lambda r: _spread(r, moire_px=r.uniform(2.2, 5))),
    Condition("moire on a small code", lambda r: _spread(r, moire_px=r.uniform(2.2, 4), module_px=r.uniform(3, 4))),
    Condition("any rotation", lambda r: _spread(r, turn_deg=r.uniform(0, 360))),
    Condition("tilted", lambda r: _spread(r, tilt=r.uniform(0.2, 0.4))),
    Condition("out of focus", lambda r: _spread(r, blur=r.uniform(0.4, 0.6))),
    Condition("moving hand", lambda r: _spread(r, motion=r.uniform(0.8, 1.4))),
    Condition("far away (2.2-3 px a module)", lambda r: _spread(r, module_px=r.uniform(2.2, 3))),
    Condition("very close (16-19 px a module)", lambda r: _spread(r, module_px=r.uniform(16, 19), tilt=0.02)),
    Condition("noisy sensor", lambda r: _spread(r, noise=r.uniform(0.08, 0.12))),
    Condition("finger over a corner", lambda r: _spread(r, covered=r.uniform(0.15, 0.25))),
    Condition(
        "several at once",
        lambda r: _spread(r, dark_mode=r.random() < 0.5, white=0.4, noise=0.04, glare=0.12, turn_deg=r.uniform(0, 360)),
    ),
)
TWO_IN_VIEW = Condition("two vouchers in view", lambda r: _spread(r, codes=2, module_px=r.uniform(4, 6)))
TWO_UNLIKE = Condition(
    "two, one of them hard", lambda r: _spread(r, codes=2, module_px=r.uniform(3, 5), glare=0.3, noise=0.05)
)
NOTHING = Condition("no code: page and moire", lambda r: _spread(r, codes=0, moire_px=r.choice((0, r.uniform(2.2, 6)))))
WITHOUT_ONE_CODE = (TWO_IN_VIEW, TWO_UNLIKE, NOTHING)


def a_code(rng: random.Random) -> str:
    """As long as a signed code: version 2 of a QR symbol, level M."""
    return "".join(rng.choices(ALPHABET, k=30))


def picture(condition: Condition, seed: int) -> Picture:
    """The same seed gives the same picture."""
    rng = random.Random(f"{condition.name} {seed}")
    look = condition.look(rng)
    codes = tuple(a_code(rng) for _ in range(look.codes))
    return Picture(draw(codes, look, rng), codes)


def symbol(text: str, form: zxingcpp.BarcodeFormat = zxingcpp.BarcodeFormat.QRCode, scale: int = 1) -> Luma:
    """The modules of a symbol, with its quiet zone: 0 is dark, 255 light."""
    made = zxingcpp.create_barcode(text, form, ec_level="M") if form == zxingcpp.BarcodeFormat.QRCode else None
    return np.asarray((made or zxingcpp.create_barcode(text, form)).to_image(scale=scale), np.uint8)


def draw(codes: Sequence[str], look: Look, rng: random.Random) -> Luma:
    page = _page([symbol(code) for code in codes], look, rng)
    if look.glare:
        page = _with_glare(page, look, rng)
    scene = _projected(page, look, rng)
    light = np.asarray(scene, np.float32)
    if look.moire_px:
        light = light * _beat(look.moire_px, rng)
    light = _through_lens(light, look, rng)
    return np.clip(light, 0, 255).astype(np.uint8)


# --- the phone --------------------------------------------------------------------------------------------------------


def _page(symbols: Sequence[Luma], look: Look, rng: random.Random) -> Image.Image:
    """A wallet app: a title, one card under the other (or side by side), lines of text. Mode F, light times 255."""
    side = (symbols[0].shape[0] if symbols else 33) * PAGE_PX_A_MODULE
    wide = len(symbols) == 2 and rng.random() < 0.5
    across, down = (2, 1) if wide else (1, max(1, len(symbols)))
    page = Image.new("L", (across * side + 60, down * (side + 40) + 160), 255)
    pen = ImageDraw.Draw(page)
    for line in range(3):
        _words(pen, 30, 16 + 24 * line, page.width - 60, rng)
    for n, modules in enumerate(symbols):
        card = Image.fromarray(modules).resize((side, side), Image.Resampling.NEAREST)
        x, y = 30 + n * across // 2 * side, 90 + (0 if wide else n) * (side + 40)
        page.paste(_covered(card, look, rng), (x, y))
    _words(pen, 30, page.height - 40, page.width - 60, rng)
    light = Image.eval(page, (lambda v: 255 - v) if look.dark_mode else (lambda v: v)).convert("F")
    return light.point(lambda v: v * (look.white - look.black) + 255 * look.black)


def _words(pen: ImageDraw.ImageDraw, x: int, y: int, width: int, rng: random.Random) -> None:
    """Strokes as dense as text is, or as a barcode would be."""
    end = x + width * rng.uniform(0.4, 1)
    while x < end:
        stroke = rng.randint(1, 4)
        pen.rectangle((x, y + rng.randint(0, 4), x + stroke, y + 14), fill=rng.randint(0, 90))
        x += stroke + rng.randint(2, 7)


def _covered(card: Image.Image, look: Look, rng: random.Random) -> Image.Image:
    if look.covered:
        reach = card.width * look.covered
        corner = card.width - QUIET_MODULES * PAGE_PX_A_MODULE  # bottom right: the one without a finder pattern
        box = (corner - reach, corner - reach, corner + reach, corner + reach)
        ImageDraw.Draw(card).ellipse(box, fill=rng.randint(90, 160))
    return card


def _with_glare(page: Image.Image, look: Look, rng: random.Random) -> Image.Image:
    """A lamp in the glass: white in its middle, with a soft rim. It adds light, it hides nothing behind it evenly."""
    lamp = Image.new("L", page.size, 0)
    radius = look.glare * min(page.size) / 2
    x, y = rng.uniform(0.25, 0.75) * page.width, rng.uniform(0.25, 0.75) * page.height
    ImageDraw.Draw(lamp).ellipse((x - radius, y - radius, x + radius, y + radius), fill=230)
    lamp = lamp.filter(ImageFilter.GaussianBlur(radius / 3))
    return Image.fromarray(np.asarray(page, np.float32) + np.asarray(lamp, np.float32))


# --- the way to the camera, lens and sensor ---------------------------------------------------------------------------


def _projected(page: Image.Image, look: Look, rng: random.Random) -> Image.Image:
    """The page in the camera's picture, before a shop that is darker than the screen."""
    scale = look.module_px / PAGE_PX_A_MODULE
    half = np.array(page.size) * scale / 2
    corners = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)]) * half
    corners[:2, 0] *= 1 - look.tilt
    corners[:2, 1] *= 1 - look.tilt / 2
    turn = np.deg2rad(look.turn_deg)
    corners = corners @ np.array([(np.cos(turn), np.sin(turn)), (-np.sin(turn), np.cos(turn))])
    room = np.maximum(0, np.array((WIDTH, HEIGHT)) / 2 - np.abs(corners).max(axis=0) - 4)
    corners += np.array((WIDTH, HEIGHT)) / 2 + room * (rng.uniform(-0.8, 0.8), rng.uniform(-0.8, 0.8))
    # A sensor's pixel takes in all the light of its area; what would be sampled from points only would alias.
    shrunk = Image.fromarray(_blurred(np.asarray(page, np.float32), max(0.0, 0.4 / scale - 0.4)))
    to_page = _perspective(corners, page.size)
    seen = shrunk.transform((WIDTH, HEIGHT), Image.Transform.PERSPECTIVE, to_page, Image.Resampling.BILINEAR)
    inside = Image.new("L", page.size, 255)
    mask = inside.transform((WIDTH, HEIGHT), Image.Transform.PERSPECTIVE, to_page, Image.Resampling.BILINEAR)
    shop = _shop(rng)
    shop.paste(seen, mask=mask)
    return shop


def _perspective(corners: NDArray[np.float64], size: tuple[int, int]) -> list[float]:
    """The eight coefficients with which Pillow finds each picture point on the page."""
    rows, wanted = [], []
    for (x, y), (u, v) in zip(corners, [(0, 0), (size[0], 0), size, (0, size[1])], strict=True):
        rows += [(x, y, 1, 0, 0, 0, -u * x, -u * y), (0, 0, 0, x, y, 1, -v * x, -v * y)]
        wanted += [u, v]
    return [float(c) for c in np.linalg.solve(np.array(rows, float), np.array(wanted, float))]


def _shop(rng: random.Random) -> Image.Image:
    shop = Image.new("L", (WIDTH, HEIGHT), rng.randint(20, 70))
    pen = ImageDraw.Draw(shop)
    for _ in range(25):
        x, y = rng.randint(-100, WIDTH), rng.randint(-100, HEIGHT)
        pen.rectangle((x, y, x + rng.randint(20, 300), y + rng.randint(20, 300)), fill=rng.randint(10, 130))
    return shop.filter(ImageFilter.GaussianBlur(4)).convert("F")


def _beat(period_px: float, rng: random.Random) -> Luma:
    """Two gratings, as the rows and columns of a screen leave them in a sensor whose pixels are nearly as large."""
    turn = rng.uniform(-0.15, 0.15)
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH].astype(np.float32)
    across, down = x * np.cos(turn) + y * np.sin(turn), y * np.cos(turn) - x * np.sin(turn)
    waves = np.cos(2 * np.pi * across / period_px) + np.cos(2 * np.pi * down / (period_px * rng.uniform(0.9, 1.3)))
    return 1 + 0.28 * waves


def _through_lens(light: NDArray[np.float32], look: Look, rng: random.Random) -> NDArray[np.float32]:
    seen = _blurred(light, look.blur * look.module_px)
    if look.motion:
        steps, axis = max(2, round(look.motion * look.module_px)), rng.randint(0, 1)
        seen = np.mean([np.roll(seen, n, axis) for n in range(steps)], axis=0, dtype=np.float32)
    grain = np.random.default_rng(rng.getrandbits(32)).normal(0, look.noise * 255, (HEIGHT, WIDTH))
    return seen + grain.astype(np.float32)


def _blurred(light: NDArray[np.float32], sigma_px: float) -> NDArray[np.float32]:
    """Gaussian blur of brightness that may exceed what a picture file can hold."""
    if sigma_px < 0.1:
        return light
    reach = int(np.ceil(3 * sigma_px))
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma_px) ** 2).astype(np.float32)
    for axis in (0, 1):
        padded = np.pad(light, [(reach, reach) if axis == a else (0, 0) for a in (0, 1)], "edge")
        parts = [np.take(padded, range(n, n + light.shape[axis]), axis) * w for n, w in enumerate(weights)]
        light = np.sum(parts, axis=0) / weights.sum()
    return light
