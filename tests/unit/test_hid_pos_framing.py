"""HID POS reports: each layout found in its descriptor, pieces joined, damage named, what it can be made to sound."""

import pytest
from hid_reports import (
    DATA_VAR,
    DEVICES,
    FEATURE,
    INPUT,
    KEYBOARD,
    OUTPUT,
    TRIGGER,
    Device,
    collection,
    main,
    page,
    scan,
    usage,
    usages,
)
from hypothesis import given
from hypothesis import strategies as st

from devices.framing import FRAME_BYTES_MAX, FaultReason, Frame, FrameFault, Signal
from devices.framing.hid_descriptor import DescriptorFault, Kind, parse_descriptor
from devices.framing.hid_pos import JOIN_MS, HidPosFramer

CODE = b"VCH-7F00Q2"


def framer_of(device: Device) -> HidPosFramer:
    framer = HidPosFramer()
    framer.describe(device.descriptor)
    return framer


def feed(framer: HidPosFramer, reports: list[bytes], now_ms: int = 0) -> list[Frame | FrameFault]:
    return [one for report in reports for one in framer.feed(report, now_ms)]


@pytest.fixture(params=DEVICES, ids=str)
def device(request: pytest.FixtureRequest) -> Device:
    return DEVICES[request.param]


def test_one_report_is_one_frame(device: Device) -> None:
    framer = framer_of(device)
    assert feed(framer, scan(device, CODE) * 2) == [Frame(CODE, "]Q1")] * 2
    assert framer.due_ms() is None


def test_recorded_reports_of_a_manual() -> None:
    """Access-IS LSR118: `02 38 5D 51 30 <56 bytes> 73 00 01`, then `02 04 5D 51 30 ... 00`."""
    first = bytes.fromhex("02 38 5D 51 30") + b"A" * 56 + bytes.fromhex("73 00 01")
    second = bytes.fromhex("02 04 5D 51 30") + b"BCDE".ljust(56, b"\0") + bytes.fromhex("73 00 00")
    assert feed(framer_of(DEVICES["honeywell"]), [first, second]) == [Frame(b"A" * 56 + b"BCDE", "]Q0")]


def test_a_long_code_is_joined_and_its_line_end_is_not_part_of_it(device: Device) -> None:
    text = bytes(range(0x20, 0x7F)) * 9 + b"\rinner\r"
    assert feed(framer_of(device), scan(device, text)) == [Frame(text[:-1], "]Q1")]


def test_a_full_last_piece_that_says_it_goes_on_ends_by_silence(device: Device) -> None:
    framer = framer_of(device)
    assert feed(framer, [device.report(b"A" * 56, b"]Q1", True)], 1000) == []
    assert framer.due_ms() == 1000 + JOIN_MS
    assert framer.idle(1000 + JOIN_MS - 1) == []
    assert framer.idle(1000 + JOIN_MS) == [Frame(b"A" * 56, "]Q1")]
    assert framer.due_ms() is None


def test_half_a_scan_is_a_fault(device: Device) -> None:
    framer = framer_of(device)
    assert feed(framer, [device.report(b"half", b"]Q1", True)], 1000) == []
    assert framer.idle(2000) == [FrameFault(FaultReason.CUT_OFF, 4)]
    assert feed(framer, [device.report(b"A" * 56, b"]Q1", True)], 3000) == []
    assert framer.cut() == [FrameFault(FaultReason.CUT_OFF, 56)]
    assert feed(framer, scan(device, CODE), 4000) == [Frame(CODE, "]Q1")]


def test_another_identifier_is_another_scan(device: Device) -> None:
    reports = [device.report(b"A" * 56, b"]Q1", True), device.report(CODE, b"]C0", False)]
    assert feed(framer_of(device), reports) == [Frame(b"A" * 56, "]Q1"), Frame(CODE, "]C0")]
    reports = [device.report(b"A" * 56, b"]Q1", True), device.report(CODE, b"", False)]
    assert feed(framer_of(device), reports) == [Frame(b"A" * 56 + CODE, "]Q1")], "some name it only once"


def test_no_identifier_and_one_that_comes_a_byte_late() -> None:
    device = DEVICES["honeywell"]
    assert feed(framer_of(device), [device.report(CODE, b"", False)]) == [Frame(CODE)]
    late = bytes([2, len(CODE), 0]) + b"]Q1" + CODE.ljust(55, b"\0") + bytes([0x73, 0, 0])
    assert feed(framer_of(device), [late]) == [Frame(CODE, "]Q1")]


def test_damaged_reports_are_named_and_the_next_scan_is_whole(device: Device) -> None:
    framer = framer_of(device)
    [sound] = scan(device, CODE)
    assert feed(framer, [sound[:-2]]) == [FrameFault(FaultReason.CUT_OFF, len(sound) - 2)]
    assert feed(framer, [sound]) == [Frame(CODE, "]Q1")]


def test_a_count_beyond_the_text_is_damage() -> None:
    device = DEVICES["compact"]
    report = bytearray(scan(device, CODE)[0])
    report[1] = 57
    assert feed(framer_of(device), [bytes(report)]) == [FrameFault(FaultReason.CHECKSUM, 62)]


def test_reports_of_another_kind_are_not_scans() -> None:
    framer = framer_of(DEVICES["compact"])
    assert feed(framer, [b"\x09\x01"]) == [FrameFault(FaultReason.STRAY, 2)]
    assert feed(framer, [b""]) == [FrameFault(FaultReason.STRAY, 0)]
    battery = page(0x06) + usage(0x20) + main(INPUT, DATA_VAR, 8, 1, 9)
    framer.describe(DEVICES["compact"].descriptor + collection(1, battery))
    assert feed(framer, [b"\x09\x01"]) == []


def test_too_long_is_told_once_and_memory_is_bounded(device: Device) -> None:
    framer = framer_of(device)
    found = []
    for report in scan(device, b"A" * (3 * FRAME_BYTES_MAX)):
        found += framer.feed(report, 0)
        assert len(framer._buffer) <= FRAME_BYTES_MAX
    assert [one.reason for one in found if isinstance(one, FrameFault)] == [FaultReason.TOO_LONG]
    assert len(found) == 1
    assert feed(framer, scan(device, CODE)) == [Frame(CODE, "]Q1")]


# --- signals ----------------------------------------------------------------------------------------------------------


def test_the_beeps_are_where_the_descriptor_has_them() -> None:
    for name in ("honeywell", "no count"):
        framer = framer_of(DEVICES[name])
        assert framer.sounds == {Signal.GOOD, Signal.BAD}
        assert framer.verdict_signal(Signal.GOOD, 0) == b"\x04\x40"
        assert framer.verdict_signal(Signal.BAD, 0) == b"\x04\x20"
        assert framer.verdict_signal(Signal.WAIT, 0) == b"", "must not sound like a yes"
        assert framer.led_off == b""
    assert framer_of(DEVICES["compact"]).sounds == frozenset()


def test_other_devices_have_them_elsewhere() -> None:
    outputs = usages(0x7B, 0x7E) + main(OUTPUT, DATA_VAR, 4, 4) + usage(0x87) + main(OUTPUT, DATA_VAR, 1, 1)
    device = HidPosFramer()
    device.describe(DEVICES["odd"].descriptor + collection(1, outputs))
    assert device.verdict_signal(Signal.GOOD, 0) == b"\x00\x00\x01\x00", "no ids: hidraw wants a zero in front"
    assert device.led_off == b"\x00\x00\x00\x00", "a light has to be put out again"
    assert device.verdict_signal(Signal.BAD, 0) == b"\x00\x00\x00\x01", "not on file, where there is no error beep"


def test_vendors_that_must_be_told_to_send_scans_here() -> None:
    framer = framer_of(DEVICES["honeywell"])
    assert framer.redirection(0x0C2E) == b"\xfe\x01"
    assert framer.redirection(0x05E0) == b""
    assert framer_of(DEVICES["compact"]).redirection(0x0C2E) == b"", "its descriptor has no such report"


# --- descriptors ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("descriptor", "told"),
    (
        (b"", "no decoded data"),
        (KEYBOARD, "no decoded data"),
        (DEVICES["compact"].descriptor[:-3], "cut off"),
        (b"\xc0", "an end without a collection at byte 0"),
        (b"\xb4", "a pop without a push"),
        (b"\xa4" * 40, "pushes too deep"),
        (b"\xa1\x01" * 40, "collections too deep"),
        (b"\x85\x00", "report id 0"),
        (b"\x29\x05", "a usage maximum below its minimum"),
        (b"\x97\xff\xff\xff\xff\x81\x02", "a report that is too long"),
        (b"\x0c", "reserved type"),
        (main(INPUT, DATA_VAR, 8, 1) + main(INPUT, DATA_VAR, 8, 1, 3), "some have none"),
        (bytes(4097), "4097 bytes"),
    ),
)
def test_what_is_wrong_with_a_descriptor_is_named(descriptor: bytes, told: str) -> None:
    framer = HidPosFramer()
    with pytest.raises(DescriptorFault, match=told):
        framer.describe(descriptor)


def test_the_places_of_fields() -> None:
    """Two ranges of usages, the last one shared by what is left; a state pushed and popped; a long item skipped."""
    octets = b"\xfe\x02\x01\xaa\xbb" + page(0x8C) + b"\xa4" + page(0x01) + b"\xb4"
    octets += usages(0x10, 0x12) + usage(0x40) + main(INPUT, DATA_VAR, 4, 8, 7) + b"\x0b\x3b\x00\x01\x00"
    octets += main(FEATURE, DATA_VAR, 16, 1)
    descriptor = parse_descriptor(octets)
    bits, feature = descriptor.fields
    assert (bits.bit_at, bits.bits, bits.count, bits.report_id) == (0, 4, 8, 7)
    assert [bits.run_of(0x8C0000 | number) for number in (0x0F, 0x10, 0x12, 0x40)] == [(0, 0), (0, 1), (2, 1), (3, 5)]
    assert feature.run_of(0x1003B) == (0, 1)
    assert descriptor.bits == {(Kind.INPUT, 7): 32, (Kind.FEATURE, 7): 16}


@given(octets=st.binary(max_size=300))
def test_any_descriptor_is_parsed_or_refused(octets: bytes) -> None:
    framer = HidPosFramer()
    try:
        framer.describe(octets)
    except DescriptorFault:
        return
    framer.feed(bytes(64), 0)


@given(name=st.sampled_from(sorted(DEVICES)), at=st.integers(0, 1 << 16), bit=st.integers(0, 7), reports=st.data())
def test_a_flipped_bit_of_a_descriptor_breaks_nothing(name: str, at: int, bit: int, reports: st.DataObject) -> None:
    device = DEVICES[name]
    octets = bytearray(device.descriptor)
    octets[at % len(octets)] ^= 1 << bit
    framer = HidPosFramer()
    try:
        framer.describe(bytes(octets))
    except DescriptorFault:
        return
    feed(framer, scan(device, CODE) + reports.draw(st.lists(st.binary(max_size=70), max_size=3)))
    for signal in Signal:
        framer.verdict_signal(signal, 0)


@given(name=st.sampled_from(sorted(DEVICES)), at=st.integers(0, 63), bit=st.integers(0, 7), text=st.binary(min_size=1))
def test_a_flipped_bit_of_a_report_costs_at_most_its_scan(name: str, at: int, bit: int, text: bytes) -> None:
    device = DEVICES[name]
    framer = framer_of(device)
    for report in scan(device, text):
        octets = bytearray(report)
        octets[at % len(octets)] ^= 1 << bit
        framer.feed(bytes(octets), 0)
    framer.idle(JOIN_MS)
    assert feed(framer, scan(device, CODE), 1000) == [Frame(CODE, "]Q1")]


def test_the_trigger_report_is_as_the_manuals_have_it() -> None:
    """One byte: 0x40 good beep, 0x20 error beep, 0x02 prevent read."""
    fields = {field.usages: field for field in parse_descriptor(TRIGGER).fields if not field.constant}
    assert [field.bit_at for field in fields.values()] == [1, 2, 5]
