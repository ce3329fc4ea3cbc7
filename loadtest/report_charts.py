"""The charts of a report over time: load, waiting, the generator's lag, outcomes. Pure."""

from collections.abc import Sequence

from loadtest.report_chart import (
    NARROW,
    SHOWN,
    Chart,
    Key,
    a_second_short,
    both,
    fault_bands,
    middles,
    over,
    percentile,
    shares,
    size,
    spans,
    time_axis,
    told_ms,
)
from loadtest.report_model import Report, Stretch
from loadtest.report_svg import Plot, Points, area, axes, beyond, decades, level, line, linear, picture
from loadtest.report_words import a_second, ms, percent, wait

LAG_MOST_MS = 10.0  # of its p99, or a tenth of the mark the run is judged by: beyond it a run is void
OUTCOMES_MAX = 7  # with colours of their own; the rest is one


def rates(report: Report) -> Chart:
    """Offered, started, completed, and what was lost, by second."""
    parts = report.stretches
    most = max((max(one.offered, one.completed) for one in parts), default=0)
    lost = [(one.dropped + one.unresolved) or None for one in parts]
    kinds = {
        "offered": [one.offered for one in parts],
        "started": [one.started for one in parts],
        "completed": [one.completed for one in parts],
    }

    def draw(width: int) -> str:
        plot = Plot(width, 260 if width > NARROW else 220, time_axis(report, width), linear(most, a_second_short))
        floor: Points = [(x, 0.0) for x in middles(report)]
        drawn = [axes(plot), fault_bands(report, plot), area(plot, over(report, kinds["offered"]), floor, "offered")]
        drawn += [line(plot, over(report, values), name) for name, values in kinds.items()]
        drawn.append(line(plot, over(report, lost), "lost"))
        told = (
            f"Up to {a_second(most)} offered; {report.counts.offered:,} in all, {report.counts.completed:,} answered."
        )
        return picture(plot, drawn, "Offered, started and completed by second", told, size(width), "rates")

    counts = report.counts
    keys = [
        Key("offered", "offered by the schedule", f"{counts.offered:,}", "block"),
        Key("started", "started", f"{counts.started:,}"),
        Key("completed", "answers arriving", f"{counts.completed:,}"),
        Key("lost", "never sent or unresolved", f"{counts.dropped + counts.unresolved:,}"),
    ]
    rows = [(name, name, [a_second(value) for value in values]) for name, values in kinds.items()]
    rows.append(("lost", "lost", [a_second(value or 0) for value in lost]))
    return Chart(
        "rates",
        "Load: offered, started, completed",
        "The three lines should lie on each other; where answers fall below what is offered, a queue is growing, "
        "and where they rise above it, it drains.",
        keys,
        *both(draw),
        xs=shares(report),
        words=spans(report),
        rows=rows,
    )


def waiting(report: Report, baseline: Report | None = None) -> Chart:
    """p50, p99, p99.9 over time, from the intended start and in service."""
    parts = report.stretches
    seen = [one for part in parts for one in told_ms(part.intended) + told_ms(part.service)]
    seen += [report.load.limit_ms] if report.load.limit_is_mark and report.load.limit_ms else []
    scale = decades(min(seen, default=0.1), max(seen, default=10), ms)
    beyond_at = [x for x, one in zip(middles(report), parts, strict=True) if one.offered and one.intended.p99 is None]

    def draw(width: int) -> str:
        plot = Plot(width, 320 if width > NARROW else 260, time_axis(report, width), scale)
        upper, lower = percentile(report, "intended", "p99"), percentile(report, "service", "p99")
        drawn = [axes(plot), fault_bands(report, plot), area(plot, upper, lower, "hidden")]
        if baseline is not None:
            drawn.append(line(plot, percentile(baseline, "intended", "p99"), "baseline"))
        for name, _ in SHOWN:
            drawn.append(line(plot, percentile(report, "service", name), f"{name} dash"))
        for name, _ in SHOWN:
            drawn.append(line(plot, percentile(report, "intended", name), name))
        if report.load.limit_is_mark and report.load.limit_ms is not None:
            drawn.append(level(plot, report.load.limit_ms, f"mark: p99 {ms(report.load.limit_ms)}", "limit"))
        drawn.append(beyond(plot, beyond_at))
        whole = report.latencies["intended"].percentiles
        waits = [f"{name} {wait(getattr(whole, name), whole)}" for name, _ in SHOWN]
        told = f"From the intended start: {', '.join(waits)}.".replace("p999", "p99.9")
        return picture(plot, drawn, "Waiting time by second", told, size(width), "waiting")

    keys = [Key(name, said, "from the intended start") for name, said in SHOWN]
    keys.append(Key("p99", "dashed: service", "what a closed loop would tell", "dash"))
    keys.append(Key("hidden", "p99 it would hide", "", "block"))
    if baseline is not None:
        keys.append(Key("baseline", "p99 of the baseline"))
    if beyond_at:
        keys.append(Key("beyond", "p99 beyond all answers", "too many have none", "block"))
    return Chart(
        "waiting",
        "Waiting time: what shoppers feel",
        "Solid lines are what a shopper waits, counted from when the scan was due; where they leave the dashed ones, "
        "people stood in a queue that the server's own service time does not show.",
        keys,
        *both(draw),
        xs=shares(report),
        words=spans(report),
        rows=_percentile_rows(report),
    )


def _percentile_rows(report: Report) -> list[tuple[str, str, list[str]]]:
    rows = []
    for kind, said in (("intended", "waited"), ("service", "service")):
        for name, word in SHOWN:
            values = [_answer(one, kind, name) for one in report.stretches]
            rows.append((name + (" dash" if kind == "service" else ""), f"{said} {word}", values))
    return rows


def _answer(part: Stretch, kind: str, name: str) -> str:
    among = getattr(part, kind)
    return wait(getattr(among, name), among)


def lag(report: Report) -> Chart:
    """What the generator itself added."""
    parts = report.stretches
    seen = [one for part in parts for one in told_ms(part.lag)]
    mark_ms = report.load.limit_ms if report.load.limit_is_mark else None
    limit_ms = LAG_MOST_MS if mark_ms is None else min(LAG_MOST_MS, mark_ms / 10)
    scale = decades(min(seen, default=0.1), max([*seen, limit_ms]), ms, 4)
    whole = report.latencies["lag"].percentiles

    def draw(width: int) -> str:
        plot = Plot(width, 150, time_axis(report, width), scale)
        drawn = [axes(plot), fault_bands(report, plot, named=False)]
        drawn += [line(plot, percentile(report, "lag", name), name) for name, _ in SHOWN]
        drawn.append(level(plot, limit_ms, f"{ms(limit_ms)}: a run whose p99 is above is void", "limit"))
        told = f"Over the whole run: lag p99 {wait(whole.p99, whole)}."
        return picture(plot, drawn, "Generator's lag by second", told, size(width), "lag")

    rows = [(name, f"lag {said}", [_answer(one, "lag", name) for one in parts]) for name, said in SHOWN]
    return Chart(
        "lag",
        "Generator's own lag",
        "How late the generator sent: far below the waiting time above, or the run measures the generator.",
        [Key(name, said) for name, said in SHOWN],
        *both(draw),
        xs=shares(report),
        words=spans(report),
        rows=rows,
    )


def outcomes(report: Report) -> Chart:
    """Answers by second and verdict, one upon the other."""
    names = outcome_names(report)
    layers = {name: [_outcome(one, name, names) for one in report.stretches] for name in names}
    heights = [sum(values) for values in zip(*layers.values(), strict=True)] if layers else []

    def draw(width: int) -> str:
        plot = Plot(
            width,
            240 if width > NARROW else 210,
            time_axis(report, width),
            linear(max(heights, default=0), a_second_short),
        )
        drawn, below = [axes(plot)], [0.0] * len(report.stretches)
        for at, values in enumerate(layers.values()):
            above = [low + value for low, value in zip(below, values, strict=True)]
            drawn.append(area(plot, over(report, above), over(report, below), f"o{at}"))
            below = above
        drawn.append(fault_bands(report, plot))
        told = "; ".join(f"{name}: {_total(report, name, names):,}" for name in names)
        return picture(plot, drawn, "Outcomes by second", told, size(width), "outcomes")

    answers = max(1, sum(report.outcomes.values()))
    keys = [
        Key(
            f"o{at}",
            said(name),
            f"{_total(report, name, names):,}, {percent(_total(report, name, names) / answers)}",
            "block",
        )
        for at, name in enumerate(names)
    ]
    rows = [
        (f"o{at}", said(name), [a_second(value) for value in values])
        for at, (name, values) in enumerate(layers.items())
    ]
    return Chart(
        "outcomes",
        "Outcomes",
        "The mix should be the one the scenario asks for, the same before and after a fault; a no that comes with load "
        "or with a fault only is a fault of the server's.",
        keys,
        *both(draw),
        xs=shares(report),
        words=spans(report),
        rows=rows,
    )


def outcome_names(report: Report) -> list[str]:
    """Accepted first, then by how many; beyond OUTCOMES_MAX they are one, named ""."""
    rest = sorted((name for name in report.outcomes if name != "accepted"), key=lambda name: -report.outcomes[name])
    names = (["accepted"] if "accepted" in report.outcomes else []) + rest
    return names if len(names) <= OUTCOMES_MAX else [*names[: OUTCOMES_MAX - 1], ""]


def said(name: str) -> str:
    return name.replace("_", " ") or "all others"


def _outcome(part: Stretch, name: str, names: Sequence[str]) -> float:
    if name:
        return part.outcomes.get(name, 0.0)
    return sum(count for other, count in part.outcomes.items() if other not in names)


def _total(report: Report, name: str, names: Sequence[str]) -> int:
    if name:
        return report.outcomes.get(name, 0)
    return sum(count for other, count in report.outcomes.items() if other not in names)
