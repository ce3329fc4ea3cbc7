"""USB devices made of the kernel's gadget functions, plugged into dummy host controllers: both ends are real drivers.

https://docs.kernel.org/usb/gadget_configfs.html. A gadget's far end is /dev/ttyGS* (CDC-ACM) or /dev/hidg* (HID).
"""

import contextlib
import errno
import itertools
import os
import select
import tty
from pathlib import Path

from waiting import DEADLINE_S, until_sync

CONFIGFS = Path("/sys/kernel/config/usb_gadget")
CONTROLLERS = Path("/sys/devices/platform")
VENDOR, PRODUCT = 0x1209, 0x0001  # pid.codes, for tests
HID_REPORT_BYTES = 64


class Gadgets:
    """All of one test, each on a controller of its own."""

    def __init__(self) -> None:
        self._made: list[Gadget] = []
        self._numbers = itertools.count()

    def new(self, serial: str, product: str = "Scanner", vendor: int = VENDOR) -> "Gadget":
        gadget = Gadget(next(self._numbers), serial, product, vendor)
        self._made.append(gadget)
        return gadget

    def remove(self) -> None:
        for gadget in self._made:
            gadget.remove()


class Gadget:
    """One USB device. Add functions, then plug it in."""

    def __init__(self, number: int, serial: str, product: str, vendor: int) -> None:
        self._number = number
        self._root = CONFIGFS / f"g{number}"
        self._functions: list[Path] = []
        self.far_ends: list[FarEnd] = []
        _make(self._root, idVendor=f"{vendor:#06x}", idProduct=f"{PRODUCT:#06x}", bcdUSB="0x0200")
        texts = {"manufacturer": "Maker", "product": product, **({"serialnumber": serial} if serial else {})}
        _make(self._root / "strings/0x409", **texts)
        _make(self._root / "configs/c.1", MaxPower="100")

    def add_acm(self) -> "FarEnd":
        function = self._add(f"acm.{self._root.name}")
        return self._far_end(Path(f"/dev/ttyGS{(function / 'port_num').read_text().strip()}"), tty_line=True)

    def add_hid(self, descriptor: bytes, report_bytes: int = HID_REPORT_BYTES) -> "FarEnd":
        function = self._add(f"hid.{self._root.name}", protocol="0", subclass="0", report_length=str(report_bytes))
        (function / "report_desc").write_bytes(descriptor)
        _, _, minor = (function / "dev").read_text().strip().partition(":")
        return self._far_end(Path(f"/dev/hidg{minor}"), tty_line=False)

    def plug(self) -> None:
        """Also links the functions, the first time: configfs wants them complete by then."""
        for function in self._functions:
            link = self._root / "configs/c.1" / function.name
            if not link.is_symlink():
                link.symlink_to(function)
        (self._root / "UDC").write_text(f"dummy_udc.{self._number}")
        until_sync(self._is_configured, f"the device on dummy_hcd.{self._number}")
        for end in self.far_ends:
            end.open()

    def unplug(self) -> None:
        """As pulling the cable: nothing that is on its way arrives."""
        for end in self.far_ends:
            end.close()
        (self._root / "UDC").write_text("\n")
        until_sync(lambda: not self._is_configured(), "the plug to be out")

    def remove(self) -> None:
        if _text(self._root / "UDC"):
            self.unplug()
        for function in self._functions:
            (self._root / "configs/c.1" / function.name).unlink(missing_ok=True)
            function.rmdir()
        for directory in ("configs/c.1", "strings/0x409", "."):
            (self._root / directory).rmdir()

    def _is_configured(self) -> bool:
        """As the till's side sees it: the state that the controller tells outlives the device."""
        found = CONTROLLERS.glob(f"dummy_hcd.{self._number}/usb*/*-1/bConfigurationValue")
        return any(_text(path) for path in found)

    def _add(self, name: str, **attributes: str) -> Path:
        function = self._root / "functions" / name
        _make(function, **attributes)
        self._functions.append(function)
        return function

    def _far_end(self, node: Path, *, tty_line: bool) -> "FarEnd":
        end = FarEnd(node, tty_line=tty_line)
        self.far_ends.append(end)
        return end


class FarEnd:
    """The device's end of the cable: what it writes, the till reads."""

    def __init__(self, node: Path, *, tty_line: bool) -> None:
        self.node = node
        self._tty_line = tty_line
        self._port = -1

    def open(self) -> None:
        until_sync(self.node.exists, str(self.node))
        self._port = os.open(self.node, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
        if self._tty_line:
            tty.setraw(self._port)

    def close(self) -> None:
        if self._port >= 0:
            os.close(self._port)
        self._port = -1

    def write(self, octets: bytes) -> None:
        while octets:
            _, ready, _ = select.select([], [self._port], [], DEADLINE_S)
            assert ready, f"nobody takes what {self.node} writes"
            octets = octets[os.write(self._port, octets) :]

    def read(self) -> bytes:
        """What the till has sent until now."""
        ready, _, _ = select.select([self._port], [], [], 0)
        try:
            return os.read(self._port, 4096) if ready else b""
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.EIO):
                raise
            return b""


def link_of(gadget_serial: str, product: str = "Scanner") -> Path:
    """What udev calls a CDC-ACM port with this serial number."""
    return Path(f"/dev/serial/by-id/usb-Maker_{product}_{gadget_serial}-if00")


def _make(directory: Path, **attributes: str) -> None:
    directory.mkdir(exist_ok=True)
    for name, text in attributes.items():
        (directory / name).write_text(text)


def _text(path: Path) -> str:
    with contextlib.suppress(OSError):
        return path.read_text().strip()
    return ""
