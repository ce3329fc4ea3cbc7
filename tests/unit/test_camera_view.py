"""One voucher before the camera is one scan; a refused one may be shown again; two vouchers are none."""

from hypothesis import given
from hypothesis import strategies as st

from devices.camera_ladder import Seen
from devices.camera_view import FOLD_MS, GONE_MS, KNOWN_MAX, SEVERAL_MS, View
from devices.framing import FaultReason, Frame, FrameFault, Signal

A, B = Frame(b"A", "]Q1"), Frame(b"B", "]Q1")
LINE = Frame(b"1D", "]C0")
FRAME_MS = 50


class Camera:
    """A view and the time of its frames, long after it was opened."""

    def __init__(self, view: View | None = None) -> None:
        self.view = view or View(0)
        self.now_ms = 10 * FOLD_MS

    def sees(self, *codes: Frame, for_ms: int = FRAME_MS, sure: bool = True, doubt: bool = False) -> list[object]:
        """What came of the frames of that long."""
        found = []
        for _ in range(max(1, for_ms // FRAME_MS)):
            self.now_ms += FRAME_MS
            found.append(self.view.see(Seen(dict.fromkeys(codes, sure), doubt), self.now_ms))
        return [one for one in found if one is not None]


def test_a_code_is_one_scan_as_long_as_it_is_in_view() -> None:
    camera = Camera()
    assert camera.sees(A, for_ms=4 * FOLD_MS) == [A]


def test_a_blurred_frame_is_no_absence() -> None:
    camera = Camera()
    assert camera.sees(A) == [A]
    camera.view.hear(Signal.BAD)
    for _ in range(20):
        assert camera.sees() == []
        assert camera.sees(A, for_ms=500) == []


def test_after_a_yes_it_is_the_same_scan_for_five_seconds_and_until_it_leaves() -> None:
    camera = Camera()
    assert camera.sees(A) == [A]
    camera.view.hear(Signal.GOOD)
    camera.sees(for_ms=GONE_MS + 100)
    assert camera.sees(A, for_ms=2 * FOLD_MS) == [], "back within five seconds: the same, and it stays the same"
    camera.sees(for_ms=GONE_MS + 100)
    assert camera.sees(A) == [A], "it had left after five seconds"


def test_a_refused_code_is_a_new_try_once_it_has_left() -> None:
    camera = Camera()
    for signal in (Signal.BAD, Signal.WAIT, Signal.BAD):
        assert camera.sees(A) == [A]
        camera.view.hear(signal)
        assert camera.sees(A, for_ms=3 * FOLD_MS) == [], "never while it stays"
        camera.sees(for_ms=GONE_MS + 100)


def test_what_the_journal_did_not_take_is_a_new_try() -> None:
    camera = Camera()
    [found] = camera.sees(A)
    assert isinstance(found, Frame)
    camera.view.refuse(found)
    camera.sees(for_ms=GONE_MS + 100)
    assert camera.sees(A) == [A]


def test_a_verdict_is_that_of_the_newest_code() -> None:
    camera = Camera()
    assert camera.sees(A) == [A]
    camera.sees(for_ms=GONE_MS + 100)
    assert camera.sees(B) == [B]
    camera.view.hear(Signal.BAD)
    camera.sees(for_ms=GONE_MS + 100)
    assert camera.sees(A) == []
    camera.sees(for_ms=GONE_MS + 100)
    assert camera.sees(B) == [B]


def test_two_in_view_are_none_and_told_once() -> None:
    camera = Camera()
    fault = FrameFault(FaultReason.SEVERAL, 0)
    assert camera.sees(A, B, for_ms=SEVERAL_MS - 100) == [], "a phone may just be put over another"
    assert camera.sees(A, B, for_ms=5000) == [fault]
    assert camera.sees(A, for_ms=GONE_MS - 100) == [], "the other is only hidden"
    assert camera.sees(A, B, for_ms=500) == []
    assert camera.sees(A, for_ms=GONE_MS + 200) == [A], "the other is gone"
    camera.sees(for_ms=2000)
    assert camera.sees(A, B, for_ms=1000) == [fault], "again"


def test_the_no_to_a_fault_takes_nothing_from_the_yes_before_it() -> None:
    camera = Camera()
    assert camera.sees(A) == [A]
    camera.view.hear(Signal.GOOD)
    [fault] = camera.sees(A, B, for_ms=SEVERAL_MS + 100)
    assert isinstance(fault, FrameFault)
    camera.view.note_fault()
    camera.view.hear(Signal.BAD)
    camera.sees(for_ms=GONE_MS + 100)
    assert camera.sees(A) == [], "accepted, and back within its five seconds"
    camera.view.hear(Signal.BAD)
    camera.sees(for_ms=GONE_MS + 100)
    assert camera.sees(A) == [A], "but the no to a code is heard"


def test_two_that_are_seen_in_turn_are_two_in_view() -> None:
    camera = Camera()
    assert camera.sees(A) == [A]
    found = [one for _ in range(40) for one in (*camera.sees(B), *camera.sees(A))]
    assert found == [FrameFault(FaultReason.SEVERAL, 0)]


def test_what_looks_like_another_code_is_one() -> None:
    camera = Camera()
    assert camera.sees(A, doubt=True, for_ms=2000) == [FrameFault(FaultReason.SEVERAL, 0)]


def test_without_error_correction_two_frames_must_agree() -> None:
    camera = Camera()
    assert camera.sees(LINE, sure=False) == []
    camera.sees(for_ms=300)
    assert camera.sees(LINE, sure=False) == [], "too long ago"
    assert camera.sees(LINE, sure=False) == [LINE]


def test_what_was_in_view_before_us_may_have_been_read_before() -> None:
    camera = Camera(View(10 * FOLD_MS))
    [first] = camera.sees(A)
    assert first == Frame(b"A", "]Q1", resent=True)
    camera.view.refuse(Frame(b"A", "]Q1", resent=True))
    camera.sees(for_ms=FOLD_MS)
    assert camera.sees(A) == [A], "later it is new, and the refusal found its code"


seen = st.builds(
    Seen,
    st.dictionaries(st.sampled_from([Frame(bytes([n])) for n in range(4)]), st.booleans(), max_size=3),
    st.booleans(),
)
event = st.tuples(st.integers(0, 3000), seen | st.sampled_from(Signal))


@given(st.lists(event, max_size=60))
def test_whatever_is_seen_only_a_code_that_stood_alone_is_taken_and_never_twice_within_its_time(
    events: list[tuple[int, Seen | Signal]],
) -> None:
    view, now_ms, taken_ms, refused = View(0), 0, dict[Frame, int](), set[Frame]()
    newest: Frame | None = None
    for later_ms, what in events:
        now_ms += later_ms
        if isinstance(what, Signal):
            view.hear(what)
            refused = refused - {newest} if what is Signal.GOOD else refused | ({newest} if newest else set())
            continue
        found = view.see(what, now_ms)
        if isinstance(found, Frame):
            newest = Frame(found.octets, found.aim)
            assert list(what.codes) == [newest]
            assert not what.doubt
            assert newest in refused or now_ms - taken_ms.get(newest, -FOLD_MS) >= FOLD_MS
            taken_ms[newest] = now_ms
            refused.discard(newest)
    assert len(view.known) <= KNOWN_MAX


def test_memory_is_bounded() -> None:
    camera = Camera()
    for n in range(100):
        camera.sees(Frame(b"%d" % n))
        camera.sees(for_ms=GONE_MS)
    assert len(camera.view.known) == KNOWN_MAX
