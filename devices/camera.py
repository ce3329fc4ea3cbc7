"""A camera, or a directory of pictures, as a scanner. Looking and decoding are one thread's; the event loop only hears.

The thread takes the newest frame, decodes it, and takes the next newest: there is no queue of frames that could grow
old. It rests as long as it worked, so that a busy view costs half a core at most, and while nothing moves it looks
closely twice a second only. What it sees is judged in the event loop, where the verdicts are heard too, so nothing
needs a lock.
"""

import asyncio
import random
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NoReturn

from devices.camera_ladder import Ladder, Luma, Rung, Seen
from devices.camera_pixels import FOURCCS, Stillness, luma_of_frame, luma_of_picture, points_of_frame
from devices.camera_view import View
from devices.config import CameraConfig
from devices.framing import FaultReason, Frame, FrameFault, Signal
from devices.outbox import backoff_ms
from devices.picture_folder import LOOK_S, Picture, PictureFolder
from devices.scan import scan_of
from devices.scanner import Capabilities, Feedback, OnPort, OnRead, State, Statistics, counted
from devices.v4l2 import Camera, CameraFault, open_camera

REOPEN_MS_FIRST, REOPEN_MS_MAX = 100, 2000  # as for a serial port: replugged, it is back before a person looks
FRAME_WAIT_S = 0.2  # how long a wait for a frame, and so a stop of ours, takes at most
SILENT_S = 5.0  # a camera that gives nothing for so long hangs; opened anew, most recover
STILL_PAUSE_S = 0.1  # between glances while nothing moves: a phone that appears is seen within this
STILL_LOOK_S = 0.5  # and between close looks: a code that a waking screen shows so slowly that nothing moved
LIVELY_S = 2.0  # after a movement every frame is looked at: autofocus and exposure settle within this
SHARP_EVERY = 3  # the slowest rung costs as much as all others together, and blur stays for more than three frames
RETRY_S = 2.0  # until a picture that the journal had no room for is tried again
SETTLE_WAIT_S = 0.05  # while the journal writes: how long a stop may go unseen


class CameraStatistics(Statistics):
    frames: int = 0  # looked at closely
    frames_skipped: int = 0  # there was a newer one, or nothing had moved
    frames_damaged: int = 0


class CameraScanner:
    """One camera or directory of the configuration."""

    capabilities = Capabilities(length_framed=True, symbology=True)  # no verdict: the screen tells it

    def __init__(self, config: CameraConfig, on_read: OnRead, on_port: OnPort) -> None:
        self.name = config.name
        self.statistics = CameraStatistics()
        self.state = State.CLOSED
        self._config = config
        self._on_read = counted(self.statistics, on_read)
        self._on_port = on_port
        self._ladder = Ladder(config.symbologies)
        self._folder = PictureFolder(Path(config.path))
        self._view = View(0)
        self._stop = threading.Event()

    def feedback(self, signal: Signal) -> Feedback:
        """Nothing sounds; but a voucher that was refused may be shown again at once."""
        self._view.hear(signal)
        return Feedback.UNSUPPORTED

    async def run(self) -> NoReturn:
        loop = asyncio.get_running_loop()
        with ThreadPoolExecutor(1, f"camera {self.name}") as thread:
            try:
                attempts, told = 0, ""
                while True:
                    opened = self.statistics.opened
                    reason = await loop.run_in_executor(thread, self._watch, loop)
                    if self.statistics.opened > opened:
                        self.statistics.lost += 1
                        attempts, told = 0, ""
                    self.state = State.LOST
                    if reason != told:
                        self._on_port(self.name, reason)
                        told = reason
                    attempts += 1
                    spread = random.random()  # noqa: S311 - jitter, no secret
                    await asyncio.sleep(backoff_ms(attempts, REOPEN_MS_FIRST, REOPEN_MS_MAX, spread) / 1000)
            finally:
                self._stop.set()
                self.state = State.CLOSED

    # --- in the event loop --------------------------------------------------------------------------------------------

    def _ready(self) -> None:
        self._view = View(_monotonic_ms())
        self.state = State.READY
        self.statistics.opened += 1
        self._on_port(self.name, None)

    def _saw(self, seen: Seen, at_ms: int) -> None:
        view, found = self._view, self._view.see(seen, at_ms)

        def settle(kept: bool) -> None:
            if isinstance(found, FrameFault):
                view.note_fault()
            elif found and not kept:
                view.refuse(found)

        if found:
            self._on_read(self.name, self._checked(found), settle)

    def _checked(self, found: Frame | FrameFault) -> Frame | FrameFault:
        """A code that is empty or too long for one is known here already."""
        read = scan_of(found, self.name) if isinstance(found, Frame) else found
        return read if isinstance(read, FrameFault) else found

    # --- in the thread ------------------------------------------------------------------------------------------------

    def _watch(self, loop: asyncio.AbstractEventLoop) -> str:
        """Until it is lost, and why, or until we are to stop."""
        try:
            if Path(self._config.path).is_dir():
                self._watch_folder(loop)
            else:
                with open_camera(self._config.path, self._config.width, self._config.height) as camera:
                    self._watch_camera(loop, camera)
        except CameraFault as fault:
            return str(fault)
        except OSError as error:
            return error.strerror or str(error)
        return "closed"

    def _watch_camera(self, loop: asyncio.AbstractEventLoop, camera: Camera) -> None:
        if camera.pixels.fourcc not in FOURCCS:
            raise CameraFault(
                f"{self._config.path} gives {camera.pixels.fourcc}; one of {', '.join(FOURCCS)} is needed"
            )
        loop.call_soon_threadsafe(self._ready)
        statistics, stillness = self.statistics, Stillness()
        skipped, damaged = statistics.frames_skipped, statistics.frames_damaged
        frame_s = looked_s = lively_s = time.monotonic()
        is_empty = True
        while not self._stop.is_set():
            octets, now_s = camera.newest(FRAME_WAIT_S), time.monotonic()
            if octets is None and now_s - frame_s > SILENT_S:
                raise CameraFault(f"{self._config.path} gives no pictures")
            points = None if octets is None else points_of_frame(octets, camera.pixels)
            statistics.frames_skipped = skipped + camera.skipped
            statistics.frames_damaged = damaged + camera.damaged
            if octets is None or points is None:
                damaged += octets is not None
                continue
            frame_s = now_s
            lively_s = now_s if stillness.moved(points) else lively_s
            is_still = now_s - lively_s > LIVELY_S
            if is_still and now_s - looked_s < STILL_LOOK_S:
                skipped += 1
                self._stop.wait(STILL_PAUSE_S)
                continue
            looked_s = now_s
            if (luma := luma_of_frame(octets, camera.pixels)) is None:
                damaged += 1
                continue
            is_empty = self._look(loop, luma, now_s, is_idle=is_still and is_empty)
            self._stop.wait(time.monotonic() - now_s)

    def _look(self, loop: asyncio.AbstractEventLoop, luma: Luma, now_s: float, *, is_idle: bool) -> bool:
        """Whether there is nothing. Idle: an empty view in which nothing moves is only looked at cheaply."""
        every_third = self.statistics.frames % SHARP_EVERY == 0
        reach = Rung.GLOBAL if is_idle else Rung.SHARP if every_third else Rung.SMOOTH
        self.statistics.frames += 1
        seen = self._ladder.read(luma, up_to=reach, known=self._view.known)
        loop.call_soon_threadsafe(self._saw, seen, int(now_s * 1000))
        return not seen.codes

    def _watch_folder(self, loop: asyncio.AbstractEventLoop) -> None:
        self._folder.open()
        loop.call_soon_threadsafe(self._ready)
        while not self._stop.wait(LOOK_S):
            while not self._stop.is_set() and (picture := self._folder.next(time.monotonic())):
                self._take(loop, picture)

    def _take(self, loop: asyncio.AbstractEventLoop, picture: Picture) -> None:
        luma = luma_of_picture(picture.octets)
        if luma is None and self._folder.not_whole(picture, time.monotonic()):
            return
        self.statistics.frames += 1
        found = self._checked(self._found_in(luma, picture))
        if isinstance(found, FrameFault):
            self._folder.set_aside(picture)
            loop.call_soon_threadsafe(self._on_read, self.name, found, _nobody_waits)
        elif self._is_kept(loop, found):
            self._folder.remove(picture)
        else:
            self._stop.wait(RETRY_S)

    def _found_in(self, luma: Luma | None, picture: Picture) -> Frame | FrameFault:
        """One code that can be taken from this picture alone, or why there is none."""
        if luma is None:
            return FrameFault(FaultReason.NOT_A_PICTURE, len(picture.octets))
        seen = self._ladder.read(luma)
        sure = [code for code, is_sure in seen.codes.items() if is_sure]
        if not sure:
            return FrameFault(FaultReason.NO_CODE, len(picture.octets))
        if not seen.is_one:
            return FrameFault(FaultReason.SEVERAL, len(picture.octets))
        return Frame(sure[0].octets, sure[0].aim, resent=picture.was_there)

    def _is_kept(self, loop: asyncio.AbstractEventLoop, frame: Frame) -> bool:
        """Whether the journal has it; False also when we are to stop before it is known."""
        kept: Future[bool] = Future()
        loop.call_soon_threadsafe(self._on_read, self.name, frame, kept.set_result)
        while not self._stop.is_set():
            try:
                return kept.result(SETTLE_WAIT_S)
            except TimeoutError:
                continue
        return kept.done() and kept.result()


def _nobody_waits(kept: bool) -> None:
    """What a fault is settled with."""


def _monotonic_ms() -> int:
    return time.monotonic_ns() // 1_000_000
