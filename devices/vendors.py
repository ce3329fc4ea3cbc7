"""What is known of scanners by their maker: how to guess the protocol, and what each one needs before it can be used.

Only what stands in a maker's published manual is told as a command. Where the content of a programming barcode is not
certain the manual is named instead: a wrong one can leave a scanner that talks to nobody.

Sources: Honeywell Xenon/Granit and 2020 user guides (menu commands, Host ACK), Zebra DS9908 product reference (SSI
parameters), Newland serial programming command manual (command syntax), Datalogic PowerScan programming manual.
"""

from difflib import SequenceMatcher

import msgspec

from devices.framing import honeywell, ssi


class Vendor(msgspec.Struct, frozen=True):
    """`framing`: what its scanners are best set to on a serial line; empty: an adapter, anything may hang on it."""

    name: str
    framing: str = ""


VENDORS = {  # by USB vendor id
    0x0C2E: Vendor("Honeywell", "honeywell"),
    0x23D0: Vendor("Youjie (Honeywell)", "honeywell"),
    0x05E0: Vendor("Zebra (Symbol)", "ssi"),
    0x05F9: Vendor("Datalogic (PSC)", "datalogic"),
    0x1EAB: Vendor("Newland", "newland"),
    0x067E: Vendor("Intermec", "raw"),
    0x1FBB: Vendor("Cino", "raw"),
    0x065A: Vendor("Opticon", "raw"),
    0x0403: Vendor("FTDI adapter"),
    0x067B: Vendor("Prolific adapter"),
    0x1A86: Vendor("WCH adapter"),
    0x10C4: Vendor("Silicon Labs adapter"),
}


class Need(msgspec.Struct, frozen=True):
    """Something a scanner has to be set to. `octets`: what does it; empty: only the manual's own barcode does."""

    what: str
    octets: bytes = b""
    sent_by_till: bool = False  # at each connect, so nothing is left to do
    look_for: str = ""  # in the manual


_SERIAL = Need("a serial line: RS-232, or USB as a virtual COM port", look_for="USB COM / CDC / USB serial emulation")
_QUIET = "no beep of its own for a good read: only the verdict sounds"
NEEDS: dict[str, tuple[Need, ...]] = {  # by framing of the configuration; keyboard and hid-pos by kind
    "raw": (
        _SERIAL,
        Need("the suffix of the configuration (CR unless you chose another)", look_for="terminator / suffix"),
        Need("the AIM identifier before each code, if it can (optional)", look_for="transmit AIM ID"),
    ),
    "ssi": (
        Need("SSI on its line, with ACK/NAK", look_for="Select SSI Host; software handshaking ACK/NAK"),
        Need("reads in packets", ssi.param_send([(ssi.PARAM_PACKETED, 1)]), sent_by_till=True),
        Need(_QUIET, ssi.param_send([(ssi.PARAM_DECODE_BEEP, 0)]), sent_by_till=True),
    ),
    "honeywell": (
        _SERIAL,
        Need("reads in packets", honeywell.menu_command("DECHDR1"), sent_by_till=True),
        Need("silent until the verdict: Host ACK on", look_for="Host Command Acknowledgment, Host ACK On"),
    ),
    "newland": (
        _SERIAL,
        Need("data packing on, format 1 or 2", look_for="Data Pack, Data Packing"),
    ),
    "datalogic": (
        _SERIAL,
        Need(
            "an ACK for each label; then set label_ack = true in the configuration (optional)",
            look_for="Label ACK/NAK, item $CR2AE, value 01",
        ),
    ),
    "keyboard": (
        Need("the country of the configuration: US unless you chose another", look_for="keyboard layout / country"),
        Need("keys and not ALT codes", look_for="ALT mode / emulate keypad: off"),
        Need("Enter after each code", look_for="terminator / suffix CR"),
        Need("better: a virtual COM port or HID POS, which loses nothing", look_for="USB COM / CDC, HID POS"),
    ),
    "hid-pos": (
        Need("the USB mode HID POS", look_for="USB HID POS, point of sale"),
        Need(_QUIET, look_for="good read beep: off"),
    ),
    "camera": (),
}

TEST_CODES = {  # no vouchers; each shows what a line or a keyboard setting would change
    "plain": "TILLGATE TEST 0123456789",
    "letters and signs": "Tillgate-Test/qwaszym?+=:;_",
    "group separator": "TILLGATE TEST\x1dAFTER GS",
    "line end inside": "TILLGATE TEST\rAFTER CR",
}
ALIKE = 0.6  # share of a test code's characters that must have arrived to know it by; vouchers stay far below


def known_test_code(text: str) -> str:
    """The name of the test code that this is, perhaps changed on its way; empty: none."""
    shares = {
        name: SequenceMatcher(None, code.casefold(), text.casefold()).ratio() for name, code in TEST_CODES.items()
    }
    best = max(shares, key=shares.__getitem__)
    return best if shares[best] >= ALIKE else ""
