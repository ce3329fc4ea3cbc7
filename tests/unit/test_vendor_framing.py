"""Honeywell, Newland and Datalogic against the published bytes of their manuals."""

import pytest
from scanner_wire import datalogic, fm200, msgget, newland

from devices.framing import FaultReason, Frame, FrameFault, Signal
from devices.framing.honeywell import HoneywellFramer, menu_command
from devices.framing.newland import LrcOver, NewlandFramer, command

# --- Honeywell --------------------------------------------------------------------------------------------------------


def test_honeywell_commands_are_the_published_ones() -> None:
    assert menu_command("DECHDR1", keep=True) == bytes.fromhex("164D0D") + b"DECHDR1."
    assert HoneywellFramer().greeting(0) == bytes.fromhex("164D0D") + b"DECHDR1!"
    signals = [HoneywellFramer().verdict_signal(one, 0) for one in (Signal.GOOD, Signal.BAD, Signal.WAIT)]
    assert signals == [bytes.fromhex("1B372C"), bytes.fromhex("1B382C"), bytes.fromhex("1B342C")]


@pytest.mark.parametrize("length", (0, 13, 2047))
def test_msgget_packets_span_reads(length: int) -> None:
    """As in the published tests of enioka_scan: header with a length of zero, nines, CR; the digits count the CR."""
    wire = bytes.fromhex("16FE000000000D") + b"MSGGET%04d" % (length + 1) + b"dE0\x1d" + b"9" * length + b"\r"
    framer = HoneywellFramer()
    half = len(wire) // 2
    assert framer.feed(wire[:half], 0) == []
    assert framer.feed(wire[half:], 400) == [Frame(b"9" * length, "]E0")]


def test_a_code_with_carriage_returns_and_packets_in_it_is_one_frame() -> None:
    code = b"a\rb\r" + msgget(b"inside") + b"\r"
    assert HoneywellFramer().feed(msgget(code), 0) == [Frame(code, "]Q1")]


@pytest.mark.parametrize("answer", (b"DECHDR1\x06!", b"\x16M\rDECHDR1\x05!", b"REVINF\x06.DECHDR9\x15!"))
def test_answers_to_settings_are_no_stray_bytes(answer: bytes) -> None:
    framer = HoneywellFramer()
    framer.feed(answer, 0)
    assert framer.idle(1000) == []


@pytest.mark.parametrize("digits", (b"0000", b"0003", b"9999", b"00:0"))
def test_a_length_that_cannot_be_is_a_fault(digits: bytes) -> None:
    framer = HoneywellFramer()
    wire = msgget(b"CODE").replace(b"MSGGET0005", b"MSGGET" + digits)
    found = [*framer.feed(wire, 0), *framer.idle(1000)]
    assert len(found) == 1
    assert isinstance(found[0], FrameFault)


# --- Newland ----------------------------------------------------------------------------------------------------------

READINGS: tuple[tuple[LrcOver, str], ...] = (
    ("len", "0200000336313233CC"),
    ("len_type", "0200000336313233FA"),
    ("stx_len_type", "0200000336313233F8"),
)


@pytest.mark.parametrize(("over", "wire"), READINGS)
def test_each_manuals_lrc_is_read_and_which_one_is_known(over: LrcOver, wire: str) -> None:
    framer = NewlandFramer()
    assert framer.feed(bytes.fromhex(wire), 0) == [Frame(b"123")]
    assert framer.lrc_matched == over


@pytest.mark.parametrize(("over", "wire"), READINGS)
def test_once_settled_or_configured_another_lrc_is_a_fault(over: LrcOver, wire: str) -> None:
    for other, octets in READINGS:
        found = NewlandFramer(over).feed(bytes.fromhex(octets), 0)
        assert found == ([Frame(b"123")] if other == over else [FrameFault(FaultReason.CHECKSUM, 9)])
    settled = NewlandFramer()
    settled.feed(newland(b"first", start=b"\x02\0"), 0)
    assert settled.lrc_matched == "stx_len"
    assert settled.feed(bytes.fromhex(wire), 0) == [FrameFault(FaultReason.CHECKSUM, 9)]
    settled.idle(1000)
    assert settled.feed(bytes.fromhex(wire), 2000) == [Frame(b"123")], "the question is open again"


def test_each_damaged_packet_is_told_when_a_sound_one_stands_between() -> None:
    damaged, fault = newland(b"123")[:-1] + b"?", FrameFault(FaultReason.CHECKSUM, 9)
    found = NewlandFramer("len").feed(damaged + newland(b"456") + damaged, 0)
    assert found == [fault, Frame(b"456"), fault]


@pytest.mark.parametrize("start", (b"", b"\x02\0"))
@pytest.mark.parametrize("typed", (False, True))
@pytest.mark.parametrize("symbology", (b"", b"\x03"))
def test_both_formats_with_every_lrc(start: bytes, typed: bool, symbology: bytes) -> None:
    code = b"\x02\x00\x00\x0336"
    assert NewlandFramer().feed(newland(code, symbology=symbology, start=start, typed=typed), 0) == [Frame(code)]


def test_fm200_packets_and_answers_to_settings() -> None:
    framer = NewlandFramer()
    answer = bytes.fromhex("020130303030") + b"@DFMADD\x06;\x03"
    assert framer.feed(answer + fm200(b"0017 bytes of text") + answer, 0) == [Frame(b"0017 bytes of text")]
    assert framer.dropped_bytes == 0


def test_newland_commands_are_the_published_ones() -> None:
    assert command("DFMADD", keep=True) == bytes.fromhex("7E0130303030") + b"@DFMADD" + bytes.fromhex("3B03")
    assert command("SCNMOD0") == bytes.fromhex("7E0130303030") + b"#SCNMOD0" + bytes.fromhex("3B03")


# --- Datalogic --------------------------------------------------------------------------------------------------------


def test_a_datalogic_label_is_acked_when_kept_and_left_unanswered_when_not() -> None:
    framer = datalogic()
    assert framer.greeting(0) == b"E"
    [first] = framer.feed(b"ONE\r", 0)
    assert isinstance(first, Frame)
    assert framer.settle(first, False, 1) == b""
    assert framer.settle(first, True, 1) == b"\x06"
    [second] = framer.feed(b"TWO\r", 2)
    assert isinstance(second, Frame)
    assert framer.settle(first, True, 3) == b"", "the scanner waits for the second label's"
    assert framer.settle(second, True, 3) == b"\x06"


def test_a_datalogic_label_that_ends_by_silence_is_acked_too() -> None:
    framer = datalogic(b"")
    assert framer.feed(b"ONE", 0) == []
    [frame] = framer.idle(50)
    assert isinstance(frame, Frame)
    assert framer.settle(frame, True, 51) == b"\x06"


def test_not_on_file_never_leaves_the_scanner_disabled() -> None:
    assert datalogic(not_on_file=True).verdict_signal(Signal.BAD, 0) == b"FE"
    signals = [datalogic().verdict_signal(one, 0) for one in (Signal.GOOD, Signal.BAD, Signal.WAIT)]
    assert signals == [b"\x01", b"34\r", b""]
