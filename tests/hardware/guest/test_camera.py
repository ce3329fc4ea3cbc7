"""The kernel's own test camera (vivid) through V4L2: frames, one owner, sizes it cannot have, a scanner on it."""

import asyncio
from pathlib import Path

import pytest
from waiting import until

from devices.camera import CameraScanner
from devices.camera_pixels import FOURCCS, luma_of_frame, points_of_frame
from devices.config import CameraConfig
from devices.scanner import State
from devices.v4l2 import CameraFault, open_camera

VIDEO = "/dev/video0"
DRIVER = Path("/sys/bus/platform/drivers/vivid")


@pytest.mark.parametrize(("width", "height"), ((640, 480), (1280, 720), (333, 111)))
def test_frames_come_at_the_size_nearest_to_what_was_asked(width: int, height: int) -> None:
    with open_camera(VIDEO, width, height) as camera:
        pixels = camera.pixels
        assert pixels.fourcc in FOURCCS
        for _ in range(3):
            octets = None
            while octets is None:
                octets = camera.newest(1.0)
            luma, points = luma_of_frame(octets, pixels), points_of_frame(octets, pixels)
            assert luma is not None
            assert points is not None
            assert luma.shape == (pixels.height, pixels.width)
            assert luma.max() > 150 > 50 > luma.min(), "colour bars"
        assert camera.title.startswith("vivid")


def test_a_camera_is_ours_alone_and_free_again_afterwards() -> None:
    busy = pytest.raises(CameraFault, match="in use by another program")
    with open_camera(VIDEO, 640, 480), busy, open_camera(VIDEO, 640, 480):
        pytest.fail("two owners")
    with open_camera(VIDEO, 640, 480):
        pass


async def test_a_scanner_on_a_camera_is_ready_looks_and_lets_go() -> None:
    ports: list[str | None] = []
    scanner = CameraScanner(
        CameraConfig("cam", VIDEO, width=640, height=360), lambda *_: None, lambda _, why: ports.append(why)
    )
    running = asyncio.create_task(scanner.run())
    await until(lambda: scanner.statistics.frames >= 3, lambda: f"frames: {scanner.statistics} {ports}")
    assert scanner.state is State.READY
    assert ports == [None]
    assert not scanner.statistics.reads, "there is no code in colour bars"
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    with open_camera(VIDEO, 640, 480):
        pass


async def test_a_camera_that_another_program_has_is_waited_for() -> None:
    ports: list[str | None] = []
    scanner = CameraScanner(CameraConfig("cam", VIDEO), lambda *_: None, lambda _, why: ports.append(why))
    with open_camera(VIDEO, 640, 480):
        running = asyncio.create_task(scanner.run())
        await until(lambda: ports, "the reason")
        assert "in use by another program" in str(ports)
    await until(lambda: ports[-1] is None, "the camera to be free")
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_a_camera_that_is_unplugged_comes_back() -> None:
    ports: list[str | None] = []
    scanner = CameraScanner(CameraConfig("cam", VIDEO), lambda *_: None, lambda _, why: ports.append(why))
    running = asyncio.create_task(scanner.run())
    await until(lambda: scanner.statistics.frames, lambda: f"frames: {scanner.statistics} {ports}")
    await asyncio.to_thread((DRIVER / "unbind").write_text, "vivid.0")
    await until(lambda: scanner.state is State.LOST, "the loss to be seen")
    await asyncio.to_thread((DRIVER / "bind").write_text, "vivid.0")
    await until(lambda: scanner.statistics.opened == 2, lambda: f"it to be back: {ports}")
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert ports[0] is ports[-1] is None
    assert scanner.statistics.lost == 1
