"""Key events of scanners that type: characters, layouts, ends, people, what the kernel loses, any split of reads."""

import itertools
import json
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from keys import (
    ALT,
    ALTGR,
    CAPS_LOCK,
    CTRL,
    ENTER,
    KP,
    META,
    NUM_LOCK,
    SHIFT,
    SPACE,
    TAB,
    US,
    Stroke,
    dropped,
    event,
    report,
    scan,
    strokes,
    typed,
)

from devices.framing import FRAME_BYTES_MAX, FaultReason, Frame, FrameFault
from devices.framing.key_layouts import LAYOUTS, LayoutName
from devices.framing.keyboard import CUT_OFF_MS, KeyFramer
from devices.scan import Scan, scan_of

LATER_MS = 1_000_000
GOLDEN = Path(__file__).parent.parent / "golden" / "key_layouts_x11.json"
CODE = "VCH-7F00Q2"


def read(framer: KeyFramer, wire: bytes, now_ms: int = LATER_MS) -> list[bytes | FaultReason]:
    found = framer.feed(wire, now_ms)
    return [one.octets if isinstance(one, Frame) else one.reason for one in found]


def keys(*pressed: Stroke, step_ms: float = 8, at_ms: float = 1000) -> bytes:
    return typed(pressed, at_ms, step_ms)[0]


def test_a_scan_of_every_printable_character() -> None:
    text = "".join(map(chr, range(0x21, 0x7F)))
    assert read(KeyFramer(), scan(text)) == [text.encode()]


def test_doubled_characters_stay_and_repeats_of_the_kernel_do_not_count() -> None:
    held = event(1001, 1, US["1"], 2) + event(1001, 0, 0, 1)
    wire = keys((US["1"],)) + held + keys(*strokes("1112200-"), (ENTER,), at_ms=1008)
    assert read(KeyFramer(), wire) == [b"11112200-"]


def test_keys_of_one_report_count_in_its_own_order() -> None:
    a, b, c = US["b"], US["a"], US["c"]
    wire = report(1000, (a, 1), (b, 1), (c, 1)) + report(1008, (a, 0), (b, 0), (c, 0)) + keys((ENTER,), at_ms=1016)
    assert read(KeyFramer(), wire) == [b"bac"]


def test_a_key_that_goes_down_before_the_last_one_is_up_is_a_character() -> None:
    """Recorded: reports `1e`, `1e 1f`, `1f` make 1 down, 2 down, 1 up."""
    one, two = US["1"], US["2"]
    wire = report(1000, (one, 1)) + report(1008, (two, 1)) + report(1016, (one, 0)) + report(1024, (two, 0))
    assert read(KeyFramer(), wire + keys((one,), (ENTER,), at_ms=1032)) == [b"121"]


def test_gs_by_control_by_function_key_and_on_any_board() -> None:
    gs1 = "]d2010950110153000317260101\x1d10ABC"
    assert read(KeyFramer(), scan(gs1)) == [gs1.encode()]
    assert read(KeyFramer("de"), keys(*strokes("12345"), (CTRL, US["]"]), *strokes("67"), (ENTER,))) == [b"12345\x1d67"]
    by_f8 = keys(*strokes("12345"), (66,), *strokes("67"), (ENTER,))
    assert read(KeyFramer(gs_key="f8"), by_f8) == [b"12345\x1d67"]
    assert read(KeyFramer(), by_f8) == [FaultReason.UNKNOWN_KEY]


def test_the_keypad_means_digits_whatever_num_lock_says() -> None:
    wire = keys((NUM_LOCK,), *[(KP[d],) for d in "0123456789"], (74,), (78,), (83,), (96,))
    assert read(KeyFramer(), wire) == [b"0123456789-+."]


def test_caps_lock_and_shift_of_letters_only() -> None:
    wire = keys((CAPS_LOCK,), *strokes("ab1-"), (SHIFT, US["c"]), (CAPS_LOCK,), *strokes("dE"), (ENTER,))
    assert read(KeyFramer(), wire) == [b"AB1-cdE"]


def test_alt_mode_is_refused_whole_and_by_name() -> None:
    alt = report(1000, (ALT, 1), (KP["0"], 1), (KP["8"], 1), (KP["3"], 1))  # recorded: 04 00 62 60 5b, meant as S
    wire = alt + report(1008, (ALT, 0), (KP["0"], 0), (KP["8"], 0), (KP["3"], 0)) + keys((ENTER,), at_ms=1016)
    framer = KeyFramer()
    assert read(framer, wire + scan(CODE, 1500)) == [FaultReason.ALT_CODES, CODE.encode()]


@pytest.mark.parametrize("stroke", ((67,), (ALT, US["a"]), (META, US["r"]), (1,), (14,), (103,)))
def test_a_key_without_a_character_spoils_its_scan_only(stroke: Stroke) -> None:
    wire = keys(*strokes(CODE), stroke, *strokes("1"), (ENTER,)) + scan(CODE, 2000)
    framer = KeyFramer()
    assert read(framer, wire) == [FaultReason.UNKNOWN_KEY, CODE.encode()]
    assert framer.dropped_bytes == len(CODE) + 2


def test_suffixes() -> None:
    assert read(KeyFramer(suffix="tab"), keys(*strokes(CODE), (TAB,))) == [CODE.encode()]
    assert read(KeyFramer(), scan(CODE, end=((ENTER,), (CTRL, US["j"])))) == [CODE.encode()], "CR LF is one end"
    framer = KeyFramer(suffix="none", gap_ms=100)
    assert read(framer, scan(CODE, end=())) == []
    due_ms = framer.due_ms()
    assert due_ms is not None
    assert framer.idle(due_ms - 1) == []
    assert framer.idle(due_ms) == [Frame(CODE.encode())]
    assert framer.due_ms() is None
    assert read(framer, scan("ABCDEFG", 5000, end=()) + scan(CODE, 5200, end=())) == [b"ABCDEFG"], "the gap is an end"


def test_what_a_person_types_is_counted_and_not_a_scan() -> None:
    framer = KeyFramer()
    assert read(framer, scan("100 bananas", step_ms=80)) == [FaultReason.TYPED]
    assert framer.dropped_bytes == 11
    slow = scan("20", 10_000, step_ms=700)
    found = framer.feed(slow + scan(CODE, 12_200), LATER_MS)
    assert found == [FrameFault(FaultReason.TYPED, 2), Frame(CODE.encode())]
    assert read(framer, scan(CODE, 20_000, step_ms=20)) == [CODE.encode()], "a slow scanner is a scanner"


def test_a_stray_key_before_a_scan_does_not_spoil_it() -> None:
    found = KeyFramer().feed(keys((US["5"],)) + scan(CODE, 1800), LATER_MS)
    assert found == [FrameFault(FaultReason.TYPED, 1), Frame(CODE.encode())]


def test_half_a_scan_is_a_fault_and_not_glued_to_the_next() -> None:
    framer = KeyFramer()
    assert read(framer, scan("HALF-OF-IT", end=())) == []
    assert framer.due_ms() == 1000 + 9 * 8 + CUT_OFF_MS
    assert read(framer, scan(CODE, 5000)) == [FaultReason.CUT_OFF, CODE.encode()]
    assert read(framer, scan("HALF-OF-IT", 6000, end=())) == []
    assert framer.cut() == [FrameFault(FaultReason.CUT_OFF, 10)]
    assert framer.cut() == []
    read(framer, report(8000, (SHIFT, 1), (CAPS_LOCK, 1)) + b"half an event")
    framer.cut()
    assert read(framer, scan("abcdef1", 9000)) == [b"abcdef1"], "what was held is let go with the plug"


def test_dropped_events_spoil_the_scan_they_were_of() -> None:
    framer = KeyFramer()
    begun = scan("AAAAAAAA", end=()) + dropped(1070)
    assert read(framer, begun, 1070) == []
    assert framer.wants_keys
    framer.keys_are({SHIFT, US["q"]})
    assert not framer.wants_keys
    assert read(framer, scan("bbb", 1080), 1200) == [FaultReason.OVERRUN]


def test_after_dropped_events_the_next_scan_is_whole_even_if_the_end_was_lost() -> None:
    framer = KeyFramer()
    assert read(framer, scan("AAAAAAAA", end=()) + dropped(1070), 1070) == []
    framer.keys_are(())
    assert read(framer, scan(CODE, 1500)) == [FaultReason.OVERRUN, CODE.encode()]


def test_shift_held_while_events_were_dropped_is_known_again() -> None:
    framer = KeyFramer()
    read(framer, report(1000, (SHIFT, 1)) + dropped(1001), 1001)
    framer.keys_are({SHIFT})
    wire = keys((ENTER,), at_ms=1010) + keys(*[(US[c],) for c in "abcdef"], (ENTER,), at_ms=1020)
    assert read(framer, wire) == [FaultReason.OVERRUN, b"ABCDEF"]


def test_too_long_is_told_once_and_memory_is_bounded() -> None:
    framer = KeyFramer()
    for number in range(4):
        assert read(framer, scan("A" * FRAME_BYTES_MAX, 1000 + number * 8 * FRAME_BYTES_MAX, end=())) == []
    assert sum(map(len, framer._text)) <= FRAME_BYTES_MAX + 1
    assert read(framer, keys((ENTER,), at_ms=1000 + 32 * FRAME_BYTES_MAX)) == [FaultReason.TOO_LONG]
    longest = "A" * FRAME_BYTES_MAX
    assert read(KeyFramer(), scan(longest)) == [longest.encode()]


# --- layouts ----------------------------------------------------------------------------------------------------------


def test_every_layout_has_a_name_in_the_configuration() -> None:
    assert set(LAYOUTS) == set(get_args(LayoutName))


# Windows, which scanners are made for, has these; X11 has another sign there. (layout, key code, level) -> ours.
ONLY_WINDOWS = {
    **{("uk", code, 2): char for code, char in {41: "¦", 18: "é", 22: "ú", 23: "í", 24: "ó", 30: "á"}.items()},
    **{(name, 6, 2): "€" for name in ("es", "it", "pt", "no", "dk")},
    **{(name, 2, 2): "¦" for name in ("ch", "ch-fr")},
    ("fr", 3, 2): "dead ~",
    ("fr", 8, 2): "dead `",
    ("es", 5, 2): "dead ~",
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_layouts_agree_with_those_of_x11(name: LayoutName) -> None:
    """Recorded with libxkbcommon 1.5.0 from xkeyboard-config 2.35.1, key code by key code."""
    x11 = json.loads(GOLDEN.read_text())[name]
    layout = LAYOUTS[name]
    for (code, level), char in layout.chars.items():
        ours = f"dead {char}" if (code, level) in layout.dead else char
        if code not in (SPACE, TAB):
            assert ours == ONLY_WINDOWS.get((name, code, level), x11.get(f"{code}.{level}")), (code, level)
    missing = {key for key in x11 if not key.endswith(".2")} - {f"{code}.{level}" for code, level in layout.chars}
    assert missing <= {"41.1", "11.1", "86.0", "86.1"}, "keys that only X11 puts something on"


@pytest.mark.parametrize(
    ("layout", "pressed", "text"),
    (
        ("de", [(SHIFT, 21), (21,), (44,), (12,), (53,), (ALTGR, 16), (CTRL, ALT, 8)], "Zzyß-@{"),
        ("de", [(41,), (SPACE,), (41,), (30,), (13,), (18,), (13,), (16,)], "^âé´q"),
        ("fr", [(SHIFT, 2), (SHIFT, 3), (2,), (16,), (ALTGR, 11), (7,), (SHIFT, 50)], "12&a@-?"),
        ("uk", [(SHIFT, 3), (SHIFT, 40), (43,), (SHIFT, 4)], '"@#£'),
        ("jp", [(124,), (89,), (SHIFT, 89), (26,), (SHIFT, 3)], '\\\\_@"'),
    ),
)
def test_countries(layout: LayoutName, pressed: list[Stroke], text: str) -> None:
    [read_as] = read(KeyFramer(layout), keys(*pressed, *[(KP["1"],)] * 6, (ENTER,)))
    assert read_as == f"{text}111111".encode()


def test_the_us_board_by_two_that_are_not_ours() -> None:
    """emupos 0.4.0 plans `Ab-1` as HID usages 4 with shift, 5, 45, 30, 40; QEMU's `send-key` made `Vc-1` on usb-kbd."""
    code_of_usage = {4: 30, 5: 48, 45: 12, 30: 2, 40: 28}  # hid_keyboard[] of drivers/hid/hid-input.c
    plan = [(SHIFT, code_of_usage[4]), *((code_of_usage[usage],) for usage in (5, 45, 30, 40))]
    assert read(KeyFramer(), keys(*plan)) == [b"Ab-1"]
    assert read(KeyFramer(), keys((42, 47), (46,), (12,), (2,), (28,))) == [b"Vc-1"]


# --- properties -------------------------------------------------------------------------------------------------------

printable = st.text(st.sampled_from("".join(map(chr, range(0x20, 0x7F))) + "\x1d"), min_size=6, max_size=40)


@given(texts=st.lists(printable, min_size=1, max_size=4), cuts=st.lists(st.integers(0, 1 << 16), max_size=20))
def test_any_split_of_reads_gives_the_same(texts: list[str], cuts: list[int]) -> None:
    wire, at_ms = b"", 1000.0
    for text in texts:
        events, end_ms = typed([*strokes(text), (ENTER,)], at_ms)
        wire, at_ms = wire + events, end_ms + 400
    edges = [0, *sorted(cut % (len(wire) + 1) for cut in cuts), len(wire)]
    framer = KeyFramer()
    found = [one for a, b in itertools.pairwise(edges) for one in read(framer, wire[a:b])]
    assert found == read(KeyFramer(), wire) == [text.encode() for text in texts]


@given(garbage=st.binary(max_size=400))
def test_garbage_costs_at_most_one_scan(garbage: bytes) -> None:
    framer = KeyFramer()
    framer.feed(garbage + bytes(-len(garbage) % 24), 1000)
    framer.keys_are(())
    framer.idle(4000)
    assert read(framer, scan("BEFORE", 5000) + scan(CODE, 6000))[-1:] == [CODE.encode()]


@given(text=printable.filter(str.strip))
def test_what_comes_of_it_is_a_scan(text: str) -> None:
    [frame] = KeyFramer().feed(scan("]Q3" + text), LATER_MS)
    assert isinstance(frame, Frame)
    assert isinstance(scan_of(frame, "lane1"), Scan | FrameFault)
