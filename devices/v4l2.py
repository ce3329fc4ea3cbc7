"""A V4L2 camera: opened, set up and streamed from by ioctl, with buffers mapped from the kernel (videodev2.h).

The kernel keeps filling the few buffers it was given; whoever reads takes the newest filled one and gives the others
back unread, so that no frame is older than the camera's own pace. Everything here blocks and belongs in a thread.
"""

import ctypes
import errno
import fcntl
import mmap
import os
import select
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import NoReturn

from devices.camera_pixels import FOURCCS, Pixels

BUFFERS = 4  # one being filled, one filled, one being read, one to spare; more would only hold older frames
FORMATS_MAX = 64  # descriptions a driver is asked for: more than any camera has
CAPTURE, MMAP, FIELD_ANY = 1, 1, 0  # V4L2_BUF_TYPE_VIDEO_CAPTURE, V4L2_MEMORY_MMAP, V4L2_FIELD_ANY
CAN_CAPTURE, CAN_STREAM, HAS_DEVICE_CAPS = 0x1, 0x0400_0000, 0x8000_0000
BUFFER_DAMAGED = 0x40  # V4L2_BUF_FLAG_ERROR


class CameraFault(Exception):
    """The camera cannot be used; the text says why, and what to do."""


class _Capability(ctypes.Structure):
    _fields_ = [
        *(("driver", ctypes.c_char * 16), ("card", ctypes.c_char * 32), ("bus", ctypes.c_char * 32)),
        *(("version", ctypes.c_uint32), ("caps", ctypes.c_uint32), ("device_caps", ctypes.c_uint32)),
        ("reserved", ctypes.c_uint32 * 3),
    ]


class _Description(ctypes.Structure):
    _fields_ = [
        *(("index", ctypes.c_uint32), ("kind", ctypes.c_uint32), ("flags", ctypes.c_uint32)),
        *(("title", ctypes.c_char * 32), ("fourcc", ctypes.c_char * 4), ("reserved", ctypes.c_uint32 * 4)),
    ]


class _PixelFormat(ctypes.Structure):
    _fields_ = [
        *(("width", ctypes.c_uint32), ("height", ctypes.c_uint32), ("fourcc", ctypes.c_char * 4)),
        *(("field", ctypes.c_uint32), ("line_bytes", ctypes.c_uint32), ("frame_bytes", ctypes.c_uint32)),
        ("more", ctypes.c_uint32 * 6),
    ]


class _AnyFormat(ctypes.Union):
    _fields_ = [("pixels", _PixelFormat), ("raw", ctypes.c_uint8 * 200), ("aligned", ctypes.c_void_p)]


class _Format(ctypes.Structure):
    _fields_ = [("kind", ctypes.c_uint32), ("of", _AnyFormat)]


class _Request(ctypes.Structure):
    _fields_ = [
        *(("count", ctypes.c_uint32), ("kind", ctypes.c_uint32), ("memory", ctypes.c_uint32)),
        ("more", ctypes.c_uint32 * 2),
    ]


class _Time(ctypes.Structure):
    _fields_ = [("seconds", ctypes.c_long), ("microseconds", ctypes.c_long)]


class _Where(ctypes.Union):
    _fields_ = [("offset", ctypes.c_uint32), ("address", ctypes.c_ulong)]


class _Buffer(ctypes.Structure):
    _fields_ = [
        *(("index", ctypes.c_uint32), ("kind", ctypes.c_uint32), ("used", ctypes.c_uint32)),
        *(("flags", ctypes.c_uint32), ("field", ctypes.c_uint32), ("at", _Time), ("timecode", ctypes.c_uint32 * 4)),
        *(("sequence", ctypes.c_uint32), ("memory", ctypes.c_uint32), ("where", _Where), ("length", ctypes.c_uint32)),
        *(("reserved", ctypes.c_uint32), ("request", ctypes.c_uint32)),
    ]


def _number(direction: int, number: int, argument: type[ctypes.Structure] | type[ctypes.c_int]) -> int:
    """_IOC of asm-generic/ioctl.h, as x86, ARM and RISC-V have it."""
    return direction << 30 | ctypes.sizeof(argument) << 16 | ord("V") << 8 | number


_WRITE, _READ = 1, 2
_QUERYCAP = _number(_READ, 0, _Capability)
_ENUM_FMT = _number(_READ | _WRITE, 2, _Description)
_S_FMT = _number(_READ | _WRITE, 5, _Format)
_REQBUFS = _number(_READ | _WRITE, 8, _Request)
_QUERYBUF = _number(_READ | _WRITE, 9, _Buffer)
_QBUF = _number(_READ | _WRITE, 15, _Buffer)
_DQBUF = _number(_READ | _WRITE, 17, _Buffer)
_STREAMON, _STREAMOFF = _number(_WRITE, 18, ctypes.c_int), _number(_WRITE, 19, ctypes.c_int)


class Camera:
    """One open camera that streams. `skipped` counts frames nobody looked at, `damaged` those the driver marked so."""

    def __init__(self, fd: int, pixels: Pixels, title: str) -> None:
        self.pixels, self.title = pixels, title
        self.skipped = self.damaged = 0
        self._fd = fd
        self._maps: list[mmap.mmap] = []

    def newest(self, wait_s: float) -> bytes | None:
        """The newest whole frame, waiting for it if need be; None when there was none. Raises OSError when it is lost.

        When the driver had run out of buffers, even the newest may be old: all go back, and a new one is waited for.
        """
        ready, _, broken = select.select([self._fd], [], [self._fd], wait_s)
        filled = list(iter(self._take_filled, None)) if ready or broken else []
        octets = None
        if filled and len(filled) < len(self._maps):
            octets = self._octets(filled[-1])
        for buffer in filled:
            self._give_back(buffer)
        self.skipped += len(filled) - (octets is not None)
        return octets

    def _octets(self, buffer: _Buffer) -> bytes | None:
        mapped = self._maps[buffer.index]
        if buffer.flags & BUFFER_DAMAGED:
            self.damaged += 1
            return None
        whole: bytes = mapped[: min(buffer.used or len(mapped), len(mapped))]
        return whole

    def _take_filled(self) -> _Buffer | None:
        buffer = _Buffer(kind=CAPTURE, memory=MMAP)
        try:
            fcntl.ioctl(self._fd, _DQBUF, buffer)
        except BlockingIOError:
            return None
        return buffer

    def _give_back(self, buffer: _Buffer) -> None:
        fcntl.ioctl(self._fd, _QBUF, buffer)

    def start(self, closing: ExitStack) -> None:
        """Map buffers, hand them to the driver, and stream. `closing` undoes it."""
        request = _Request(count=BUFFERS, kind=CAPTURE, memory=MMAP)
        fcntl.ioctl(self._fd, _REQBUFS, request)
        for index in range(request.count):
            buffer = _Buffer(index=index, kind=CAPTURE, memory=MMAP)
            fcntl.ioctl(self._fd, _QUERYBUF, buffer)
            mapped = mmap.mmap(self._fd, buffer.length, offset=buffer.where.offset)
            closing.callback(mapped.close)
            self._maps.append(mapped)
            self._give_back(buffer)
        fcntl.ioctl(self._fd, _STREAMON, ctypes.c_int(CAPTURE))
        closing.callback(self._stop)

    def _stop(self) -> None:
        try:
            fcntl.ioctl(self._fd, _STREAMOFF, ctypes.c_int(CAPTURE))
        except OSError as error:
            if error.errno != errno.ENODEV:  # unplugged: it has stopped by itself
                raise


@contextmanager
def open_camera(path: str, width: int, height: int) -> Iterator[Camera]:
    """Claim a camera for us alone and stream, at the size nearest to what is asked. Raises `CameraFault`, OSError."""
    with ExitStack() as closing:
        fd = _open(path)
        closing.callback(os.close, fd)
        title = _title_of(fd, path)
        try:
            camera = Camera(fd, _set_format(fd, path, width, height), title)
            camera.start(closing)
        except OSError as error:
            _explain(error, path)
        yield camera


def _open(path: str) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        _explain(error, path)


def _explain(error: OSError, path: str) -> NoReturn:
    match error.errno:
        case errno.EBUSY:
            raise CameraFault(f"{path} is in use by another program") from None
        case errno.EACCES | errno.EPERM:
            raise CameraFault(f"{path}: permission denied; add this user to the group `video`") from None
        case errno.ENODEV | errno.ENXIO:
            raise CameraFault(f"{path}: no camera is behind it") from None
    raise error


def _title_of(fd: int, path: str) -> str:
    able = _Capability()
    try:
        fcntl.ioctl(fd, _QUERYCAP, able)
    except OSError as error:
        if error.errno in (errno.ENOTTY, errno.EINVAL):
            raise CameraFault(f"{path} is no camera (V4L2 device)") from None
        _explain(error, path)
    caps = able.device_caps if able.caps & HAS_DEVICE_CAPS else able.caps
    if not (caps & CAN_CAPTURE and caps & CAN_STREAM):
        raise CameraFault(f"{path} gives no pictures: a camera often has several nodes, and another one does")
    title: bytes = able.card
    return title.decode("utf-8", "replace")


def _set_format(fd: int, path: str, width: int, height: int) -> Pixels:
    offered = list(_formats(fd))
    usable = [fourcc for fourcc in FOURCCS if fourcc.encode() in offered]
    if not usable:
        names = ", ".join(sorted(fourcc.decode("ascii", "replace") for fourcc in offered)) or "nothing"
        raise CameraFault(f"{path} offers {names}; one of {', '.join(FOURCCS)} is needed")
    wanted = _PixelFormat(width=width, height=height, fourcc=usable[0].encode(), field=FIELD_ANY)
    asked = _Format(kind=CAPTURE, of=_AnyFormat(pixels=wanted))
    fcntl.ioctl(fd, _S_FMT, asked)
    given = asked.of.pixels
    return Pixels(given.fourcc.decode("ascii", "replace"), given.width, given.height, given.line_bytes)


def _formats(fd: int) -> Iterator[bytes]:
    for index in range(FORMATS_MAX):
        description = _Description(index=index, kind=CAPTURE)
        try:
            fcntl.ioctl(fd, _ENUM_FMT, description)
        except OSError as error:
            if error.errno == errno.EINVAL:  # the end of the list
                return
            raise
        yield description.fourcc
