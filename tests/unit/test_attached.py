"""What a path of the configuration finds in sysfs: by vendor, serial or socket, never two, never another interface."""

import os
from pathlib import Path

import pytest
from hid_reports import DEVICES, KEYBOARD
from hypothesis import given
from hypothesis import strategies as st

from devices.attached import Attached, NotAttached, Wanted, attached, node_of, parse_path
from devices.hid_pos import is_hid_pos

KEYS = "1000000000007 ff9f207ac14057ff febeffdfffefffff fffffffffffffffe"  # of a keyboard, as /sys prints it
VOLUME_KEYS = "3e000b 0 0 0"
CONTROLLER = "devices/pci0000:00/0000:00:14.0"


class Sysfs:
    """A tree like the kernel's, with the files that are read of it."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def write(self, place: str, **files: str | bytes) -> None:
        for name, content in files.items():
            path = self.root / place / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content if isinstance(content, bytes) else content.encode() + b"\n")

    def link(self, place: str, target: str) -> None:
        (self.root / place).parent.mkdir(parents=True, exist_ok=True)
        (self.root / place).symlink_to(self.root / target)

    def usb(self, port: str, vendor: str, product: str, serial: str = "") -> str:
        place = f"{CONTROLLER}/usb1/1-{port}"
        self.write(place, idVendor=vendor, idProduct=product, devpath=port, manufacturer="Maker", product="Scanner 9")
        if serial:
            self.write(place, serial=serial)
        return place

    def hid(
        self, number: int, usb: str, descriptor: bytes, ids: str = "0003:00000C2E:00000B61", serial: str = ""
    ) -> None:
        device = f"{usb}/1-x:1.{number}/0003:0C2E:0B61.{number:04}"
        about = "HID_ID=0003:00000C2E:00000B61\nHID_NAME=Maker Scanner 9\nHID_PHYS=usb-0000:00:14.0-9/input0\nHID_UNIQ="
        self.write(device, uevent=about + serial, report_descriptor=descriptor)
        self.write(f"{device}/hidraw/hidraw{number}", uevent=f"MAJOR=240\nDEVNAME=hidraw{number}")
        self.link(f"{device}/hidraw/hidraw{number}/device", device)
        self.link(f"class/hidraw/hidraw{number}", f"{device}/hidraw/hidraw{number}")

    def input(self, number: int, parent: str, keys: str, serial: str = "", phys: str = "", bus: str = "0003") -> None:
        device = f"{parent}/input/input{number}"
        self.write(f"{device}/id", bustype=bus, vendor="05e0", product="1200")
        self.write(device, name="Wedge", uniq=serial, phys=phys)
        self.write(f"{device}/capabilities", key=keys)
        self.write(f"{device}/event{number}", uevent=f"DEVNAME=input/event{number}")
        self.link(f"{device}/event{number}/device", device)
        self.link(f"class/input/event{number}", f"{device}/event{number}")

    def find(self, path: str, subsystem: str = "hidraw") -> str:
        fits = is_hid_pos if subsystem == "hidraw" else Attached.is_keyboard.fget
        assert callable(fits)
        return node_of(path, subsystem, fits, self.root)


@pytest.fixture
def sysfs(tmp_path: Path) -> Sysfs:
    return Sysfs(tmp_path)


POS = DEVICES["honeywell"].descriptor


def test_a_device_is_found_by_vendor_and_product(sysfs: Sysfs) -> None:
    sysfs.hid(3, sysfs.usb("2", "0c2e", "0b61"), POS)
    assert sysfs.find("usb:0c2e:0b61") == sysfs.find("USB:0C2E:0B61") == "/dev/hidraw3"
    [device] = attached("hidraw", sysfs.root)
    assert (device.name, device.port, device.path) == (
        "Maker Scanner 9",
        "usb-0000:00:14.0-2",
        "usb:0c2e:0b61@usb-0000:00:14.0-2",
    )
    with pytest.raises(NotAttached, match="nothing attached is usb:0c2e:0b62"):
        sysfs.find("usb:0c2e:0b62")
    with pytest.raises(NotAttached, match="nothing attached"):
        sysfs.find("bluetooth:0c2e:0b61")


def test_two_alike_are_told_apart_by_serial_or_by_socket_and_never_guessed(sysfs: Sysfs) -> None:
    sysfs.hid(1, sysfs.usb("1.4", "0c2e", "0b61", "S1"), POS, serial="S1")
    sysfs.hid(2, sysfs.usb("3", "0c2e", "0b61"), POS)
    assert sysfs.find("usb:0c2e:0b61:S1") == "/dev/hidraw1"
    assert sysfs.find("usb:0c2e:0b61@usb-0000:00:14.0-3") == "/dev/hidraw2"
    assert sysfs.find("usb:0c2e:0b61:S1@usb-0000:00:14.0-1.4") == "/dev/hidraw1"
    with pytest.raises(NotAttached, match=r"fits 2 devices; .*: usb:0c2e:0b61:S1, usb:0c2e:0b61@usb-0000:00:14\.0-3$"):
        sysfs.find("usb:0c2e:0b61")
    with pytest.raises(NotAttached):
        sysfs.find("usb:0c2e:0b61:S1@usb-0000:00:14.0-3")
    sysfs.input(4, "devices/a", KEYS)
    sysfs.input(5, "devices/b", KEYS)
    with pytest.raises(NotAttached, match=r"name one of them: /dev/input/event4, /dev/input/event5$"):
        sysfs.find("usb:05e0:1200", "input")


def test_only_the_interface_that_has_scans_counts(sysfs: Sysfs) -> None:
    usb = sysfs.usb("2", "0c2e", "0b61")
    sysfs.hid(1, usb, KEYBOARD)
    with pytest.raises(NotAttached, match="no interface of this kind"):
        sysfs.find("usb:0c2e:0b61")
    sysfs.hid(2, usb, POS)
    assert sysfs.find("usb:0c2e:0b61") == "/dev/hidraw2"
    usb = sysfs.usb("5", "05e0", "1200")
    sysfs.input(7, f"{usb}/1-5:1.1", VOLUME_KEYS)
    sysfs.input(12, f"{usb}/1-5:1.0", KEYS)
    assert sysfs.find("usb:05e0:1200", "input") == "/dev/input/event12"


def test_it_is_found_again_under_another_number(sysfs: Sysfs) -> None:
    usb = sysfs.usb("5", "05e0", "1200", "K1")
    sysfs.input(4, f"{usb}/1-5:1.0", KEYS, serial="K1")
    assert sysfs.find("usb:05e0:1200:K1", "input") == "/dev/input/event4"
    os.unlink(sysfs.root / "class/input/event4")
    sysfs.input(23, f"{usb}/1-5:1.0", KEYS, serial="K1")
    assert sysfs.find("usb:05e0:1200:K1", "input") == "/dev/input/event23"


def test_what_hangs_on_no_socket_has_the_place_its_driver_says(sysfs: Sysfs) -> None:
    sysfs.input(1, "devices/virtual", KEYS, phys="aa:bb:cc:00:11:22/input0", serial="dd:ee", bus="0005")
    sysfs.input(2, "devices/platform", VOLUME_KEYS, bus="0019")
    bluetooth, button = attached("input", sysfs.root)
    assert (bluetooth.path, bluetooth.port) == ("bluetooth:05e0:1200:dd:ee", "aa:bb:cc:00:11:22")
    assert sysfs.find("bluetooth:05e0:1200:dd:ee", "input") == "/dev/input/event1"
    assert button.path == "/dev/input/event2"


def test_serial_ports_of_usb(sysfs: Sysfs) -> None:
    usb = sysfs.usb("2", "1eab", "1d06", "N1")
    sysfs.write(f"{usb}/1-2:1.0/tty/ttyACM0", uevent="DEVNAME=ttyACM0")
    sysfs.link(f"{usb}/1-2:1.0/tty/ttyACM0/device", f"{usb}/1-2:1.0")
    sysfs.link("class/tty/ttyACM0", f"{usb}/1-2:1.0/tty/ttyACM0")
    sysfs.write("class/tty/ttyS0", uevent="DEVNAME=ttyS0")
    [device] = attached("tty", sysfs.root)
    assert (device.node, device.path, device.name) == ("/dev/ttyACM0", "usb:1eab:1d06:N1", "Maker Scanner 9")
    assert node_of("usb:1eab:1d06", "tty", lambda device: True, sysfs.root) == "/dev/ttyACM0"


def test_nodes_and_absent_trees(tmp_path: Path) -> None:
    assert node_of("/dev/input/by-id/usb-x-event-kbd", "input", lambda device: False, tmp_path).endswith("event-kbd")
    assert attached("hidraw", tmp_path / "none") == []


@given(text=st.text(max_size=40))
def test_any_path_is_a_node_or_a_device(text: str) -> None:
    assert parse_path(text) is None or text.partition(":")[0].lower() in ("usb", "bluetooth")
    serial = text.replace("@", "").replace("\n", "")
    if serial:
        assert parse_path(f"usb:0c2e:00ff:{serial}@p") == Wanted("usb", 0x0C2E, 0xFF, serial, "p")
