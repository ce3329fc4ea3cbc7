"""Screenshots against reference images: coarse in position and colour, so that other fonts pass and other states fail.

UPDATE_REFERENCES=1 draws the references anew; then look at every one of them.
"""

import io
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

REFERENCES = Path(__file__).parent / "reference"
KEPT_WIDTH = 320  # enough for a person to see what is wrong with it, and a few KiB
CELLS = 24  # across and down: a cell is larger than a letter, and smaller than an icon
DISTANCE_MAX = 0.085  # mean difference of cells, of 1; other fonts give up to 0.045, the nearest other state 0.145
Cells = np.ndarray[tuple[int, ...], np.dtype[np.float64]]


def looks_like(screenshot: bytes, size: str, state: str, states: Sequence[str]) -> None:
    """The picture is near the reference of its state, and nearer to it than to that of any other."""
    image = Image.open(io.BytesIO(screenshot)).convert("RGB")
    if os.environ.get("UPDATE_REFERENCES"):
        small = image.resize((KEPT_WIDTH, image.height * KEPT_WIDTH // image.width), Image.Resampling.LANCZOS)
        REFERENCES.mkdir(exist_ok=True)
        small.quantize(48, dither=Image.Dither.NONE).save(REFERENCES / f"{size}-{state}.png", optimize=True)
        return
    distances = {one: distance(image, Image.open(REFERENCES / f"{size}-{one}.png")) for one in states}
    nearest = min(distances, key=lambda one: distances[one])
    said = ", ".join(f"{one} {value:.3f}" for one, value in distances.items())
    assert nearest == state, f"{size} {state} looks like {nearest}: {said}"
    assert distances[state] <= DISTANCE_MAX, f"{size} {state} does not look like its reference: {said}"


def distance(one: Image.Image, other: Image.Image) -> float:
    return float(np.abs(_cells(one) - _cells(other)).mean())


def _cells(image: Image.Image) -> Cells:
    small = image.convert("RGB").resize((CELLS, CELLS), Image.Resampling.BOX)
    return np.asarray(small, dtype=np.float64) / 255
