"""What a running till says of itself: scanners, journal and line, as an object and as Prometheus text.

Nothing here names a code, a voucher or the terminal's number: a scrape is read by more people than a till is.
"""

from collections.abc import Iterable, Iterator, Sequence

import msgspec

from devices.framing import FaultReason
from devices.records import Record
from devices.scanner import Capabilities, Scanner, State, Statistics

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_PREFIX = "tillgate_terminal_"
_ESCAPES = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})


class ScannerHealth(msgspec.Struct, frozen=True):
    name: str
    kind: str
    state: State
    can: Capabilities
    counts: Statistics


class Health(msgspec.Struct, frozen=True):
    """`waiting`: scans and reversals whose answer is still to come; `oldest_ms`: how long the oldest has waited."""

    started_ms: int  # UTC epoch, like all moments here
    at_ms: int
    connected: bool
    waiting: int
    oldest_ms: int  # a length of time; 0: nothing waits
    journal_bytes: int
    disk_free_bytes: int  # where the journal is; without room no scan is taken
    scanners: list[ScannerHealth]


def scanner_health(scanner: Scanner, kind: str) -> ScannerHealth:
    return ScannerHealth(scanner.name, kind, scanner.state, scanner.capabilities, scanner.statistics)


def oldest_ms(open_records: Iterable[Record], now_ms: int) -> int:
    """How long the oldest question waits for its answer. A clock that was set back makes it no negative number."""
    asked = (record.reversing.reversed_ms if record.reversing else record.scanned_ms for record in open_records)
    return max(0, now_ms - min(asked, default=now_ms))


def exposition(health: Health) -> str:
    """Prometheus text format 0.0.4. Every family and every reason is told every time, so that none begins at 1."""
    return "\n".join((*_terminal_lines(health), *_scanner_lines(health.scanners))) + "\n"


def _terminal_lines(health: Health) -> Iterator[str]:
    yield from _gauge("uplink_up", "1 while this till is connected to a gateway.", int(health.connected))
    yield from _gauge("journal_open", "Scans and reversals whose answer is still to come.", health.waiting)
    age_s = health.oldest_ms / 1000
    yield from _gauge("journal_oldest_seconds", "How long the oldest of them has waited; 0 when none waits.", age_s)
    yield from _gauge("journal_bytes", "Size of the journal file.", health.journal_bytes)
    free = "Room on the journal's disk: without any, no scan is taken."
    yield from _gauge("disk_free_bytes", free, health.disk_free_bytes)
    started_s = health.started_ms / 1000
    yield from _gauge("start_time_seconds", "When the daemon started, Unix time.", started_s)


def _scanner_lines(scanners: Sequence[ScannerHealth]) -> Iterator[str]:
    counts = [(f'scanner="{_escaped(one.name)}"', one.counts) for one in scanners]
    ready = [(f'scanner="{_escaped(one.name)}",kind="{one.kind}"', int(one.state is State.READY)) for one in scanners]
    yield from _family("scanner_up", "gauge", "1 while the scanner is there and read.", ready)
    for name, text, values in (
        ("reads", "Whole reads handed to the till.", [(label, one.reads) for label, one in counts]),
        (
            "checksum_errors",
            "Packets that arrived damaged, also where a sound copy came afterwards.",
            [(label, one.damaged) for label, one in counts],
        ),
        (
            "retransmits",
            "Reads that the scanner said it had sent before.",
            [(label, one.resent) for label, one in counts],
        ),
        (
            "refused",
            "Reads that the journal or the queue before it did not take: not ACKed, nothing was sent.",
            [(label, one.refused) for label, one in counts],
        ),
        ("opened", "How often the scanner was found and opened.", [(label, one.opened) for label, one in counts]),
        ("lost", "How often the open scanner went away.", [(label, one.lost) for label, one in counts]),
        (
            "dropped_bytes",
            "Bytes from the scanner that belonged to no read.",
            [(label, one.dropped_bytes) for label, one in counts],
        ),
        (
            "faults",
            "Reads that were lost on their way, by reason.",
            [
                (f'{label},reason="{reason}"', one.faults.get(reason, 0))
                for label, one in counts
                for reason in FaultReason
            ],
        ),
    ):
        yield from _family(f"scanner_{name}_total", "counter", text, values)
    moments = [(label, one.last_read_ms / 1000) for label, one in counts]
    yield from _family("scanner_last_read_timestamp_seconds", "gauge", "Last read, Unix time; 0: none yet.", moments)


def _gauge(name: str, text: str, value: float) -> Iterator[str]:
    return _family(name, "gauge", text, [("", value)])


def _family(name: str, kind: str, text: str, values: Sequence[tuple[str, float]]) -> Iterator[str]:
    yield f"# HELP {_PREFIX}{name} {text}"
    yield f"# TYPE {_PREFIX}{name} {kind}"
    for labels, value in values:
        yield f"{_PREFIX}{name}{{{labels}}} {value}" if labels else f"{_PREFIX}{name} {value}"


def _escaped(text: str) -> str:
    return text.translate(_ESCAPES)
