"""Raw serial framing: the same bytes give the same frames however the reads split them."""

import itertools
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devices.framing import FRAME_BYTES_MAX, FaultReason, Frame, FrameFault
from devices.framing.raw import CUT_OFF_MS, SUFFIXES, RawFramer

ENDS = ("cr", "lf", "crlf", "tab", "etx")
CODES = st.lists(st.binary(min_size=1, max_size=40).filter(lambda b: not set(b) & set(b"\r\n\t\x03\x02")), max_size=6)
CUTS = st.lists(st.integers(0, 300), max_size=40)


def split_at(wire: bytes, cuts: Sequence[int]) -> list[bytes]:
    edges = [0, *sorted(cut for cut in cuts if cut < len(wire)), len(wire)]
    return [wire[a:b] for a, b in itertools.pairwise(edges)]


def fed(framer: RawFramer, pieces: Sequence[bytes], now_ms: int = 0) -> list[Frame | FrameFault]:
    return [found for piece in pieces for found in framer.feed(piece, now_ms)]


def octets(found: Sequence[Frame | FrameFault]) -> list[bytes | FaultReason]:
    return [one.octets if isinstance(one, Frame) else one.reason for one in found]


@pytest.mark.parametrize("suffix", ENDS)
@pytest.mark.parametrize("prefix", (b"", b"\x02", b"]Q"))
@given(codes=CODES, cuts=CUTS)
def test_splits_do_not_matter(suffix: str, prefix: bytes, codes: list[bytes], cuts: list[int]) -> None:
    wire = b"".join(prefix + code + SUFFIXES[suffix] for code in codes)
    framer = RawFramer(SUFFIXES[suffix], prefix)
    assert octets(fed(framer, split_at(wire, cuts))) == codes
    assert framer.dropped_bytes == 0


@given(codes=CODES, cuts=CUTS)
def test_line_feed_after_carriage_return_is_the_same_end(codes: list[bytes], cuts: list[int]) -> None:
    wire = b"".join(code + b"\r\n" for code in codes)
    assert octets(fed(RawFramer(b"\r"), split_at(wire, cuts))) == codes


@given(wire=st.binary(max_size=200), cuts=CUTS, suffix=st.sampled_from(ENDS), prefix=st.sampled_from((b"", b"\x02")))
def test_noise_is_read_the_same_in_any_pieces(wire: bytes, cuts: list[int], suffix: str, prefix: bytes) -> None:
    whole, split = (RawFramer(SUFFIXES[suffix], prefix) for _ in range(2))
    assert fed(whole, [wire]) == fed(split, split_at(wire, cuts))
    assert whole.dropped_bytes == split.dropped_bytes


@given(codes=st.lists(st.binary(min_size=1, max_size=40), max_size=6), cuts=CUTS)
def test_without_a_suffix_silence_ends_the_frame(codes: list[bytes], cuts: list[int]) -> None:
    framer, found, now_ms = RawFramer(b"", gap_ms=50), [], 0
    for i, code in enumerate(codes):
        for piece in split_at(code, cuts):
            found += framer.feed(piece, now_ms)
            now_ms += 49 if piece is not code else 0
        now_ms += 51
        if i % 2:  # told by the timer, or only noticed at the next read
            found += framer.idle(now_ms)
    found += framer.idle(now_ms + 50)
    assert octets(found) == codes
    assert framer.due_ms() is None


@pytest.mark.parametrize("suffix", (*ENDS, "none"))
@pytest.mark.parametrize("piece", (1, 7, 1024, 100_000))
def test_an_endless_frame_is_one_fault_bounded_and_left_behind(suffix: str, piece: int) -> None:
    end = SUFFIXES[suffix]
    noise = b"x" * (FRAME_BYTES_MAX * 3 + 1)
    framer = RawFramer(end, gap_ms=50)
    found = fed(framer, [noise[at : at + piece] for at in range(0, len(noise), piece)])
    assert octets(found) == [FaultReason.TOO_LONG]
    assert len(framer._buffer) <= 1
    after = fed(framer, [end + b"GOOD" + end], now_ms=60)
    assert octets([*after, *framer.idle(200)]) == [b"GOOD"]
    assert framer.dropped_bytes == len(noise)


@pytest.mark.parametrize("suffix", ENDS)
@given(cut=st.integers(0, FRAME_BYTES_MAX + 4), length=st.integers(FRAME_BYTES_MAX - 1, FRAME_BYTES_MAX + 2))
def test_the_bound_is_exact_in_any_pieces(suffix: str, cut: int, length: int) -> None:
    wire = b"x" * length + SUFFIXES[suffix] + b"NEXT" + SUFFIXES[suffix]
    found = octets(fed(RawFramer(SUFFIXES[suffix]), split_at(wire, [cut])))
    assert found == [b"x" * length if length <= FRAME_BYTES_MAX else FaultReason.TOO_LONG, b"NEXT"]


def test_garbage_costs_at_most_the_scan_it_touches() -> None:
    framer = RawFramer(b"\x03", b"\x02")
    assert octets(fed(framer, [b"\xff\x00\x02ONE\x03", b"\x02TW\x02THREE\x03", b"junk\x03\x02FOUR\x03"])) == [
        b"ONE",
        b"THREE",  # the second scan was cut; its rest must not be glued to the third
        FaultReason.NO_PREFIX,
        b"FOUR",
    ]
    assert framer.dropped_bytes == 2 + 3 + 4


def test_a_printable_prefix_counts_only_at_the_start() -> None:
    assert octets(fed(RawFramer(b"\r", b"A"), [b"A1A2\rB1A2\r"])) == [b"1A2", FaultReason.NO_PREFIX]


def test_half_a_frame_is_told_after_a_silence_and_forgotten() -> None:
    framer = RawFramer(b"\r")
    assert framer.feed(b"HALF", 1000) == []
    assert framer.due_ms() == 1000 + CUT_OFF_MS
    assert framer.idle(999 + CUT_OFF_MS) == []
    assert octets(framer.feed(b"WHOLE\r", 1000 + CUT_OFF_MS)) == [FaultReason.CUT_OFF, b"WHOLE"]
    assert framer.due_ms() is None


def test_a_lost_line_forgets_half_a_frame() -> None:
    framer = RawFramer(b"\r")
    framer.feed(b"HALF", 0)
    assert octets(framer.cut()) == [FaultReason.CUT_OFF]
    assert octets(framer.feed(b"\nWHOLE\r", 10)) == [b"\nWHOLE"]


def test_empty_frames_are_nothing() -> None:
    assert fed(RawFramer(b"\r"), [b"\r\r\n\r\n\n\r"]) != []  # the lone LF in front of the last CR is a byte of content
    assert fed(RawFramer(b"\r"), [b"\r\r\n\r\n\r"]) == []


def test_a_frame_never_shows_its_code() -> None:
    assert "SECRET" not in repr(Frame(b"SECRET"))
