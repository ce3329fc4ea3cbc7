"""The generator's pieces: its frames are the contract's, its supply runs in order, its judge does not flatter."""

from random import Random

import msgspec
import pytest

from gateway.messages import Redeem, RedeemMany, Reverse, ReverseMany
from loadtest.bench_frames import mint_id
from loadtest.bench_plan import Till
from loadtest.generator_deeds import Deeds, Supply
from loadtest.generator_plan import BadCode, Codes, Plan
from loadtest.generator_wire import many_frame, redeem_frame, reversal_body, reverse_frame, scan_body
from loadtest.judge import judged, lag_most_ms, why_void
from loadtest.recorder import Gathering, Part, histogram_text
from loadtest.run_files import Counts, Latencies
from loadtest.sampler import FSYNC, LAG, buckets
from loadtest.scenario import Constant, Marks, Mix, Race, Scenario, Terminals

NOW_MS = 1_700_000_000_000
KEY = mint_id(NOW_MS, Random(1))


def payload(frame: bytes) -> bytes:
    """Of a masked frame whose mask is zero (RFC 6455 section 5.2)."""
    size = frame[1] & 0x7F
    head = {126: 4, 127: 10}.get(size, 2)
    length = size if size < 126 else int.from_bytes(frame[2:head], "big")
    body = frame[head + 4 :]
    assert frame[head : head + 4] == bytes(4)
    assert len(body) == length
    return body


@pytest.mark.parametrize("chars", (1, 16, 31, 32, 34, 78, 79, 255, 256, 4000))
def test_a_scans_frame_is_the_contracts(chars: int) -> None:
    scan = Redeem(KEY, "V" * chars, NOW_MS)
    frame = redeem_frame(70_000, scan_body(KEY, scan.code, NOW_MS))
    assert msgspec.msgpack.decode(payload(frame), type=RedeemMany) == RedeemMany(70_000, [scan])


@pytest.mark.parametrize("count", (1, 15, 16, 64, 256))
def test_a_frame_of_many_is_the_contracts(count: int) -> None:
    scans = [Redeem(mint_id(NOW_MS, Random(n)), "V" * 34, NOW_MS + n) for n in range(count)]
    frame = many_frame(7, [scan_body(scan.redemption_id, scan.code, scan.scanned_ms) for scan in scans])
    assert msgspec.msgpack.decode(payload(frame), type=RedeemMany) == RedeemMany(7, scans)


def test_a_reversals_frame_is_the_contracts() -> None:
    frame = reverse_frame(9, reversal_body(KEY, KEY[::-1], NOW_MS))
    wanted = ReverseMany(9, [Reverse(KEY, KEY[::-1], NOW_MS, None, "load")])
    assert msgspec.msgpack.decode(payload(frame), type=ReverseMany) == wanted


def scenario(**fields: object) -> Scenario:
    given = {"arrivals": Constant(rate=1), "terminals": Terminals(count=3), "seconds": 1.0, **fields}
    return Scenario(title="", shows="", **given)  # type: ignore[arg-type]


def deeds(chosen: Scenario, codes: int = 100) -> Deeds:
    plan = Plan(
        scenario={},
        directory="",
        generator=0,
        generators=1,
        host="",
        port=0,
        token="",
        tills=[Till(number, b"") for number in (11, 12, 13)],
        streams=3,
        cut_off=[],
        campaign=5,
        bad=[BadCode("BAD", None), BadCode("GUESS", None, guess=True)],
    )
    made = Deeds(plan, chosen)
    made.supply.add(Codes(100, 2, [f"code-{number}" for number in range(codes)]))
    return made


def test_vouchers_are_taken_in_order_and_named_by_their_serial() -> None:
    supply = Supply(5)
    supply.add(Codes(10, 3, ["a", "b"]))
    supply.add(Codes(40, 3, ["c"]))
    assert [supply.take() for _ in range(3)] == [("a", "5-10"), ("b", "5-13"), ("c", "5-40")]
    assert supply.take() is None
    assert (supply.left, supply.wanting) == (0, 1)


def test_the_mix_is_drawn_as_it_was_asked_for() -> None:
    made = deeds(scenario(mix=Mix(used=0.2, reverse=0.1, lookup=0.1, bad=0.1)), codes=10_000)
    kinds: dict[str, int] = {}
    for number in range(8000):
        asked = made.next(number)
        made.remember(asked) if asked.code.startswith("code") else None
        kinds[asked.kind] = kinds.get(asked.kind, 0) + 1
    assert kinds["lookup"] == pytest.approx(800, rel=0.15)
    assert kinds["reverse"] == pytest.approx(800, rel=0.15)
    assert made.supply.left == pytest.approx(10_000 - 4000, rel=0.05)


def test_a_till_guesses_too_seldom_to_be_locked() -> None:
    made = deeds(scenario(mix=Mix(bad=0.9)), codes=1000)
    guesses: dict[int, int] = {}
    for number in range(3000):
        asked = made.next(number)
        if asked.code == "GUESS":
            guesses[asked.till] = guesses.get(asked.till, 0) + 1
    assert max(guesses.values()) <= 10


def test_a_race_is_for_one_code_a_round() -> None:
    made = deeds(scenario(arrivals=Race(rounds=2, every_s=1), seconds=None))
    scans = [made.next(number * 1000 + round_ * 1_000_000) for round_ in range(2) for number in range(3)]
    assert [scan.code for scan in scans] == ["code-0"] * 3 + ["code-1"] * 3
    assert [scan.till for scan in scans] == [0, 1, 2] * 2
    assert len({scan.key for scan in scans}) == 6


def told(lag_us: list[int], answered_us: list[int], unresolved: int = 0) -> Gathering:
    gathering, count = Gathering(), len(answered_us)
    counts = Counts(count + unresolved, count + unresolved, count, 0, unresolved, count)
    texts = Latencies(*(histogram_text(list(each)) for each in (answered_us, answered_us, lag_us)))
    gathering.add(Part(0, counts, count, {"accepted": count}, texts))
    return gathering


def test_a_late_generator_makes_a_run_void_and_its_latencies_unjudged() -> None:
    strict = scenario(marks=Marks(p99_ms=10))
    assert lag_most_ms(strict.marks) == 1
    assert lag_most_ms(Marks(p99_ms=250)) == 10
    late = told([2000] * 100, [5000] * 100)
    assert len(why_void(strict, late)) == 1
    assert [mark.met for mark in judged(strict, late, void=True)] == [None, True, True]
    assert not why_void(strict, told([900] * 100, [5000] * 100))


def test_attempts_without_an_answer_count_as_the_slowest() -> None:
    marked = scenario(marks=Marks(p99_ms=10, unresolved=5))
    fine = judged(marked, told([1], [5000] * 995, unresolved=5), void=False)
    assert [mark.met for mark in fine] == [True, True, True]
    bad = judged(marked, told([1], [5000] * 985, unresolved=15), void=False)
    assert [mark.met for mark in bad] == [False, False, True]


def test_buckets_are_read_from_a_scrape() -> None:
    text = (
        f'# TYPE x histogram\n{LAG}_bucket{{le="0.001"}} 3\n{LAG}_bucket{{le="+Inf"}} 4.0\nother_bucket{{le="1"}} 2\n'
    )
    assert buckets(text, (LAG, FSYNC)) == {LAG: [(0.001, 3.0), (float("inf"), 4.0)], FSYNC: []}


def test_when_vouchers_run_out_the_last_is_scanned_again_and_it_is_counted() -> None:
    made = deeds(scenario(), codes=2)
    assert [made.next(number).code for number in range(4)] == ["code-0", "code-1", "code-1", "code-1"]
    assert made.supply.wanting == 2
