"""Charts as SVG text: scales with ticks at round numbers, lines, areas, bands. No colour stands here, only classes.

A chart is drawn for one width in CSS pixels, so that its letters are not scaled; a page holds it once for wide and once
for narrow screens and shows one of them. Points whose value is None break a line.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from html import escape

LEFT, RIGHT, TOP, BOTTOM = 62, 16, 14, 28
LETTER_PX = 6.6  # of the 12 px figures on an axis
BOLD_PX = 7.2  # of names within a chart
CLOCK_STEPS_S = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 28800, 86400)

Points = Sequence[tuple[float, float | None]]


@dataclass(frozen=True)
class Axis:
    """From `low` to `high`; ticks are values and what is written there, "" for a line without a word."""

    low: float
    high: float
    ticks: tuple[tuple[float, str], ...]
    log: bool = False

    def share(self, value: float) -> float:
        """0 at the low end, 1 at the high one; what lies outside is put on the edge."""
        if self.log:
            value = math.log(max(value, self.low) / self.low) / math.log(self.high / self.low)
        else:
            value = (value - self.low) / (self.high - self.low)
        return min(1.0, max(0.0, value))


def linear(high: float, said: Callable[[float], str], ticks: int = 5) -> Axis:
    """From 0 to a round number at or above `high`, with about so many ticks."""
    high = high if high > 0 else 1.0
    rough = high / ticks
    size = 10 ** math.floor(math.log10(rough))
    step = next(size * factor for factor in (1, 2, 2.5, 5, 10) if size * factor >= rough * 0.999)
    count = math.ceil(high / step - 1e-9)
    return Axis(0, step * count, tuple((step * at, said(step * at)) for at in range(count + 1)))


def between(low: float, high: float, said: Callable[[float], str], ticks: int = 6) -> Axis:
    """As linear, but from a round number at or below `low`."""
    whole = linear(max(high - low, 1e-9), said, ticks)
    step = whole.ticks[1][0] - whole.ticks[0][0]
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return Axis(first * step, last * step, tuple((at * step, said(at * step)) for at in range(first, last + 1)))


def decades(low: float, high: float, said: Callable[[float], str], ticks: int = 8) -> Axis:
    """Logarithmic, from a 1, 2 or 5 of some decade at or below `low` to one at or above `high`."""
    low = max(low, 1e-3)
    high = max(high, low * 1.001)
    rounds = [factor * 10.0**power for power in range(-4, 9) for factor in (1, 2, 5)]
    first = max(at for at, value in enumerate(rounds) if value <= low * 1.0001)
    last = next(at for at, value in enumerate(rounds) if value >= high * 0.9999 and at > first)
    shown = rounds[first : last + 1]
    sparse = len(shown) > ticks
    words = [(value, "" if sparse and not math.log10(value).is_integer() else said(value)) for value in shown]
    return Axis(shown[0], shown[-1], tuple(words), log=True)


def times(low: float, high: float, said: Callable[[float], str], ticks: int) -> Axis:
    """Seconds; ends where the last stretch ends, with ticks at steps a clock has."""
    step = next((step for step in CLOCK_STEPS_S if (high - low) / step <= ticks), CLOCK_STEPS_S[-1])
    first, last = math.ceil(low / step), math.floor(high / step)
    return Axis(low, max(high, low + 1), tuple((at * step, said(at * step)) for at in range(first, last + 1)))


def nines(most: float) -> Axis:
    """Shares by the logarithm of 1 / (1 - share), to `most` decades: 0 %, 90 %, 99 % ... Values: 1/(1-share)."""
    names = ("0 %", "90 %", "99 %", "99.9 %", "99.99 %", "99.999 %")
    return Axis(1, 10**most, tuple((10.0**at, name) for at, name in enumerate(names) if at <= most), log=True)


@dataclass(frozen=True)
class Plot:
    """Where a value lies in a picture of `width` by `height` pixels."""

    width: int
    height: int
    x: Axis
    y: Axis

    def at(self, x: float, y: float) -> str:
        return f"{self.across(x):.1f},{self.down(y):.1f}"

    def across(self, x: float) -> float:
        return LEFT + self.x.share(x) * (self.width - LEFT - RIGHT)

    def down(self, y: float) -> float:
        return TOP + (1 - self.y.share(y)) * (self.height - TOP - BOTTOM)

    @property
    def floor(self) -> int:
        return self.height - BOTTOM

    @property
    def end(self) -> int:
        return self.width - RIGHT


def axes(plot: Plot) -> str:
    """Lines across at each tick of y, and what is written beside and below."""
    drawn = []
    for value, word in plot.y.ticks:
        y = plot.down(value)
        drawn.append(f'<path class="{"grid" if word else "grid minor"}" d="M{LEFT} {y:.1f}H{plot.end}"/>')
        if word:
            drawn.append(f'<text class="tick" x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{escape(word)}</text>')
    last = -1e9
    for value, word in plot.x.ticks:
        x = plot.across(value)
        half = len(word) * LETTER_PX / 2
        drawn.append(f'<path class="notch" d="M{x:.1f} {plot.floor}v4"/>')
        middle = min(x, plot.width - 2 - half)
        if word and middle - half > last:
            drawn.append(
                f'<text class="tick" x="{middle:.1f}" y="{plot.floor + 18}" text-anchor="middle">{escape(word)}</text>'
            )
            last = middle + half + 6
    drawn.append(f'<path class="floor" d="M{LEFT} {plot.floor}H{plot.end}"/>')
    return "".join(drawn)


def line(plot: Plot, points: Points, style: str) -> str:
    """One line; a lone point between gaps is drawn as a dash of its own width."""
    parts: list[list[str]] = [[]]
    for x, y in points:
        if y is None:
            parts.append([])
        else:
            parts[-1].append(plot.at(x, y))
    path = "".join("M" + "L".join(part if len(part) > 1 else part * 2) for part in parts if part)
    return f'<path class="line {style}" d="{path}"/>' if path else ""


def steps(points: Points, length: float) -> Points:
    """Values that hold for `length` from each x on, as the corners of a line of steps."""
    return [corner for x, y in points for corner in ((x, y), (x + length, y))]


def area(plot: Plot, upper: Points, lower: Points, style: str) -> str:
    """Between two lines over the same xs; where either breaks there is nothing."""
    parts: list[list[tuple[float, float, float]]] = [[]]
    for (x, high), (_, low) in zip(upper, lower, strict=True):
        if high is None or low is None:
            parts.append([])
        else:
            parts[-1].append((x, high, low))
    path = "".join(
        "M"
        + "L".join([plot.at(x, high) for x, high, _ in part] + [plot.at(x, low) for x, _, low in reversed(part)])
        + "Z"
        for part in parts
        if len(part) > 1
    )
    return f'<path class="area {style}" d="{path}"/>' if path else ""


def dots(plot: Plot, points: Points, style: str) -> str:
    made = (f'<circle cx="{plot.across(x):.1f}" cy="{plot.down(y):.1f}" r="3"/>' for x, y in points if y is not None)
    return f'<g class="dot {style}">{"".join(made)}</g>'


def beyond(plot: Plot, xs: Iterable[float]) -> str:
    """Small triangles at the top edge: the value is larger than anything that was measured."""
    made = (f"M{plot.across(x) - 3:.1f} {TOP}h6l-3 -6Z" for x in xs)
    path = "".join(made)
    return f'<path class="beyond" d="{path}"/>' if path else ""


def upright(plot: Plot, x: float, word: str, style: str, row: int = 0) -> str:
    """A line from top to bottom with a word beside it, on the side where there is room."""
    at, width = plot.across(x), len(word) * LETTER_PX
    left = at + 6 + width > plot.end
    anchor = "end" if left else "start"
    x, y = at + (-5 if left else 5), TOP + 12 + 15 * row
    return (
        f'<path class="rule {style}" d="M{at:.1f} {TOP}V{plot.floor}"/>'
        f'<text class="note {style}" x="{x:.1f}" y="{y}" text-anchor="{anchor}">{escape(word)}</text>'
    )


def level(plot: Plot, y: float, word: str, style: str) -> str:
    """A line across with a word above its left end."""
    at = plot.down(y)
    above = at > TOP + 34  # otherwise the names of faults stand there
    return (
        f'<path class="rule {style}" d="M{LEFT} {at:.1f}H{plot.end}"/>'
        f'<text class="note {style}" x="{LEFT + 6}" y="{at - 5 if above else at + 14:.1f}">{escape(word)}</text>'
    )


def bands(plot: Plot, stretches: Sequence[tuple[float, float, str]]) -> str:
    """Faults: shaded stretches of time, at least two pixels wide, with their names at the top, in as many rows as it
    takes for them not to lie upon each other; "" for none."""
    drawn: list[str] = []
    rows: list[float] = []  # where each row's last name ends
    for start, end, word in sorted(stretches):
        low, high = plot.across(start), plot.across(end)
        high = max(high, low + 2)
        drawn.append(f'<path class="fault" d="M{low:.1f} {TOP}H{high:.1f}V{plot.floor}H{low:.1f}Z"/>')
        if word:
            length = len(word) * BOLD_PX
            x = max(LEFT + 2, min(low + 4, plot.width - length - 2))
            row = next((at for at, taken in enumerate(rows) if taken < x), len(rows))
            rows[row:] = [x + length + 6, *rows[row + 1 :]]
            drawn.append(f'<text class="note bad" x="{x:.1f}" y="{TOP + 11 + 14 * row}">{escape(word)}</text>')
    return "".join(drawn)


def picture(plot: Plot, drawn: Iterable[str], title: str, told: str, style: str, hover: str = "") -> str:
    """A whole SVG element. `told` says in words what can be seen; `hover` names the values a reader may point at."""
    pointed = f' data-hover="{escape(hover)}" data-left="{LEFT}" data-right="{plot.end}"' if hover else ""
    return (
        f'<svg class="chart {style}" viewBox="0 0 {plot.width} {plot.height}" role="img" '
        f'aria-label="{escape(title)}"{pointed}><desc>{escape(told)}</desc>{"".join(drawn)}</svg>'
    )
