"""What the charts of a report have in common: their shape, their widths, and the axis of time. Pure.

Each is drawn for a wide and for a narrow screen. `look` is one sentence that tells a reader what to look for.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from loadtest.report_model import Percentiles, Report
from loadtest.report_svg import Axis, Plot, Points, bands, times
from loadtest.report_words import a_second, clock, minutes, number

SHORT_S = 120  # up to here an axis counts seconds
WIDE, HALF, NARROW = 1096, 528, 358  # CSS pixels: the page's column, half of it, a phone's
SHOWN = (("p50", "p50"), ("p99", "p99"), ("p999", "p99.9"))  # field of Percentiles, and how it is said


@dataclass(frozen=True)
class Key:
    """One entry of a legend; `shape` is line, dash or block."""

    style: str
    name: str
    note: str = ""
    shape: str = "line"


@dataclass(frozen=True)
class Chart:
    """A figure: pictures for both widths, and the values at each x for whoever points at it."""

    name: str
    title: str
    look: str
    keys: list[Key]
    wide: str
    narrow: str
    xs: list[float] = field(default_factory=list)  # shares of the plot's width
    words: list[str] = field(default_factory=list)  # what stands at each x
    rows: list[tuple[str, str, list[str]]] = field(default_factory=list)  # style, name, values


Draw = Callable[[int], str]


def a_second_short(value: float) -> str:
    """For an axis: 20k/s."""
    if value >= 10_000:
        return f"{number(value / 1000)}k/s"
    return a_second(value)


def both(draw: Draw) -> tuple[str, str]:
    return draw(WIDE), draw(NARROW)


def size(width: int) -> str:
    return "narrow" if width == NARROW else "wide"


def time_axis(report: Report, width: int) -> Axis:
    parts = report.stretches
    end = parts[-1].at_s + parts[-1].seconds if parts else 1
    return times(0, end, clock if end <= SHORT_S else minutes, max(4, width // 90))


def middles(report: Report) -> list[float]:
    return [one.at_s + one.seconds / 2 for one in report.stretches]


def shares(report: Report) -> list[float]:
    axis = time_axis(report, WIDE)
    return [axis.share(x) for x in middles(report)]


def spans(report: Report) -> list[str]:
    if report.stretch_s == 1:
        return [clock(one.at_s) for one in report.stretches]
    return [f"{clock(one.at_s)} to {clock(one.at_s + one.seconds)}" for one in report.stretches]


def over(report: Report, values: Sequence[float | None]) -> Points:
    return list(zip(middles(report), values, strict=True))


def percentile(report: Report, kind: str, name: str) -> Points:
    return over(report, [getattr(getattr(one, kind), name) for one in report.stretches])


def told_ms(one: Percentiles) -> list[float]:
    return [value for value in (one.p50, one.p99, one.p999) if value]


def fault_bands(report: Report, plot: Plot, named: bool = True) -> str:
    return bands(
        plot,
        [
            (one.at_s, one.at_s if one.until_s is None else one.until_s, one.name if named else "")
            for one in report.faults
        ],
    )
