"""`make fuzz FUZZ_S=60`: every framer against streams that were sound once. Ends with 1 and the stream that broke it.

With atheris (extra `fuzz`) the bytes are chosen by coverage, without it by a seeded generator: sound packets of every
protocol, then cut, doubled, shuffled, flipped and spliced. What must hold of each: nothing is raised, any split of the
stream gives the same, frames and buffers are bounded, timers end, and after a silence at most one scan is lost: noise
that passed for a packet may have settled what a Newland scanner's check byte covers.
"""

import importlib.util
import itertools
import os
import random
import sys
import time
from collections import Counter

from hid_reports import DEVICES
from scanner_wire import BY_EVENTS
from scanner_wire import MAKERS as BY_BYTES

from devices.framing import FRAME_BYTES_MAX, Found, Frame, FrameFault, Framer, Reply, Signal
from devices.framing.hid_descriptor import DescriptorFault
from devices.framing.hid_pos import HidPosFramer

TIMERS_MAX = 64  # commands that wait, and one silence each for packet, parts and resend
BUFFER_BYTES_MAX = FRAME_BYTES_MAX + 64
MAKERS = BY_BYTES | BY_EVENTS
DESCRIPTOR = "hid descriptor"
NAMES = sorted((*MAKERS, DESCRIPTOR))


def check(name: str, wire: bytes, cuts: list[int], counts: Counter[str]) -> None:
    if name == DESCRIPTOR:
        check_descriptor(wire, counts)
    else:
        check_framer(name, wire, cuts, counts)


def check_descriptor(octets: bytes, counts: Counter[str]) -> None:
    """A device may call itself what it likes, and send what it likes."""
    framer = HidPosFramer()
    counts[f"{DESCRIPTOR}: all"] += 1
    try:
        framer.describe(octets)
    except DescriptorFault:
        return
    counts[f"{DESCRIPTOR}: of scanners"] += 1
    for length in (0, 1, 2, 64, 4096):
        tell(framer, [*framer.feed(octets[:length].ljust(length, b"\x02"), 0), *quiet(framer)[1]], 0)


def check_framer(name: str, wire: bytes, cuts: list[int], counts: Counter[str]) -> None:
    """One stream through one framer, whole and in pieces; assertions say what broke."""
    make, encode = MAKERS[name]
    whole, pieces = make(), make()
    found = [*whole.feed(wire, 0)]
    split: list[Found] = []
    edges = [0, *sorted(cut % (len(wire) + 1) for cut in cuts), len(wire)]
    for begin, end in itertools.pairwise(edges):
        split += pieces.feed(wire[begin:end], 0)
        assert len(pieces._buffer) <= BUFFER_BYTES_MAX  # type: ignore[attr-defined]
    assert list(map(told, found)) == list(map(told, split)), "a split changed what was read"
    now_ms, rest = quiet(whole)
    found += rest
    assert [*map(told, split), *map(told, quiet(pieces)[1])] == [*map(told, found)]
    tell(whole, found, now_ms)
    for later_ms in (10_000, 20_000):
        after = [*whole.feed(encode(b"AFTER"), now_ms + later_ms), *quiet(whole)[1]]
    assert [one.octets for one in after if isinstance(one, Frame)][-1:] == [b"AFTER"], "no scan after a silence"
    counts[f"{name}: streams"] += 1
    counts[f"{name}: frames"] += sum(isinstance(one, Frame) for one in found)
    counts[f"{name}: faults"] += sum(isinstance(one, FrameFault) for one in found)
    counts[f"{name}: replies"] += sum(isinstance(one, Reply) for one in found)


def told(one: Found) -> object:
    """How much was dropped until a fault was noticed depends on when one looks."""
    return one.reason if isinstance(one, FrameFault) else one


def quiet(framer: Framer) -> tuple[int, list[Found]]:
    found: list[Found] = []
    now_ms = 0
    for _ in range(TIMERS_MAX):
        due_ms = framer.due_ms()
        if due_ms is None:
            return now_ms, found
        now_ms = max(now_ms, due_ms)
        found += framer.idle(now_ms)
    raise AssertionError("a timer that never ends")


def tell(framer: Framer, found: list[Found], now_ms: int) -> None:
    """What the till would say to it; and the bounds of what it was given."""
    for one in found:
        if isinstance(one, Frame):
            assert len(one.octets) <= FRAME_BYTES_MAX
            framer.settle(one, len(one.octets) % 2 == 0, now_ms)
            framer.verdict_signal(Signal.GOOD, now_ms)
        elif isinstance(one, Reply):
            assert one.octets
    quiet(framer)
    framer.cut()


def sound(rng: random.Random, name: str) -> bytes:
    """Of the protocol, and now and then of another one: scanners are set to the wrong one."""
    if name == DESCRIPTOR:
        return rng.choice(list(DEVICES.values())).descriptor
    _, encode = MAKERS[name if rng.random() < 0.7 else rng.choice(sorted(MAKERS))]
    wire = b""
    for _ in range(rng.randint(1, 4)):
        wire += encode(rng.randbytes(rng.choice((0, 5, 20, 20, 260, 600)))) if rng.random() < 0.9 else rng.randbytes(9)
    return wire


def scrambled(rng: random.Random, name: str) -> bytes:
    wire = bytearray(sound(rng, name))
    for _ in range(rng.choice((0, 1, 1, 2, 5))):
        at, end = sorted((rng.randrange(len(wire) + 1), rng.randrange(len(wire) + 1)))
        change = rng.randrange(5)
        if change == 0:
            del wire[at : at + rng.randint(1, 8)]
        elif change == 1:
            wire[at:at] = rng.randbytes(rng.randint(1, 8))
        elif change == 2 and at < len(wire):
            wire[at] ^= rng.randint(1, 255)
        elif change == 3:
            wire[end:end] = wire[at : at + 40]
        else:
            wire[at:end] = bytes(rng.choice((0, 2, 0x16, 0xFF, 0xF3, 0x73)) for _ in range(min(end - at, 12)))
    return bytes(wire)


def by_chance(seconds: float, seed: int) -> int:
    counts: Counter[str] = Counter()
    rng, until_s = random.Random(seed), time.monotonic() + seconds
    while time.monotonic() < until_s:
        name = rng.choice(NAMES)
        wire = scrambled(rng, name)
        cuts = [rng.randrange(1 << 16) for _ in range(rng.randint(0, 30))]
        try:
            check(name, wire, cuts, counts)
        except Exception:
            print(f"{name}: cuts {cuts} of {wire.hex()}", file=sys.stderr)
            raise
    for line in sorted(counts):
        print(f"{line:24}{counts[line]:>10,}")
    print(f"framers fuzzed for {seconds:g} s, seed {seed}: nothing broke")
    return 0


def by_coverage(seconds: float) -> int:
    atheris = importlib.import_module("atheris")
    counts: Counter[str] = Counter()

    def one(octets: bytes) -> None:
        if len(octets) > 8:
            check(NAMES[octets[0] % len(NAMES)], octets[8:], [c * 7 for c in octets[1:8]], counts)

    atheris.instrument_all()
    atheris.Setup([sys.argv[0], f"-max_total_time={int(seconds)}", "-max_len=8192"], one)
    atheris.Fuzz()  # ends the process itself
    return 0


def main() -> int:
    seconds = float(os.environ.get("FUZZ_S", "60"))
    seed = int(os.environ.get("FUZZ_SEED", str(time.time_ns() % 1_000_000)))
    return by_coverage(seconds) if importlib.util.find_spec("atheris") else by_chance(seconds, seed)


if __name__ == "__main__":
    sys.exit(main())
