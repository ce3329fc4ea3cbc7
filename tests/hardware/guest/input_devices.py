"""Keyboards (uinput) and HID devices (uhid) that a test plays: the kernel's input and HID layers are the real ones."""

import fcntl
import os
import select
import struct
from collections.abc import Iterable
from typing import Self

import keys

VENDOR, PRODUCT = 0x0C2E, 0x0B61
BUS_USB = 3

UI_DEV_CREATE, UI_DEV_SETUP, UI_SET_EVBIT, UI_SET_KEYBIT, UI_SET_LEDBIT = (  # linux/uinput.h
    *(0x5501, 0x405C5503),
    *(0x40045564, 0x40045565, 0x40045569),
)
EV_LED = 0x11
KEYS = range(1, 248)

UHID_OUTPUT, UHID_GET_REPORT, UHID_CREATE2, UHID_INPUT2, UHID_SET_REPORT = 6, 9, 11, 12, 13
UHID_GET_REPORT_REPLY, UHID_SET_REPORT_REPLY = 10, 14  # linux/uhid.h
UHID_DATA_BYTES = 4096
UHID_EVENT_BYTES = 4 + 4376


class Wedge:
    """A scanner that types."""

    def __init__(self, vendor: int = VENDOR, product: int = PRODUCT, name: str = "Wedge") -> None:
        self._port = os.open("/dev/uinput", os.O_RDWR | os.O_NONBLOCK)
        for kind in (keys.EV_SYN, keys.EV_KEY, EV_LED):
            fcntl.ioctl(self._port, UI_SET_EVBIT, kind)
        for code in KEYS:
            fcntl.ioctl(self._port, UI_SET_KEYBIT, code)
        fcntl.ioctl(self._port, UI_SET_LEDBIT, 1)
        setup = struct.pack("HHHH80sI", BUS_USB, vendor, product, 1, name.encode(), 0)
        fcntl.ioctl(self._port, UI_DEV_SETUP, setup)
        fcntl.ioctl(self._port, UI_DEV_CREATE)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.unplug()

    def unplug(self) -> None:
        if self._port >= 0:
            os.close(self._port)
        self._port = -1

    def strike(self, stroke: keys.Stroke) -> None:
        """One key, with what is held meanwhile. The kernel gives the times."""
        for value, codes in ((1, stroke), (0, stroke[::-1])):
            os.write(self._port, keys.report(0, *((code, value) for code in codes)))


class HidDevice:
    """`outputs`: the reports that the till has sent, `features`: those it has set."""

    def __init__(
        self, descriptor: bytes, serial: str = "SN1", *, vendor: int = VENDOR, port: str = "test-1/input0"
    ) -> None:
        self._port = os.open("/dev/uhid", os.O_RDWR | os.O_NONBLOCK)
        texts = struct.pack("128s64s64s", b"Scanner", port.encode(), serial.encode())
        numbers = struct.pack("=HHIIII", len(descriptor), BUS_USB, vendor, PRODUCT, 0, 0)
        self._say(UHID_CREATE2, texts + numbers + descriptor.ljust(UHID_DATA_BYTES, b"\0"))
        self.outputs: list[bytes] = []
        self.features: list[bytes] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.unplug()

    def unplug(self) -> None:
        if self._port >= 0:
            os.close(self._port)
        self._port = -1

    def send(self, reports: Iterable[bytes]) -> None:
        for report in reports:
            self._say(UHID_INPUT2, struct.pack("=H", len(report)) + report)

    def listen(self) -> bool:
        """Take what the kernel has for the device, and answer as one that agrees to everything."""
        while select.select([self._port], [], [], 0)[0]:
            event = os.read(self._port, UHID_EVENT_BYTES)
            (kind,) = struct.unpack_from("=I", event)
            if kind == UHID_OUTPUT:
                (size,) = struct.unpack_from("=H", event, 4 + UHID_DATA_BYTES)
                self.outputs.append(event[4 : 4 + size])
            elif kind == UHID_SET_REPORT:
                number, _, _, size = struct.unpack_from("=IBBH", event, 4)
                self.features.append(event[12 : 12 + size])
                self._say(UHID_SET_REPORT_REPLY, struct.pack("=IH", number, 0))
            elif kind == UHID_GET_REPORT:
                (number,) = struct.unpack_from("=I", event, 4)
                self._say(UHID_GET_REPORT_REPLY, struct.pack("=IHH", number, 5, 0))
        return True

    def has_heard(self, report: bytes) -> bool:
        return self.listen() and report in self.outputs

    def _say(self, kind: int, body: bytes) -> None:
        os.write(self._port, struct.pack("=I", kind) + body)
