"""Which devices of this machine could be scanners, how each is best read, and what stands in the way. Opens none."""

import grp
import os
import pwd
import shlex
from collections.abc import Iterator
from pathlib import Path

import msgspec

from devices.attached import SYSFS, Attached, attached
from devices.vendors import VENDORS

DEV = Path("/dev")
POS_PAGE = b"\x05\x8c"  # HID 1.11: usage page, one byte: point of sale
STABLE = {"tty": ("serial/by-id",), "video4linux": ("v4l/by-id", "v4l/by-path")}
SERIAL_TYPE_NONE = "0"  # PORT_UNKNOWN of the kernel: a port of this number is not there


class Found(msgspec.Struct, frozen=True):
    """One device. `path` is what belongs into the configuration; empty texts: nothing is known, or nothing is wrong."""

    kind: str  # serial, keyboard, hid-pos, camera
    node: str
    path: str
    vendor: str
    product: str
    serial: str
    usb_id: str
    framing: str  # serial: what to try first
    guess: str  # in words
    problem: str
    next_step: str


def detect(sysfs: Path = SYSFS, dev: Path = DEV) -> list[Found]:
    """The likeliest scanners first."""
    found = [*_serial_ports(sysfs, dev), *_hid_pos(sysfs, dev), *_keyboards(sysfs, dev), *_cameras(sysfs, dev)]
    return sorted(found, key=lambda one: (not one.vendor, one.kind != "serial"))


def _serial_ports(sysfs: Path, dev: Path) -> Iterator[Found]:
    usb = attached("tty", sysfs)
    for one in usb:
        vendor = VENDORS.get(one.vendor)
        framing = vendor.framing if vendor and vendor.framing else "raw"
        if vendor and not vendor.framing:
            guess = "a serial adapter: what hangs on it cannot be seen; bare text unless you know better"
        elif vendor:
            guess = f"{framing}: what {vendor.name} scanners do best on a serial line"
        else:
            guess = "bare text, unless its manual says otherwise"
        # Two alike without serial numbers share one name of udev's: their sockets tell them apart.
        by_id = _stable("tty", one.node, dev) if one.serial else one.node
        yield _found("serial", one, by_id if by_id != one.node else one.path, framing, guess)
    for name in _built_in_ports(sysfs, {Path(one.node).name for one in usb}):
        one = Attached(str(dev / name), "", 0, 0, "a built-in serial port", "", "")
        yield _found("serial", one, one.node, "raw", "whether anything hangs on it cannot be seen")


def _built_in_ports(sysfs: Path, known: set[str]) -> Iterator[str]:
    directory = sysfs / "class" / "tty"
    for name in sorted(os.listdir(directory)) if directory.is_dir() else ():
        kind = _text(directory / name / "type")
        if name.startswith("ttyS") and name not in known and kind not in ("", SERIAL_TYPE_NONE):
            yield name


def _hid_pos(sysfs: Path, dev: Path) -> Iterator[Found]:
    for one in attached("hidraw", sysfs):
        if POS_PAGE in one.descriptor:
            yield _found("hid-pos", one, one.path, "", "a HID POS scanner: reads whole codes, and sounds verdicts")


def _keyboards(sysfs: Path, dev: Path) -> Iterator[Found]:
    for one in attached("input", sysfs):
        if one.is_keyboard:
            known = one.vendor in VENDORS
            guess = "a scanner that types" if known else "a keyboard, or a scanner that types"
            yield _found("keyboard", one, one.path, "", guess)


def _cameras(sysfs: Path, dev: Path) -> Iterator[Found]:
    directory = sysfs / "class" / "video4linux"
    for name in sorted(os.listdir(directory)) if directory.is_dir() else ():
        if _text(directory / name / "index") in ("", "0"):  # the further nodes of a camera carry its metadata
            one = Attached(str(dev / name), "", 0, 0, _text(directory / name / "name"), "", "")
            yield _found("camera", one, _stable("video4linux", one.node, dev), "", "a camera: reads pictures of codes")


def _found(kind: str, one: Attached, path: str, framing: str, guess: str) -> Found:
    vendor = VENDORS.get(one.vendor)
    problem = _problem(one.node)
    more = f" --framing {framing}" if framing and framing != "raw" else ""
    setup = f"tillgate terminal setup --kind {kind} --path {shlex.quote(path)}{more}"
    return Found(
        kind=kind,
        node=one.node,
        path=path,
        vendor=vendor.name if vendor else "",
        product=one.name,
        serial=one.serial,
        usb_id=f"{one.vendor:04x}:{one.product:04x}" if one.vendor else "",
        framing=framing,
        guess=guess,
        problem=problem,
        next_step=setup if not problem else "mend the problem, then detect again",
    )


def _problem(node: str) -> str:
    """Why this user could not open it."""
    try:
        about = os.stat(node)
    except FileNotFoundError:
        return f"{node} is not there: the kernel knows the device, and /dev does not (a container?)"
    except OSError as error:
        return f"{node}: {error.strerror}"
    if os.access(node, os.R_OK | os.W_OK):
        return ""
    user, group = _user_name(os.geteuid()), _group_name(about.st_gid)
    if group in ("root", "0"):
        return (
            f"{user} may not open {node}, which is root's alone: install the rules of ops/udev, then plug it in again"
        )
    return f"{user} may not open {node}: sudo usermod -aG {group} {user}, then log in again"


def _user_name(number: int) -> str:
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return str(number)


def _group_name(number: int) -> str:
    try:
        return grp.getgrgid(number).gr_name
    except KeyError:
        return str(number)


def _stable(subsystem: str, node: str, dev: Path) -> str:
    """The name that udev gave it for good; the node where there is none."""
    for directory in STABLE[subsystem]:
        links = dev / directory
        for link in sorted(links.iterdir()) if links.is_dir() else ():
            if os.path.realpath(link) == os.path.realpath(node):
                return str(link)
    return node


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8", "replace").strip()
    except OSError:
        return ""
