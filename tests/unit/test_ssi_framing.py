"""SSI against published vectors: packets to the byte, one scan however often it is sent, ACK once it is journalled."""

import pytest
from scanner_wire import QR, ssi, ssi_scan, ssi_segments

from devices.framing import FRAME_BYTES_MAX, RESENT_MS, FaultReason, Found, Frame, FrameFault, Reply, Signal
from devices.framing.ssi import (
    ACK,
    BEEP,
    COMMAND_MS,
    COMMANDS_WAITING_MAX,
    DENIED,
    LED_OFF,
    LED_ON,
    RESEND_MS,
    SILENCE_MS,
    SsiFramer,
    packet,
    param_number,
    param_send,
)

NAK_RESEND = bytes.fromhex("05D1040001FF25")
VCH_1 = bytes.fromhex("0AF300001C5643482D31FDA8")
VCH_1_AGAIN = bytes.fromhex("0AF300011C5643482D31FDA7")
DECODER_ACK = bytes.fromhex("04D00000FF2C")
PACKETED, QUIET = bytes.fromhex("07C60400FFEE01FD41"), packet(0xC6, b"\xff\x38\x00")


def one_frame(found: list[Found]) -> Frame:
    [frame] = [one for one in found if isinstance(one, Frame)]
    return frame


@pytest.mark.parametrize(
    ("built", "published"),
    (
        (ACK, "04D00400FF28"),
        (packet(0xD0, source=0), "04D00000FF2C"),
        (packet(0xD1, b"\x01"), "05D1040001FF25"),
        (packet(0xD1, b"\x02"), "05D1040002FF24"),
        (DENIED, "05D1040006FF20"),
        (packet(BEEP, b"\x01"), "05E6040001FF10"),
        (packet(BEEP, b"\x12"), "05E6040012FEFF"),
        (packet(LED_ON, b"\x01"), "05E7040001FF0F"),
        (packet(LED_OFF, b"\xff"), "05E80400FFFE10"),
        (packet(0xE9), "04E90400FF0F"),
        (packet(0xEA), "04EA0400FF0E"),
        (packet(0xE4), "04E40400FF14"),
        (packet(0xE9, flags=8), "04E90408FF07"),
        (packet(0xF6, b"\x20", source=0), "05F6000020FEE5"),
        (param_send([(0xEE, 1)]), "07C60400FFEE01FD41"),
        (packet(0xC6, bytes.fromhex("FFF4F03E04FF"), source=0), "0AC60000FFF4F03E04FFFB0C"),
        (packet(0xC6, bytes.fromhex("FF01009C07"), source=0), "09C60000FF01009C07FD8E"),
        (ssi(0xF3, b"\x1cVCH-1"), VCH_1.hex()),
    ),
)
def test_packets_are_the_published_ones(built: bytes, published: str) -> None:
    assert built == bytes.fromhex(published)


def test_parameters_are_temporary_unless_asked() -> None:
    assert param_send([(0xEE, 1)])[3] == 0
    assert param_send([(0xEE, 1)], permanent=True)[3] == 8
    numbers = [param_number(n).hex() for n in (0, 239, 256, 318, 511, 512, 767, 768, 1023, 1024, 0xFFFF)]
    assert numbers == ["00", "ef", "f000", "f03e", "f0ff", "f100", "f1ff", "f200", "f2ff", "f80400", "f8ffff"]


def test_a_scan_is_acked_when_the_journal_has_it_and_not_before() -> None:
    framer = SsiFramer()
    [frame] = framer.feed(VCH_1, 0)
    assert frame == Frame(b"VCH-1", "]Q1")
    assert framer.settle(one_frame([frame]), True, 5) == ACK


def test_a_circulating_nak_with_a_bad_sum_is_asked_for_again() -> None:
    assert SsiFramer().feed(bytes.fromhex("04D10001FF25"), 0) == [Reply(NAK_RESEND)]


def test_a_copy_is_acked_again_and_is_no_second_scan() -> None:
    framer = SsiFramer()
    frame = one_frame(framer.feed(VCH_1, 0))
    assert framer.feed(VCH_1_AGAIN, 2000) == [], "the journal is still writing: its one ACK answers both"
    assert framer.settle(frame, True, 2500) == ACK
    assert framer.feed(VCH_1_AGAIN, 4000) == [Reply(ACK)]
    assert framer.feed(VCH_1_AGAIN, 4000 + RESENT_MS) == [Frame(b"VCH-1", "]Q1", resent=True)]


def test_the_same_bytes_without_the_bit_are_a_new_scan() -> None:
    framer = SsiFramer()
    framer.settle(one_frame(framer.feed(VCH_1, 0)), True, 0)
    assert framer.feed(VCH_1, 100) == [Frame(b"VCH-1", "]Q1")]


def test_a_copy_is_recognised_after_a_replug_and_marked_after_a_restart() -> None:
    framer = SsiFramer()
    framer.settle(one_frame(framer.feed(VCH_1, 0)), True, 0)
    framer.cut()
    framer.greeting(1900)
    assert framer.feed(VCH_1_AGAIN, 2000) == [Reply(ACK)]
    assert SsiFramer().feed(VCH_1_AGAIN, 0) == [Frame(b"VCH-1", "]Q1", resent=True)]


def test_what_the_journal_refuses_is_denied_and_so_is_its_copy() -> None:
    framer = SsiFramer()
    assert framer.settle(one_frame(framer.feed(VCH_1, 0)), False, 0) == DENIED
    assert framer.feed(VCH_1_AGAIN, 2000) == [Reply(DENIED)]


def test_an_ack_that_comes_too_late_is_not_written_for_the_scan_after_it() -> None:
    framer = SsiFramer()
    first = one_frame(framer.feed(VCH_1, 0))
    second = one_frame(framer.feed(ssi_scan(b"VCH-2")[0], 7000))
    assert framer.settle(first, True, 7001) == b""
    assert framer.settle(second, True, 7002) == ACK


def test_a_damaged_packet_is_asked_for_once_and_is_a_fault_only_without_a_sound_copy() -> None:
    damaged = VCH_1[:6] + b"X" + VCH_1[7:]
    framer = SsiFramer()
    assert framer.feed(damaged, 0) == [Reply(NAK_RESEND)]
    assert framer.feed(VCH_1_AGAIN, 50) == [Frame(b"VCH-1", "]Q1", resent=True)]
    assert framer.idle(RESEND_MS) == []
    assert framer.feed(damaged, 10_000) == [Reply(NAK_RESEND)]
    assert framer.idle(10_000 + SILENCE_MS) == []
    assert framer.idle(10_000 + RESEND_MS) == [FrameFault(FaultReason.CHECKSUM, len(VCH_1))]
    assert framer.due_ms() is None


def test_half_a_packet_is_asked_for_again_after_a_silence() -> None:
    framer = SsiFramer()
    assert framer.feed(VCH_1[:7], 0) == []
    assert framer.idle(SILENCE_MS - 1) == []
    assert framer.idle(SILENCE_MS) == [Reply(NAK_RESEND)]
    assert framer.feed(VCH_1_AGAIN, SILENCE_MS + 50) == [Frame(b"VCH-1", "]Q1", resent=True)]


def test_unknown_status_bits_and_the_wake_up_byte_mean_nothing() -> None:
    framer = SsiFramer()
    assert framer.feed(b"\0" * 9 + ssi(0xF3, b"\x1cVCH-1", flags=0xF4), 0) == [Frame(b"VCH-1", "]Q1")]
    assert framer.idle(1000) == []


@pytest.mark.parametrize(("kind", "aim"), ((0x03, "]C0"), (0x1B, "]d1"), (0x7E, "")))
def test_the_type_byte_becomes_an_aim_identifier_where_it_is_known(kind: int, aim: str) -> None:
    assert SsiFramer().feed(ssi(0xF3, bytes([kind]) + b"A"), 0) == [Frame(b"A", aim)]


def test_cordless_scanners_have_four_bytes_before_the_text_and_their_own_ack() -> None:
    framer = SsiFramer(cordless=True)
    assert framer.greeting(0) == packet(0x90, b"\0\x02\0\x05")
    assert framer.feed(ssi(0x91, b"\0", flags=0x80), 10) == [Reply(PACKETED)]
    frame = one_frame(framer.feed(ssi(0xF3, bytes([QR, 1, 0, 5]) + b"VCH-1", flags=0x20), 20))
    assert frame.octets == b"VCH-1"
    assert framer.settle(frame, True, 30) == packet(0x96)


def test_other_packets_are_answered_as_they_need() -> None:
    framer = SsiFramer()
    assert framer.feed(ssi(0xF6, b"\x20") + ssi(0xC6, bytes.fromhex("FF0100")), 0) == [Reply(ACK), Reply(ACK)]
    assert framer.feed(ssi(0xA4, b"revision") + ssi(0xD4, b"\xd0\xd1"), 0) == []


# --- long codes -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("length", (251, 500, 750, 4296))
def test_long_codes_in_continued_packets(length: int) -> None:
    text, framer = bytes(0x41 + i % 26 for i in range(length)), SsiFramer()
    *first, last = ssi_scan(text)
    for at, piece in enumerate(first):
        assert framer.feed(piece, at * 100) == [Reply(ACK)], "the next one comes only after this"
    frame = one_frame(framer.feed(last, 5000))
    assert frame == Frame(text, "]Q1")
    assert framer.settle(frame, True, 5001) == ACK


def test_a_repeated_piece_is_not_joined_twice() -> None:
    framer = SsiFramer()
    text = b"A" * 250 + b"B" * 250 + b"C"
    for flags in (0, 1):  # each piece, and its copy because the ACK was lost
        assert framer.feed(ssi_scan(text, flags)[0], 0) == [Reply(ACK)]
    for flags in (0, 1):
        assert framer.feed(ssi_scan(text, flags)[1], 0) == [Reply(ACK)]
    frame = one_frame(framer.feed(ssi_scan(text)[2], 0))
    assert framer.feed(ssi_scan(text, 1)[2], 0) == []
    assert frame.octets == text


def published_segments() -> list[bytes]:
    """500 times Z as three segments, as enioka_scan has them in its tests."""
    first = bytes.fromhex("FF73020000F3000001F71C0101F4") + b"Z" * 241 + bytes.fromhex("A6D5")
    second = bytes.fromhex("FF73000001") + b"Z" * 250 + bytes.fromhex("A6A9")
    return [first, second, bytes.fromhex("0E73000002") + b"Z" * 9 + bytes.fromhex("FC53")]


def test_long_codes_in_segments() -> None:
    assert published_segments() == ssi_segments(b"Z" * 500)
    framer = SsiFramer()
    first, second, third = published_segments()
    segment_ack = Reply(packet(0x74))
    assert framer.feed(first, 0) == [segment_ack]
    assert framer.feed(second, 10) == [segment_ack]
    frame = one_frame(framer.feed(third, 20))
    assert frame == Frame(b"Z" * 500, "]Q1")
    assert framer.settle(frame, True, 21) == ACK


def test_a_missing_segment_loses_the_scan_and_is_told() -> None:
    first, _, third = published_segments()
    framer = SsiFramer()
    framer.feed(first, 0)
    assert framer.feed(third, 10) == [Reply(packet(0xD1, b"\x02")), FrameFault(FaultReason.CUT_OFF, 241)]
    assert framer.feed(VCH_1, 20) == [Frame(b"VCH-1", "]Q1")]


def test_a_long_code_whose_rest_never_comes_is_told() -> None:
    framer = SsiFramer()
    framer.feed(ssi_scan(b"A" * 300)[0], 0)
    assert framer.due_ms() == RESENT_MS
    assert framer.idle(RESENT_MS) == [FrameFault(FaultReason.CUT_OFF, 250)]
    assert framer.feed(VCH_1, 9000) == [Frame(b"VCH-1", "]Q1")]


def test_an_endless_code_is_acked_to_its_end_kept_nowhere_and_denied() -> None:
    framer = SsiFramer()
    piece, last = ssi(0xF3, b"\x1c" + b"A" * 250, flags=2), ssi(0xF3, b"\x1cEND")
    for _ in range(1000):
        assert framer.feed(piece, 0) == [Reply(ACK)]
        assert framer._parts is not None
        assert len(framer._parts.octets) <= FRAME_BYTES_MAX
    assert framer.feed(last, 0) == [Reply(DENIED), FrameFault(FaultReason.TOO_LONG, 250_003)]
    assert framer.feed(VCH_1, 10) == [Frame(b"VCH-1", "]Q1")]


# --- commands ---------------------------------------------------------------------------------------------------------


def test_at_connect_packets_are_asked_for_and_the_decode_beep_is_silenced_one_by_one() -> None:
    framer = SsiFramer()
    assert framer.greeting(0) == PACKETED
    assert framer.feed(DECODER_ACK, 10) == [Reply(QUIET)]
    assert framer.feed(DECODER_ACK, 20) == []
    assert framer.due_ms() is None


def test_a_scanner_that_answers_no_command_gets_the_next_after_a_while() -> None:
    framer = SsiFramer()
    framer.greeting(0)
    assert framer.due_ms() == COMMAND_MS
    assert framer.idle(COMMAND_MS) == [Reply(QUIET)]
    assert framer.idle(2 * COMMAND_MS) == []


def test_verdicts_beep_and_the_green_light_goes_out_with_the_next_scan() -> None:
    framer = SsiFramer()
    assert framer.verdict_signal(Signal.GOOD, 0) == packet(BEEP, b"\x01")
    assert framer.feed(DECODER_ACK, 10) == [Reply(packet(LED_ON, b"\x01"))]
    framer.feed(DECODER_ACK, 20)
    frame = one_frame(framer.feed(VCH_1, 100))
    assert framer.settle(frame, True, 110) == ACK + packet(LED_OFF, b"\xff")
    framer.feed(DECODER_ACK, 120)
    assert framer.verdict_signal(Signal.BAD, 130) == packet(BEEP, b"\x12")
    framer.feed(DECODER_ACK, 140)
    assert framer.verdict_signal(Signal.WAIT, 150) == packet(BEEP, b"\x05")


def test_waiting_commands_are_bounded() -> None:
    framer = SsiFramer()
    for _ in range(100):
        framer.verdict_signal(Signal.GOOD, 0)
    assert len(framer._commands) == COMMANDS_WAITING_MAX
