"""A clock that rings at the microsecond: event loops round to milliseconds, which a generator would report as its lag.

Linux's timerfd (timerfd_create(2)), which Python wraps from 3.13 on only. Where there is none the loop's timers do.
"""

import asyncio
import ctypes
import os
import time
from collections.abc import Callable

CLOCK_MONOTONIC, TFD_NONBLOCK, TFD_CLOEXEC, TFD_TIMER_ABSTIME = 1, 0o4000, 0o2000000, 1
EARLIEST_NS = 200_000  # after a ring the next comes no sooner: at high rates a few arrivals share one turn of the loop


class _Moment(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


class _Timer(ctypes.Structure):  # itimerspec
    _fields_ = (("interval", _Moment), ("value", _Moment))


class Pacer:
    """Calls `ring` once for each `arm`, at that moment of the monotonic clock or as soon after it as the loop turns."""

    def __init__(self, ring: Callable[[], None]) -> None:
        self._ring, self._loop = ring, asyncio.get_running_loop()
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._timer, self._pointer = _Timer(), ctypes.c_void_p()
        self._fd = -1
        if hasattr(self._libc, "timerfd_create"):
            self._fd = self._libc.timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC)
        if self._fd >= 0:
            self._loop.add_reader(self._fd, self._rang)
            self._pointer = ctypes.byref(self._timer)  # type: ignore[assignment]

    def arm(self, at_ns: int) -> None:
        """Ring at `at_ns` of time.monotonic_ns()."""
        at_ns = max(at_ns, time.monotonic_ns() + EARLIEST_NS)
        if self._fd < 0:
            self._loop.call_later((at_ns - time.monotonic_ns()) / 1e9, self._ring)
            return
        value = self._timer.value
        value.seconds, value.nanoseconds = divmod(at_ns, 1_000_000_000)
        self._libc.timerfd_settime(self._fd, TFD_TIMER_ABSTIME, self._pointer, None)

    def close(self) -> None:
        if self._fd >= 0:
            self._loop.remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1

    def _rang(self) -> None:
        try:
            os.read(self._fd, 8)
        except BlockingIOError:  # armed anew meanwhile
            return
        self._ring()
