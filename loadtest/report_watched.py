"""The charts of what the watched processes spent over time. Pure."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from loadtest.report_chart import HALF, NARROW, Chart, Key, fault_bands, size, time_axis
from loadtest.report_model import Report
from loadtest.report_server import ServerPoint, ServerSeries
from loadtest.report_svg import Plot, Points, axes, dots, line, linear, picture
from loadtest.report_words import clock, ms, number

FEW = 12  # points: so few are shown one by one


class Quantity(NamedTuple):
    """Something a process can tell of itself."""

    name: str
    title: str
    value: Callable[[ServerPoint], float | None]
    said: Callable[[float], str]
    look: str


def mib(value: float) -> str:
    return f"{number(value)} MiB"


QUANTITIES = (
    Quantity(
        "cpu",
        "CPU, in cores",
        lambda one: one.cores,
        number,
        "How many cores each process kept busy: one of a single thread that stays at 1 has reached its limit.",
    ),
    Quantity(
        "memory",
        "Memory",
        lambda one: one.rss_mib,
        mib,
        "Resident memory: a line that climbs through the whole run is a leak.",
    ),
    Quantity(
        "loop",
        "Event loop's lag",
        lambda one: one.loop_lag_ms,
        ms,
        "How late the gateway's loop came round: a peak here is waiting for everybody.",
    ),
    Quantity(
        "fsync",
        "Making the log durable (fsync, p99)",
        lambda one: one.fsync_p99_ms,
        ms,
        "Every yes waits for the disk: a peak here is a peak above.",
    ),
    Quantity(
        "files",
        "Open files",
        lambda one: one.open_fds,
        number,
        "Connections and files: it should return to where it began.",
    ),
)


def server(report: Report) -> list[Chart]:
    """A chart of each quantity that any process told."""
    return [_chart(report, one, told) for one in QUANTITIES if (told := _telling(report, one))]


def _telling(report: Report, one: Quantity) -> list[ServerSeries]:
    return [series for series in report.server if any(one.value(point) is not None for point in series.points)]


def _chart(report: Report, one: Quantity, series: Sequence[ServerSeries]) -> Chart:
    axis = time_axis(report, HALF)  # the watch goes on while the last answers are waited for; the axis does not
    values = {each.process: _told(each, one, axis.high) for each in series}
    most = {name: _most(points) for name, points in values.items()}
    places = {name: f"w{_place(report, name)}" for name in values}

    def draw(width: int) -> str:
        plot = Plot(width, 200, time_axis(report, width), linear(max(most.values()), one.said, 4))
        drawn = [axes(plot), fault_bands(report, plot, named=False)]
        drawn += [line(plot, points, places[name]) for name, points in values.items()]
        drawn += [dots(plot, points, places[name]) for name, points in values.items() if len(points) <= FEW]
        told = "; ".join(f"{name} at most {one.said(value)}" for name, value in most.items())
        return picture(plot, drawn, one.title, told, size(width), one.name)

    longest = max(values.values(), key=len)
    return Chart(
        one.name,
        one.title,
        one.look,
        [Key(places[name], name, f"at most {one.said(value)}") for name, value in most.items()],
        draw(HALF),
        draw(NARROW),
        xs=[axis.share(at_s) for at_s, _ in longest],
        words=[clock(at_s) for at_s, _ in longest],
        rows=[(places[name], name, _beside(longest, points, one.said)) for name, points in values.items()],
    )


def _most(points: Sequence[tuple[float, float | None]]) -> float:
    return max((value for _, value in points if value is not None), default=0.0)


def _told(series: ServerSeries, one: Quantity, until_s: float) -> Points:
    """What was told, and when: some gauges are read every few seconds only."""
    return [
        (point.at_s, told)
        for point in series.points
        if point.at_s <= until_s and (told := one.value(point)) is not None
    ]


def _place(report: Report, process: str) -> int:
    """A process has the same colour in every chart."""
    return [series.process for series in report.server].index(process) % 6


def _beside(
    longest: Sequence[tuple[float, float | None]],
    points: Sequence[tuple[float, float | None]],
    said: Callable[[float], str],
) -> list[str]:
    if not points:
        return ["-"] * len(longest)
    nearest = (min(points, key=lambda other: abs(other[0] - at_s))[1] for at_s, _ in longest)
    return ["-" if value is None else said(value) for value in nearest]
