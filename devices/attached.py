"""Which devices are attached, read from sysfs, and which of them a path of the configuration means.

A path is the name of a device node, or `usb:VVVV:PPPP`, vendor and product in hex as `lsusb` prints them; that finds
the device again under whatever number it comes back. Two alike are told apart by `usb:VVVV:PPPP:SERIAL`, or, where the
maker gave them no serial numbers, by the socket they are plugged into: `usb:VVVV:PPPP@usb-0000:00:14.0-1.4`. For
Bluetooth `bluetooth:...`, where the serial is the device's address. A path that fits two devices opens neither.
"""

import os
import re
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from devices.framing.hid_descriptor import DESCRIPTOR_BYTES_MAX

SYSFS = Path("/sys")
BUSES = {3: "usb", 5: "bluetooth"}  # linux/input.h
LONG_BITS = struct.calcsize("l") * 8
KEYBOARD_KEYS = (28, *range(2, 12))  # Enter and the digits: no power button, no volume knob
PATH = re.compile(r"(usb|bluetooth):([0-9a-f]{4}):([0-9a-f]{4})(?::([^@]+))?(?:@(.+))?", re.IGNORECASE)


class NotAttached(Exception):
    """No device, or no single one, is what the path means; the text says which there are."""


class Absent(NotAttached):
    """No device is what the path means."""


class Attached(msgspec.Struct, frozen=True):
    """One device node. Empty: the device does not say."""

    node: str  # /dev/...
    bus: str  # usb, bluetooth
    vendor: int
    product: int
    name: str
    serial: str
    port: str  # what it is plugged into, like `usb-0000:00:14.0-1.4`
    keys: frozenset[int] = frozenset()  # input only: key codes it can send
    descriptor: bytes = b""  # hidraw only: its report descriptor

    @property
    def is_keyboard(self) -> bool:
        return self.keys.issuperset(KEYBOARD_KEYS)

    @property
    def path(self) -> str:
        """The shortest path that outlives a replug; the node's own name for what has no vendor."""
        if not self.bus:
            return self.node
        place = f":{self.serial}" if self.serial else f"@{self.port}" if self.port else ""
        return f"{self.bus}:{self.vendor:04x}:{self.product:04x}{place}"


class Wanted(msgspec.Struct, frozen=True):
    """A path that names a device and not a node."""

    bus: str
    vendor: int
    product: int
    serial: str
    port: str

    def fits(self, device: Attached) -> bool:
        return (
            (self.bus, self.vendor, self.product) == (device.bus, device.vendor, device.product)
            and self.serial in ("", device.serial)
            and self.port in ("", device.port)
        )


def parse_path(path: str) -> Wanted | None:
    """None: the path is that of a node."""
    found = PATH.fullmatch(path)
    if not found:
        return None
    bus, vendor, product, serial, port = found.groups(default="")
    return Wanted(bus.lower(), int(vendor, 16), int(product, 16), serial, port)


def node_of(path: str, subsystem: str, fits: Callable[[Attached], bool], sysfs: Path = SYSFS) -> str:
    """The device node that `path` means among those of a subsystem. Raises `NotAttached`."""
    wanted = parse_path(path)
    if wanted is None:
        return path
    found = [device for device in attached(subsystem, sysfs) if wanted.fits(device)]
    if not found:
        raise Absent(f"nothing attached is {path}")
    fitting = [device for device in found if fits(device)]
    if not fitting:
        raise NotAttached(f"{path} is attached, and has no interface of this kind: see which mode the scanner is in")
    if len(fitting) > 1:
        paths = [device.path for device in fitting]
        told = [device.path if paths.count(device.path) == 1 else device.node for device in fitting]
        raise NotAttached(f"{path} fits {len(fitting)} devices; name one of them: {', '.join(told)}")
    return fitting[0].node


def attached(subsystem: str, sysfs: Path = SYSFS) -> list[Attached]:
    """All devices of `hidraw`, `input` (event nodes only) or `tty` (USB only) that can be asked now."""
    return [device for place in _places(subsystem, sysfs) if (device := _READ_BY[subsystem](place))]


def _places(subsystem: str, sysfs: Path) -> Iterator[Path]:
    directory = sysfs / "class" / subsystem
    names = sorted(os.listdir(directory)) if directory.is_dir() else []
    yield from (directory / name for name in names if subsystem != "input" or name.startswith("event"))


def _read_hidraw(place: Path) -> Attached | None:
    about = _uevent(place / "device")
    ids = about.get("HID_ID", "").split(":")
    if len(ids) != 3:
        return None
    bus, vendor, product = (int(word, 16) for word in ids)
    phys, serial, name = (about.get(f"HID_{word}", "") for word in ("PHYS", "UNIQ", "NAME"))
    port = _usb_port(place) or _port(phys)
    descriptor = _octets(place / "device" / "report_descriptor")
    return Attached(_node(place), BUSES.get(bus, ""), vendor, product, name, serial, port, descriptor=descriptor)


def _read_input(place: Path) -> Attached | None:
    device = place / "device"
    words = [_text(device / "id" / word) for word in ("bustype", "vendor", "product")]
    if not all(words):
        return None
    bus, vendor, product = (int(word, 16) for word in words)
    port = _usb_port(place) or _port(_text(device / "phys"))
    keys = _bits(_text(device / "capabilities" / "key"))
    name, serial = _text(device / "name"), _text(device / "uniq")
    return Attached(_node(place), BUSES.get(bus, ""), vendor, product, name, serial, port, keys)


def _read_tty(place: Path) -> Attached | None:
    usb = _usb_device(place)
    if usb is None:
        return None
    vendor, product = (int(_text(usb / word) or "0", 16) for word in ("idVendor", "idProduct"))
    name = " ".join(filter(None, (_text(usb / "manufacturer"), _text(usb / "product"))))
    return Attached(_node(place), "usb", vendor, product, name, _text(usb / "serial"), _usb_port(place))


_READ_BY: dict[str, Callable[[Path], Attached | None]] = {
    "hidraw": _read_hidraw,
    "input": _read_input,
    "tty": _read_tty,
}


def _node(place: Path) -> str:
    return "/dev/" + _uevent(place).get("DEVNAME", place.name)


def _port(phys: str) -> str:
    """All interfaces of a device have one port."""
    return re.sub(r"/input\d+$", "", phys)


def _usb_device(place: Path) -> Path | None:
    real = Path(os.path.realpath(place / "device"))
    return next((above for above in (real, *real.parents) if (above / "idVendor").is_file()), None)


def _usb_port(place: Path) -> str:
    """As the kernel writes it for HID devices (usb_make_path): controller and place in the tree of hubs."""
    usb = _usb_device(place)
    root = next((above for above in usb.parents if re.fullmatch(r"usb\d+", above.name)), None) if usb else None
    return f"usb-{root.parent.name}-{_text(usb / 'devpath')}" if usb and root else ""


def _uevent(place: Path) -> dict[str, str]:
    lines = _text(place / "uevent").splitlines()
    return {key: value for key, found, value in (line.partition("=") for line in lines) if found}


def _bits(words: str) -> frozenset[int]:
    """A bitmap as the kernel prints it: longs in hex, the highest first."""
    number = 0
    for word in words.split():
        number = number << LONG_BITS | int(word, 16)
    return frozenset(bit for bit in range(number.bit_length()) if number >> bit & 1)


def _text(path: Path) -> str:
    return _octets(path).decode("utf-8", "replace").strip()


def _octets(path: Path) -> bytes:
    """Empty for what is not there: a device may go while it is looked at."""
    try:
        with path.open("rb") as file:
            return file.read(DESCRIPTOR_BYTES_MAX + 1)
    except OSError:
        return b""
