"""The rules that are shipped, under a real udevd: group, links, and nothing of it for other makers' devices."""

import grp
from pathlib import Path

import pytest
from hid_reports import DEVICES
from probe import Probe
from usb_gadgets import Gadgets
from waiting import until_sync

from devices.config import SerialConfig

HONEYWELL = 0x0C2E
GROUP = "tillgate-scanners"


@pytest.mark.parametrize("kind", ("tty", "hid"))
def test_a_scanner_gets_its_group_and_a_link_that_outlives_the_plug(gadgets: Gadgets, kind: str) -> None:
    gadget = gadgets.new("TG-0042", vendor=HONEYWELL)
    gadget.add_acm() if kind == "tty" else gadget.add_hid(DEVICES["honeywell"].descriptor)
    link = Path(f"/dev/scanner/{kind}-Maker_Scanner_TG-0042")
    for _ in range(2):
        gadget.plug()
        until_sync(lambda: access_to(link) == (GROUP, 0o660), f"the group of {link}")
        gadget.unplug()
        until_sync(lambda: not link.is_symlink(), f"{link} to go")


async def test_the_link_is_a_path_for_the_configuration(gadgets: Gadgets) -> None:
    gadget = gadgets.new("TG-0042", vendor=HONEYWELL)
    end = gadget.add_acm()
    gadget.plug()
    async with Probe(SerialConfig("lane1", "/dev/scanner/tty-Maker_Scanner_TG-0042")) as probe:
        end.write(b"VCH-1\r")
        assert await probe.until_read(1) == [b"VCH-1"]


def test_another_makers_port_is_left_alone(gadgets: Gadgets) -> None:
    gadget = gadgets.new("TG-0043")
    gadget.add_acm()
    gadget.plug()
    port = Path("/dev/serial/by-id/usb-Maker_Scanner_TG-0043-if00")
    until_sync(port.exists, str(port))
    until_sync(lambda: access_to(port) == ("dialout", 0o660), "what Debian's own rules give it")
    assert not list(Path("/dev").glob("scanner/*TG-0043*"))


def access_to(path: Path) -> tuple[str, int] | None:
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return grp.getgrgid(found.st_gid).gr_name, found.st_mode & 0o777
