"""The demo's camera: phones held before it, as picture files in a directory that the terminal reads."""

import asyncio
import io
from pathlib import Path

from PIL import Image, ImageOps

from gateway import qr
from gateway.demo_children import until
from gateway.demo_scanners import Use

VIEW_PX = 360  # a small camera, of whose picture the code fills half
CODE_PX = 165  # five pixels a module of a signed code
TURNS_DEG = (-8, 3, 11, 0, -14, 6)  # no hand holds a phone straight
PAGE, PAGE_IN_DARK_MODE = 235, 20


class PhonesOnCamera:
    """Every second phone is in dark mode. The terminal removes a picture once its scan is in the journal: its ACK."""

    kind = "camera, pictures of phones"
    waits_for_ack, sounds_verdicts = True, False

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._reads = self._acks = 0

    def configuration(self, name: str) -> str:
        """Its block in `terminal.toml`; the directory is made."""
        self._directory.mkdir()
        return f'\n[[scanners]]\nname = "{name}"\nkind = "camera"\npath = "{self._directory}"\n'

    async def show(self, code: str) -> None:
        """Hold a phone before it; returns when it was read. Raises DemoFailed."""
        self._reads += 1
        turn_deg = TURNS_DEG[self._reads % len(TURNS_DEG)]
        octets = await asyncio.to_thread(phone, code, dark_mode=self._reads % 2 == 0, turn_deg=turn_deg)
        picture = self._directory / f"{self._reads:04}.jpg"
        hidden = self._directory / f".{picture.name}"
        await asyncio.to_thread(hidden.write_bytes, octets)
        hidden.rename(picture)
        await until(lambda: not picture.exists(), f"{picture} to be read")
        self._acks += 1

    def used(self) -> Use:
        return Use(
            kind=self.kind,
            waits_for_ack=self.waits_for_ack,
            sounds_verdicts=self.sounds_verdicts,
            reads=self._reads,
            sent_again=0,
            acks=self._acks,
            verdicts=dict.fromkeys(("good", "bad", "wait"), 0),
        )

    def unplug(self) -> None:
        """The camera is the terminal's own: nothing is left open here."""


def phone(code: str, *, dark_mode: bool, turn_deg: float) -> bytes:
    """A JPEG file of a phone that shows a code, turned."""
    with Image.open(io.BytesIO(qr.render(code, px=CODE_PX, fmt="png"))) as symbol:
        drawn = symbol.convert("L")
    page = PAGE_IN_DARK_MODE if dark_mode else PAGE
    view = Image.new("L", (VIEW_PX, VIEW_PX), page)
    at = (VIEW_PX - drawn.width) // 2
    view.paste(ImageOps.invert(drawn) if dark_mode else drawn, (at, at))
    out = io.BytesIO()
    view.rotate(turn_deg, Image.Resampling.BILINEAR, fillcolor=page).save(out, "JPEG")
    return out.getvalue()
