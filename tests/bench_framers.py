"""`make bench-framers`: scans a second and memory of each framer, as packets come from a port: one read a scan."""

import time
import tracemalloc

from scanner_wire import BY_EVENTS
from scanner_wire import MAKERS as BY_BYTES

from devices.framing import Frame

CODES = [b"V1%020d" % i for i in range(1000)]  # 22 characters, as a signed code has
SECONDS = 1.0
MAKERS = BY_BYTES | BY_EVENTS


def rate(name: str) -> tuple[float, float]:
    """Scans a second, settled; bytes kept after all of them."""
    make, encode = MAKERS[name]
    framer, wires = make(), [encode(code) for code in CODES]
    framer.feed(wires[0], 0)
    tracemalloc.start()
    for wire in wires * 5:
        framer.feed(wire, 0)
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    scans, begun_s = 0, time.perf_counter()
    while (took_s := time.perf_counter() - begun_s) < SECONDS:
        for wire in wires:
            [frame] = framer.feed(wire, scans)
            assert isinstance(frame, Frame)
            framer.settle(frame, True, scans)
        scans += len(wires)
    return scans / took_s, kept


def main() -> None:
    print(f"{'framer':14}{'scans/s':>12}{'us/scan':>10}{'kept bytes':>12}")
    for name in MAKERS:
        per_s, kept = rate(name)
        print(f"{name:14}{per_s:>12,.0f}{1e6 / per_s:>10.1f}{kept:>12,.0f}")


if __name__ == "__main__":
    main()
