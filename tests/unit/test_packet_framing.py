"""All framers, the same demands: any split, any garbage, any damage, bounded."""

import itertools
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scanner_wire import LENGTH_FRAMED, MAKERS

from devices.framing import FRAME_BYTES_MAX, FaultReason, Found, Frame, FrameFault, Framer, Reply

CODES = st.lists(st.binary(min_size=1, max_size=60), max_size=6)
CUTS = st.lists(st.integers(0, 400), max_size=40)
LATER_MS = 10_000  # every silence means all it can by then


def split_at(wire: bytes, cuts: Sequence[int]) -> list[bytes]:
    edges = [0, *sorted(cut for cut in cuts if cut < len(wire)), len(wire)]
    return [wire[a:b] for a, b in itertools.pairwise(edges)]


def fed(framer: Framer, pieces: Sequence[bytes], now_ms: int = 0) -> list[Found]:
    return [found for piece in pieces for found in framer.feed(piece, now_ms)]


def quiet(framer: Framer) -> list[Found]:
    """Nothing more comes, for as long as that can mean something."""
    found: list[Found] = []
    while (due_ms := framer.due_ms()) is not None:
        found += framer.idle(due_ms)
    return found


def texts(found: Sequence[Found]) -> list[bytes]:
    return [one.octets for one in found if isinstance(one, Frame)]


def faults(found: Sequence[Found]) -> list[FaultReason]:
    return [one.reason for one in found if isinstance(one, FrameFault)]


@pytest.mark.parametrize("name", LENGTH_FRAMED)
@given(codes=CODES, cuts=CUTS)
def test_splits_do_not_matter(name: str, codes: list[bytes], cuts: list[int]) -> None:
    make, encode = MAKERS[name]
    framer = make()
    found = fed(framer, split_at(b"".join(map(encode, codes)), cuts))
    assert texts(found) == codes
    assert not faults(found)
    assert framer.dropped_bytes == 0
    assert not framer.idle(LATER_MS)


@pytest.mark.parametrize("name", MAKERS)
@given(wire=st.binary(max_size=300), code=st.binary(min_size=1, max_size=40), cuts=CUTS, at=st.integers(0, 300))
def test_noise_is_read_the_same_in_any_pieces(name: str, wire: bytes, code: bytes, cuts: list[int], at: int) -> None:
    make, encode = MAKERS[name]
    wire = wire[:at] + encode(code) + wire[at:]
    whole, split = make(), make()
    assert fed(whole, [wire]) == fed(split, split_at(wire, cuts))
    assert whole.idle(LATER_MS) == split.idle(LATER_MS)
    assert whole.dropped_bytes == split.dropped_bytes


@pytest.mark.parametrize("name", MAKERS)
@given(garbage=st.binary(min_size=1, max_size=300))
def test_garbage_before_costs_at_most_one_scan(name: str, garbage: bytes) -> None:
    make, encode = MAKERS[name]
    framer = make()
    found = [*fed(framer, [garbage + encode(b"ONE")]), *framer.idle(LATER_MS)]
    found += fed(framer, [encode(b"TWO") + encode(b"THREE")], LATER_MS)
    assert texts(found)[-2:] == [b"TWO", b"THREE"]


@pytest.mark.parametrize("name", LENGTH_FRAMED)
@given(garbage=st.binary(min_size=1, max_size=40))
def test_a_packet_behind_garbage_is_found_at_the_latest_after_a_silence(name: str, garbage: bytes) -> None:
    make, encode = MAKERS[name]
    framer = make()
    found = fed(framer, [garbage + encode(b"PAYLOAD")])
    assert b"PAYLOAD" in texts([*found, *framer.idle(LATER_MS)])


@pytest.mark.parametrize("name", LENGTH_FRAMED)
@pytest.mark.parametrize("piece", (1, 13, 100_000))
@pytest.mark.parametrize("length", (FRAME_BYTES_MAX, FRAME_BYTES_MAX + 1, 7000))
def test_the_bound_is_exact_and_what_is_longer_is_told(name: str, piece: int, length: int) -> None:
    make, encode = MAKERS[name]
    framer = make()
    wire, found = encode(b"Z" * length), []
    for at in range(0, len(wire), piece):
        found += fed(framer, [wire[at : at + piece]])
        assert piece > 13 or len(framer._buffer) < FRAME_BYTES_MAX + 64  # type: ignore[attr-defined]
    found += framer.idle(LATER_MS)
    if length <= FRAME_BYTES_MAX:
        assert texts(found) == [b"Z" * length]
    else:
        assert (texts(found), faults(found)) == ([], [FaultReason.TOO_LONG])
    assert texts(fed(framer, [encode(b"NEXT")], LATER_MS)) == [b"NEXT"]


@pytest.mark.parametrize("name", LENGTH_FRAMED)
@given(wire=st.lists(st.binary(max_size=400), max_size=8))
def test_memory_is_bounded_under_noise(name: str, wire: list[bytes]) -> None:
    framer = MAKERS[name][0]()
    for piece in wire:
        fed(framer, [piece * 40])
        assert len(framer._buffer) <= FRAME_BYTES_MAX + 64  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", ("ssi", "fm200", "newland", "newland 2"))
@pytest.mark.parametrize("code", (b"V1ABCDEF0123456789", b"\x02\x00\xf3\x1c", bytes(range(40))))
def test_every_changed_byte_is_noticed(name: str, code: bytes) -> None:
    """The check of these protocols finds every single changed byte (Newland: once it is known what it covers)."""
    make, encode = MAKERS[name]
    wire = encode(code)
    for at, delta in itertools.product(range(len(wire)), range(1, 256)):
        framer = make()
        fed(framer, [encode(b"settles what is open")])
        damaged = wire[:at] + bytes([wire[at] ^ delta]) + wire[at + 1 :]
        found = [*fed(framer, [damaged], 1000), *quiet(framer)]
        # A symbology number is not part of the text, and a changed type byte turns one format into the other.
        assert texts(found) == [], f"byte {at} ^ {delta:02x}: {texts(found)}"
        assert faults(found), f"byte {at} ^ {delta:02x} was not told"
        if name == "ssi":
            naks = [one for one in found if isinstance(one, Reply) and one.octets[1] == 0xD1]
            stray = FaultReason.STRAY in faults(found)
            assert len(naks) == (0 if stray else 1), "asked for again, or nothing like a packet came"


def test_in_msgget_a_changed_byte_of_the_frame_loses_the_scan_and_one_of_the_text_changes_it() -> None:
    make, encode = MAKERS["honeywell"]
    code = b"V1ABCDEF0123456789"
    wire = encode(code)
    unused = {2, 3, 4, 5, 17, 18, 19}  # lengths that are not relied on, and the symbology
    for at, delta in itertools.product(range(len(wire)), range(1, 256)):
        framer = make()
        damaged = wire[:at] + bytes([wire[at] ^ delta]) + wire[at + 1 :]
        found = [*fed(framer, [damaged]), *framer.idle(LATER_MS)]
        if 21 <= at < len(wire) - 1:
            assert texts(found) == [damaged[21:-1]] != [code], "no checksum: left to the voucher's own check"
        elif at in unused:
            assert texts(found) == [code]
        else:
            assert (texts(found), len(faults(found))) == ([], 1)


@pytest.mark.parametrize("name", LENGTH_FRAMED)
def test_half_a_packet_is_told_and_forgotten_when_the_line_goes(name: str) -> None:
    make, encode = MAKERS[name]
    framer = make()
    fed(framer, [encode(b"HALF A PACKET")[:-4]])
    assert [fault.reason for fault in framer.cut()] == [FaultReason.CUT_OFF]
    assert framer.due_ms() is None
    assert texts(fed(framer, [encode(b"WHOLE")], 10)) == [b"WHOLE"]


@pytest.mark.parametrize("name", LENGTH_FRAMED)
def test_a_scanner_that_sends_bare_text_is_told_of(name: str) -> None:
    framer = MAKERS[name][0]()
    fed(framer, [b"VCH-0001\r"])
    due_ms = framer.due_ms()
    assert due_ms is not None
    assert not framer.idle(due_ms - 1)
    assert framer.idle(due_ms) == [FrameFault(FaultReason.STRAY, 9)]
    assert framer.due_ms() is None
