"""Scanners that type (keyboard wedge), through evdev (linux/input.h).

The node is grabbed, so that a code goes nowhere else: not into the till's own windows, not onto a console. Times of
events are those of the monotonic clock, as the rules for silence need. The light of caps lock is put out, because some
scanners type in the other case while it burns. Only the ioctls and 24 bytes of an event are needed, no library.
"""

import contextlib
import fcntl
import os
import struct
import time
from collections.abc import Sequence

from devices.attached import Attached
from devices.config import KeyboardConfig
from devices.framing import Found
from devices.framing.keyboard import EV_SYN, EVENT, SYN_REPORT, KeyFramer
from devices.node_scanner import NodeScanner
from devices.scanner import Capabilities, OnPort, OnRead

# _IOW('E', 0x90, int), _IOW('E', 0xa0, int), _IOR('E', 0x18, KEY_BYTES), as x86, ARM and RISC-V number them
EVIOCGRAB, EVIOCSCLOCKID = 0x40044590, 0x400445A0
KEY_BYTES = 96  # KEY_CNT is 0x300 bits
EVIOCGKEY = 0x80004518 | KEY_BYTES << 16
EV_LED, LED_CAPS_LOCK = 0x11, 1


class KeyboardScanner(NodeScanner):
    SUBSYSTEM = "input"

    def __init__(self, config: KeyboardConfig, on_read: OnRead, on_port: OnPort) -> None:
        framer = KeyFramer(config.layout, config.suffix, config.gap_ms, config.person_ms, config.gs_key)
        super().__init__(config.name, config.path, framer, on_read, on_port)
        self._keys = framer

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities()

    def _fits(self, device: Attached) -> bool:
        return device.is_keyboard

    def _claim(self, fd: int) -> None:
        fcntl.ioctl(fd, EVIOCGRAB, 1)  # the kernel gives it back when the node is closed
        fcntl.ioctl(fd, EVIOCSCLOCKID, struct.pack("i", time.CLOCK_MONOTONIC))
        os.write(fd, EVENT.pack(0, 0, EV_LED, LED_CAPS_LOCK, 0) + EVENT.pack(0, 0, EV_SYN, SYN_REPORT, 0))
        self._keys.keys_are(pressed(fd))

    def _feed(self, octets: bytes) -> Sequence[Found]:
        found = super()._feed(octets)
        if self._keys.wants_keys:
            with contextlib.suppress(OSError):  # unplugged: the next read says so
                self._keys.keys_are(pressed(self._fd))
        return found


def pressed(fd: int) -> set[int]:
    """Codes of the keys that are down. Raises `OSError`, also for what is no evdev node."""
    bitmap = fcntl.ioctl(fd, EVIOCGKEY, bytes(KEY_BYTES))
    number = int.from_bytes(bitmap, "little")
    return {code for code in range(KEY_BYTES * 8) if number >> code & 1}
