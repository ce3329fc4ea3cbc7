"""The shipped camera scanner on a real directory, and on paths that are no camera; then a whole till with it."""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import phone_screens
import psutil
import pytest
from PIL import Image
from scripted_gateway import SILENT, ScriptedGateway
from till_bench import TillBench, until

from devices.camera import CameraScanner
from devices.config import CameraConfig
from devices.framing import FaultReason, Frame, FrameFault, Signal
from devices.scanner import Feedback, Settle, State
from gateway.messages import Verdict

IDLE_S, IDLE_SHARE_MAX = 1.0, 0.05  # of a core, on a machine that may be busy: 0.005 when it is not


class Bench:
    """A camera scanner that runs, and everything it told."""

    def __init__(self, path: Path) -> None:
        self.found: list[Frame | FrameFault] = []
        self.ports: list[str | None] = []
        self.keeps = True
        self.scanner = CameraScanner(CameraConfig("cam", str(path)), self._on_read, self._on_port)

    def _on_read(self, name: str, found: Frame | FrameFault, settle: Settle) -> None:
        assert name == "cam"
        self.found.append(found)
        settle(self.keeps and isinstance(found, Frame))

    def _on_port(self, name: str, lost: str | None) -> None:
        self.ports.append(lost)

    @property
    def codes(self) -> list[str]:
        return [one.octets.decode() if isinstance(one, Frame) else one.reason.value for one in self.found]


@asynccontextmanager
async def running(path: Path) -> AsyncIterator[Bench]:
    bench = Bench(path)
    task = asyncio.create_task(bench.scanner.run())
    try:
        yield bench
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert bench.scanner.state is State.CLOSED


def png(path: Path, *codes: str) -> bytes:
    """A picture of codes side by side, put in place at once."""
    pixels = np.hstack([phone_screens.symbol(code, scale=4) for code in codes] or [np.full((80, 80), 255, np.uint8)])
    hidden = path.with_name(f".{path.name}")
    Image.fromarray(pixels).save(hidden, "PNG")
    hidden.rename(path)
    return path.read_bytes()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "pictures"
    made.mkdir()
    return made


def names(folder: Path) -> list[str]:
    return sorted(one.name for one in folder.iterdir())


async def test_each_picture_is_a_scan_in_its_order_and_leaves_when_it_is_kept(folder: Path) -> None:
    for n in range(3):
        png(folder / f"{3 - n}.png", f"EARLY-{n}")
    async with running(folder) as bench:
        await until(lambda: not names(folder), lambda: f"no picture left: {names(folder)}, {bench.ports}")
        assert bench.codes == ["EARLY-0", "EARLY-1", "EARLY-2"]
        assert all(isinstance(one, Frame) and one.resent and one.aim == "]Q1" for one in bench.found)
        png(folder / "4.png", "LATE")
        await until(lambda: not names(folder))
        assert bench.found[3:] == [Frame(b"LATE", "]Q1")], "it was not there before us"
        png(folder / "5.PNG", "LATE")
        await until(lambda: not names(folder))
        counts = bench.scanner.statistics
        assert (counts.reads, counts.resent, counts.frames, counts.opened) == (5, 3, 5, 1)
        assert bench.scanner.state is State.READY
        assert bench.scanner.feedback(Signal.GOOD) is Feedback.UNSUPPORTED


async def test_what_is_no_scan_is_told_and_set_aside(folder: Path) -> None:
    async with running(folder) as bench:
        png(folder / "a.png")
        await until(lambda: names(folder) == ["a.png.unread"])
        png(folder / "b.png", "ONE", "TWO")
        await until(lambda: names(folder) == ["a.png.unread", "b.png.unread"])
        png(folder / "c.png", "1" * 5000)
        await until(lambda: names(folder)[2:] == ["c.png.unread"])
        png(folder / "d.png", "   ")
        await until(lambda: names(folder)[3:] == ["d.png.unread"])
        await until(lambda: len(bench.found) == 4)
        assert bench.codes == ["no_code", "several", "too_long", "empty"]
        assert bench.scanner.statistics.faults == dict.fromkeys(
            (FaultReason.NO_CODE, FaultReason.SEVERAL, FaultReason.TOO_LONG, FaultReason.EMPTY), 1
        )


async def test_a_picture_is_read_when_it_is_whole(folder: Path, tmp_path: Path) -> None:
    octets = png(tmp_path / "whole.png", "CODE")
    async with running(folder) as bench:
        with (folder / "a.png").open("wb", buffering=0) as file:
            for at in range(0, len(octets), 200):
                assert not bench.found or at > len(octets) - 200, "only its very end says no more of the pixels"
                file.write(octets[at : at + 200])
                await asyncio.sleep(0.03)  # longer than it takes to look once
        await until(lambda: not names(folder))
        assert bench.codes == ["CODE"]


async def test_a_file_that_never_becomes_a_picture_holds_nothing_up(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("devices.picture_folder.STALLED_S", 0.5)
    (folder / "a.png").write_bytes(b"half a pict")
    os.utime(folder / "a.png", (1, 1))  # older than the next, and so first
    async with running(folder) as bench:
        png(folder / "b.png", "CODE")
        await until(lambda: names(folder) == ["a.png.unread"])
        await until(lambda: bench.codes == ["CODE", "not_a_picture"])


async def test_only_pictures_are_touched(folder: Path) -> None:
    kept = ["notes.txt", ".hidden.png", "a.png.unread", "later.png.part"]
    for name in kept:
        (folder / name).write_bytes(b"mine")
    (folder / "directory.png").mkdir()
    os.mkfifo(folder / "fifo.png")
    (folder / "link.png").symlink_to(folder / "notes.txt")
    async with running(folder) as bench:
        png(folder / "b.png", "CODE")
        await until(lambda: bench.codes == ["CODE"])
        await until(lambda: not (folder / "b.png").exists())
    assert names(folder) == sorted([*kept, "directory.png", "fifo.png", "link.png"])


async def test_what_the_journal_does_not_take_stays_and_is_tried_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("devices.camera.RETRY_S", 0.02)
    async with running(folder) as bench:
        bench.keeps = False
        png(folder / "a.png", "CODE")
        await until(lambda: len(bench.found) >= 3)
        assert names(folder) == ["a.png"]
        bench.keeps = True
        await until(lambda: not names(folder))
        assert set(bench.codes) == {"CODE"}
        assert bench.scanner.statistics.refused == len(bench.found) - 1


@pytest.mark.skipif(os.geteuid() == 0, reason="root may remove any file")
async def test_a_directory_that_keeps_its_files_is_named(folder: Path) -> None:
    os.chmod(folder, 0o500)
    try:
        async with running(folder) as bench:
            await until(lambda: bool(bench.ports))
            assert "write permission" in str(bench.ports)
    finally:
        os.chmod(folder, 0o700)


async def test_a_picture_that_will_not_go_is_read_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stuck = True

    def unlink(path: Path, missing_ok: bool = False) -> None:
        if stuck:
            raise PermissionError(1, "Operation not permitted", str(path))
        os.unlink(path)

    monkeypatch.setattr(Path, "unlink", unlink)  # an immutable file, or another user's in a sticky directory
    png(folder / "a.png", "CODE")
    async with running(folder) as bench:
        await until(lambda: bench.ports.count("Operation not permitted") >= 1)
        await until(lambda: bench.scanner.statistics.opened >= 3)
        assert bench.codes == ["CODE"]
        stuck = False
        await until(lambda: not names(folder))
        assert bench.codes == ["CODE"]


async def test_a_directory_comes_and_goes(folder: Path) -> None:
    os.rmdir(folder)
    async with running(folder) as bench:
        await until(lambda: bench.ports == ["No such file or directory"])
        assert bench.scanner.state is State.LOST
        os.mkdir(folder)
        await until(lambda: bench.ports[-1] is None)
        os.rmdir(folder)
        await until(lambda: bench.ports == ["No such file or directory", None, "No such file or directory"])


async def test_what_is_no_camera_is_named(tmp_path: Path) -> None:
    plain = tmp_path / "video0"
    plain.write_bytes(b"")
    for path in (Path("/dev/null"), plain):
        async with running(path) as bench:
            await until(lambda: bool(bench.ports))
            assert "is no camera" in str(bench.ports)


async def test_waiting_costs_next_to_nothing(folder: Path) -> None:
    async with running(folder) as bench:
        await until(lambda: bench.scanner.state is State.READY)
        process = psutil.Process()
        before = sum(process.cpu_times()[:2])
        began_s = time.monotonic()
        await asyncio.sleep(IDLE_S)
        used = sum(process.cpu_times()[:2]) - before
        assert used / (time.monotonic() - began_s) < IDLE_SHARE_MAX


# --- a whole till -----------------------------------------------------------------------------------------------------


@pytest.fixture
def till(tmp_path: Path) -> Iterator[TillBench]:
    with TillBench(tmp_path) as bench:
        yield bench


@pytest.fixture
async def gateway(till: TillBench) -> AsyncIterator[ScriptedGateway]:
    async with ScriptedGateway(till.public_key) as scripted:
        yield scripted


def with_camera(till: TillBench, gateway: ScriptedGateway, folder: Path) -> None:
    till.configure(gateway.url)
    text = till.config.read_text()
    head = text[: text.index("[[scanners]]")]
    till.config.write_text(f'{head}[[scanners]]\nname = "cam"\nkind = "camera"\npath = "{folder}"\n')


async def test_a_till_reads_phone_screens_from_a_directory(
    till: TillBench, gateway: ScriptedGateway, folder: Path
) -> None:
    with_camera(till, gateway, folder)
    pictures = [phone_screens.picture(one, 1) for one in phone_screens.CONDITIONS[:3]]
    gateway.verdict_of = {pictures[1].codes[0]: Verdict.EXPIRED}
    till.start()
    await till.until_shown("connected to the gateway")
    for n, picture in enumerate(pictures, 1):
        Image.fromarray(picture.luma).save(folder / f".{n}.png")
        (folder / f".{n}.png").rename(folder / f"{n}.png")
        await until(lambda: not names(folder))
        assert len(till.journal()) == n, "it leaves when the journal has it"
    await till.until_shown("ACCEPTED", 2)
    await till.until_shown("EXPIRED")
    phone_screens_two = phone_screens.picture(phone_screens.TWO_IN_VIEW, 1)
    Image.fromarray(phone_screens_two.luma).save(folder / ".two.png")
    (folder / ".two.png").rename(folder / "two.png")
    await till.until_shown("[cam] NOT READ: more than one code")
    assert till.stop() == 0
    assert [scan.code for scan in gateway.scans] == [picture.codes[0] for picture in pictures]


async def test_a_till_killed_with_a_picture_in_hand_redeems_it_once(
    till: TillBench, gateway: ScriptedGateway, folder: Path
) -> None:
    gateway.plan.append(SILENT)
    with_camera(till, gateway, folder)
    till.start()
    await till.until_shown("connected to the gateway")
    octets = png(folder / "a.png", "CODE")
    await till.until_shown("heard")
    till.kill()
    await gateway.stop()
    (folder / "a.png").write_bytes(octets)  # as if it had been killed before the picture was removed
    till.start()
    await till.until_shown("the same scan")
    await until(lambda: not names(folder))
    await gateway.start()
    await till.until_shown("ACCEPTED")
    assert till.stop() == 0
    assert len(till.journal()) == len({scan.redemption_id for scan in gateway.scans}) == 1
