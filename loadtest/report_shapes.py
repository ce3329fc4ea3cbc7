"""The charts of a report that have no time axis: the percentile spectrum, and waiting against load. Pure."""

from loadtest.report_chart import HALF, NARROW, WIDE, Chart, Key, a_second_short, size
from loadtest.report_model import NINES, Report
from loadtest.report_svg import Plot, axes, between, beyond, decades, dots, level, line, nines, picture, upright
from loadtest.report_words import a_second, load_sentence, ms, percent, wait

KINDS = (
    ("intended", "from the intended start", "p99"),
    ("service", "service", "p99 dash"),
    ("lag", "generator's lag", "lag"),
)


SHOWN_FROM = 0.2  # the smallest values of all would stretch the axis for nothing


def spectrum(report: Report, baseline: Report | None = None) -> Chart:
    """Value by share, the share's axis stretched towards 100 % (as HdrHistogram's plots are).

    Half as wide as the page where the curve of waiting against load stands beside it.
    """
    curves = [(kind, said, style, report.spectra[kind].points) for kind, said, style in KINDS]
    if baseline is not None:
        curves.append(
            ("baseline", "baseline, from the intended start", "baseline", baseline.spectra["intended"].points)
        )
    seen = [value for _, _, _, points in curves for share, value in points if share >= SHOWN_FROM]
    scale = decades(min(seen, default=0.1), max(seen, default=10), ms)
    most = max((1 / (1 - share) for _, _, _, points in curves for share, _ in points), default=10)
    across = nines(next(at for at in range(1, 6) if 10.0**at >= most * 0.999 or at == NINES))
    answered = report.spectra["intended"].answered

    def draw(width: int) -> str:
        plot = Plot(width, 320 if width > NARROW else 270, across, scale)
        drawn = [axes(plot)]
        for _, _, style, points in reversed(curves):
            drawn.append(line(plot, [(1 / (1 - share), value) for share, value in points], style))
        if answered < 1:
            drawn.append(upright(plot, 1 / (1 - answered), f"{percent(answered)} got an answer", "bad"))
        whole = report.latencies["intended"].percentiles
        told = f"p50 {wait(whole.p50, whole)}, p99 {wait(whole.p99, whole)}, p99.99 {wait(whole.p9999, whole)}."
        return picture(plot, drawn, "Percentile spectrum", told, size(width), "spectrum")

    points = curves[0][3]
    rows = [(style, said, _beside([share for share, _ in points], other)) for _, said, style, other in curves]
    return Chart(
        "spectrum",
        "Percentile spectrum",
        "The whole run in one curve: how many of all scans wait at most so long. A flat line with a late, gentle rise "
        "is good; a step is a stall, and where it stands tells how many it hit.",
        [Key(style, said, "", "dash" if "dash" in style else "line") for _, said, style, _ in curves],
        draw(HALF if report.load.varied else WIDE),
        draw(NARROW),
        xs=[across.share(1 / (1 - share)) for share, _ in points],
        words=[percent(share) for share, _ in points],
        rows=rows,
    )


def _beside(shares: list[float], points: list[tuple[float, float]]) -> list[str]:
    values = {round(share, 9): value for share, value in points}
    return [ms(values[round(share, 9)]) if round(share, 9) in values else "-" for share in shares]


def load(report: Report, baseline: Report | None = None) -> Chart | None:
    """Waiting against load, with the knee; None where the load did not vary."""
    curve = report.load.points
    if not report.load.varied:
        return None
    other = baseline.load.points if baseline is not None else []
    kinds = {
        "p50": [(one.offered, one.p50) for one in curve],
        "p99": [(one.offered, one.p99) for one in curve],
        "p999": [(one.offered, one.p999) for one in curve],
    }
    seen = [value for points in kinds.values() for _, value in points if value]
    seen += [report.load.limit_ms] if report.load.limit_ms else []
    scale = decades(min(seen, default=0.1), max(seen, default=10), ms)

    def draw(width: int) -> str:
        across = between(0, curve[-1].offered, a_second_short, 6 if width > NARROW else 4)
        plot = Plot(width, 320 if width > NARROW else 270, across, scale)
        drawn = [axes(plot), line(plot, [(one.offered, one.p99) for one in other], "baseline")]
        if report.load.limit_ms is not None:
            word = "mark" if report.load.limit_is_mark else "limit"
            drawn.append(level(plot, report.load.limit_ms, f"{word}: p99 {ms(report.load.limit_ms)}", "limit"))
        if report.load.sustained is not None:
            drawn.append(upright(plot, report.load.sustained, f"sustained {a_second(report.load.sustained)}", "good"))
        if report.load.knee is not None:
            drawn.append(upright(plot, report.load.knee, f"knee {a_second(report.load.knee)}", "knee", row=1))
        for name, points in kinds.items():
            drawn += [line(plot, points, name), dots(plot, points, name)]
        drawn.append(beyond(plot, [one.offered for one in curve if one.p99 is None]))
        return picture(plot, drawn, "Waiting time against offered load", load_sentence(report), size(width), "load")

    keys = [Key("p50", "p50"), Key("p99", "p99"), Key("p999", "p99.9")]
    if other:
        keys.append(Key("baseline", "p99 of the baseline"))
    across = between(0, curve[-1].offered, a_second_short)
    return Chart(
        "load",
        "Waiting time against offered load",
        load_sentence(report),
        keys,
        draw(HALF),
        draw(NARROW),
        xs=[across.share(one.offered) for one in curve],
        words=[f"{a_second(one.offered)}, {one.seconds} s" for one in curve],
        rows=[
            (name, name.replace("p999", "p99.9"), [ms(value) for _, value in points]) for name, points in kinds.items()
        ],
    )
