"""The shipped till with five scanners on a real kernel: codes go in, verdicts are heard at the devices."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import NamedTuple

import keys
import pytest
from hid_reports import DEVICES
from hid_reports import scan as hid_scan
from input_devices import PRODUCT, VENDOR, Wedge
from qemu_ports import Adapter
from scripted_gateway import ScriptedGateway
from scripted_scanners import ACK, HostAckScanner, SsiScanner
from till_bench import TillBench
from usb_gadgets import FarEnd, Gadget, Gadgets, link_of
from waiting import until

from gateway.messages import Verdict

BEEP = 0xE6
SSI_GOOD, SSI_BAD = b"\x01", b"\x12"
HOST_GOOD, HOST_BAD = b"\x1b7,", b"\x1b8,"
HID_GOOD, HID_BAD = b"\x04\x40", b"\x04\x20"
CONFIG = """
gateways = ["{url}"]
terminal = 7
state_directory = "state"
language = "en"
[[scanners]]
name = "raw"
path = "{raw}"
[[scanners]]
name = "ssi"
path = "{ssi}"
framing = "ssi"
[[scanners]]
name = "honeywell"
path = "{honeywell}"
framing = "honeywell"
[[scanners]]
name = "hid-pos"
kind = "hid-pos"
path = "usb:1209:0001:TG-POS"
[[scanners]]
name = "wedge"
kind = "keyboard"
path = "usb:{vendor:04x}:{product:04x}"
person_ms = 500
"""


class Store(NamedTuple):
    till: TillBench
    gateway: ScriptedGateway
    raw: Adapter
    ssi: SsiScanner
    honeywell: HostAckScanner
    pos: FarEnd
    pos_plug: Gadget
    wedge: Wedge

    async def hid_pos_hears(self, wanted: bytes) -> None:
        heard = bytearray()

        def hears() -> bool:
            heard.extend(self.pos.read())
            return bytes(heard).endswith(wanted)

        await until(hears, lambda: f"{wanted.hex()} at the HID POS scanner, which heard {heard.hex()}")

    def scan_hid_pos(self, code: bytes) -> None:
        for report in hid_scan(DEVICES["honeywell"], code):
            self.pos.write(report)

    def type(self, code: str) -> None:
        for stroke in (*keys.strokes(code), (keys.ENTER,)):
            self.wedge.strike(stroke)


@pytest.fixture
def till(tmp_path: Path) -> Iterator[TillBench]:
    with TillBench(tmp_path) as bench:
        yield bench


@pytest.fixture
async def store(till: TillBench, adapter: Adapter, gadgets: Gadgets) -> AsyncIterator[Store]:
    plugs = [gadgets.new(serial) for serial in ("TG-SSI", "TG-HON", "TG-POS")]
    ends = [plugs[0].add_acm(), plugs[1].add_acm(), plugs[2].add_hid(DEVICES["honeywell"].descriptor)]
    for plug in plugs:
        plug.plug()
    async with ScriptedGateway(till.public_key) as gateway:
        till.config.write_text(
            CONFIG.format(
                url=gateway.url,
                raw=adapter.path,
                ssi=link_of("TG-SSI"),
                honeywell=link_of("TG-HON"),
                vendor=VENDOR,
                product=PRODUCT,
            )
        )
        with Wedge() as wedge:
            ssi, honeywell = SsiScanner(ends[0]), HostAckScanner(ends[1])
            till.start()
            await till.until_shown("connected to the gateway")
            await honeywell.until_heard(b"\x16M\rDECHDR1!")
            ends[1].write(b"DECHDR1\x06!")
            await ssi.until_heard(0xC6, 2)
            yield Store(till, gateway, adapter, ssi, honeywell, ends[2], plugs[2], wedge)


async def test_verdicts_are_heard_at_every_scanner_that_can_sound_one(store: Store) -> None:
    store.gateway.verdict_of = {f"LATE-{number}": Verdict.EXPIRED for number in range(5)}
    for number, word in enumerate(("GOOD", "LATE"), 1):
        good = word == "GOOD"
        store.raw.write(f"{word}-0\r".encode())
        store.ssi.send(f"{word}-1".encode())
        await store.ssi.until_heard(ACK, number)
        assert await store.ssi.until_heard(BEEP, number) == (SSI_GOOD if good else SSI_BAD)
        store.honeywell.send(f"{word}-2".encode())
        assert (await store.honeywell.until_released()).endswith(HOST_GOOD if good else HOST_BAD)
        store.scan_hid_pos(f"{word}-3".encode())
        await store.hid_pos_hears(HID_GOOD if good else HID_BAD)
        store.type(f"{word}-4")
        await store.gateway.until(lambda number=number: len(store.gateway.scans) == 5 * number, 90)  # type: ignore[misc]
    codes = [f"{word}-{number}" for word in ("GOOD", "LATE") for number in range(5)]
    assert sorted(scan.code for scan in store.gateway.scans) == codes
    assert sorted(store.gateway.winners) == codes[:5]
    assert store.till.stop() == 0


async def test_a_hid_pos_scanner_that_was_pulled_out_is_back_with_its_verdicts(store: Store) -> None:
    store.scan_hid_pos(b"ONE")
    await store.hid_pos_hears(HID_GOOD)
    store.pos.write(hid_scan(DEVICES["honeywell"], b"z" * 100)[0])
    store.pos_plug.unplug()
    await store.till.until_shown("[hid-pos]")
    store.pos_plug.plug()
    lines = store.till.screen().count("[hid-pos]")
    await store.till.until_shown("[hid-pos]", lines + 1)
    store.gateway.verdict_of = {"TWO": Verdict.EXPIRED}
    store.scan_hid_pos(b"TWO")
    await store.hid_pos_hears(HID_BAD)
    assert [scan.code for scan in store.gateway.scans] == ["ONE", "TWO"]
