"""The parts of a report's page that are no charts: verdict, figures, tables, comparison, environment. Pure."""

import json
from collections.abc import Iterable, Sequence
from html import escape

from loadtest.compare import Comparison, comparison_sentence
from loadtest.compare_rows import JUDGED, Row
from loadtest.evidence import Judgement
from loadtest.report_model import Report, Stretch
from loadtest.report_server import CpuShare
from loadtest.report_words import (
    clock,
    environment_lines,
    figures_of,
    mark_name,
    mark_value,
    moment,
    number,
    percent,
    sharing,
    verdict_of,
    wait,
    with_unit,
)

ICONS = {
    "good": "M4 12.5l5 5L20 6.5",
    "bad": "M6 6l12 12M18 6L6 18",
    "open": "M8.5 9a3.5 3.5 0 1 1 5 3.2c-1 .6-1.5 1.2-1.5 2.3M12 18.5v.1",
    "changed": "M4 12h15M13 6l6 6-6 6",
    "void": "M5.6 5.6l12.8 12.8M12 3a9 9 0 1 0 0 18 9 9 0 0 0 0-18Z",
}
WORDS = {"better": "good", "worse": "bad", "differs": "open", "void": "void"}
KIND_NAMES = {
    "intended": "from the intended start",
    "service": "service (first send to answer)",
    "lag": "generator's lag",
}
CPU_HEADS = ("process", "CPU a verdict", "cores, mean", "CPU", "memory at most")
NOTES = (
    (
        "Waiting is counted from the moment a scan was due, retries and the generator's own delay included. Service is "
        "counted from the first send, as a closed loop would do it: it leaves out whoever had to queue before "
        "(coordinated omission)."
    ),
    (
        "Percentiles of several seconds are those of their histograms added up; percentiles are never averaged. "
        "Attempts without an answer count as longer than every measured one. Histograms hold three digits (0.1 %)."
    ),
)


def top(report: Report) -> str:
    shows = report.scenario.get("shows")
    kicker = (
        f"Tillgate load report · {report.name or 'scenario'} · {moment(report.started_ms)} · {clock(report.seconds)}"
    )
    about = f'<p class="about">{escape(str(shows))}</p>' if shows else ""
    return f'<header class="top"><p class="kicker">{escape(kicker)}</p><h1>{escape(report.title)}</h1>{about}</header>'


def icon(mood: str) -> str:
    return f'<svg class="icon" viewBox="0 0 24 24" aria-hidden="true"><path d="{ICONS[mood]}"/></svg>'


def verdict(report: Report, against: Comparison | None) -> str:
    verdict = verdict_of(report)
    lines = "".join(
        f'<li class="{line.mood}">{icon(line.mood)}<span>{escape(line.text)}</span></li>' for line in verdict.lines
    )
    if against is not None:
        text = escape(comparison_sentence(against))
        lines += f'<li class="changed">{icon("changed")}<span>{text} <a href="#baseline">See below.</a></span></li>'
    return (
        f'<section class="card verdict {verdict.mood}" aria-label="Verdict">'
        f'<p class="word">{icon(verdict.mood)}{verdict.word}</p><h2>{escape(verdict.sentence)}</h2>'
        f'<ul class="findings">{lines}</ul></section>'
    )


def figures(report: Report) -> str:
    """A void run's times are struck out."""
    struck = " class=void" if report.void else ""
    told = "".join(
        f'<div{struck if one.timed else ""}><dt>{escape(one.label)}</dt><dd class="value">{escape(one.value)}</dd>'
        f'<dd class="note">{escape(one.note)}</dd></div>'
        for one in figures_of(report)
    )
    return f'<section><dl class="figures">{told}</dl></section>'


def faults(report: Report) -> str:
    if not report.faults:
        return ""
    settled = {one.fault: one.seconds for one in report.recoveries}
    rows = [
        (
            one.name,
            clock(one.at_s),
            "a moment" if one.until_s is None else clock(one.until_s - one.at_s),
            "not in this run" if (calm := settled.get(one.name)) is None else f"{clock(calm)} after its end",
        )
        for one in report.faults
    ]
    look = "Recovered: from then on p99 stayed within twice of what it was before the fault."
    return card("Faults", table(("fault", "at", "for", "recovered"), rows), look)


def percentiles(report: Report) -> str:
    rows = [
        (
            KIND_NAMES[kind],
            *(wait(value, p) for value in (p.p50, p.p90, p.p99, p.p999, p.p9999, p.largest)),
            f"{one.measured:,}",
            f"{one.missing:,}",
        )
        for kind, one in report.latencies.items()
        for p in [one.percentiles]
    ]
    heads = ("waiting", "p50", "p90", "p99", "p99.9", "p99.99", "largest", "measured", "no answer")
    return card("Percentiles of the whole run", table(heads, rows))


def marks(report: Report) -> str:
    """What the scenario asks for; nothing where it asks for nothing."""
    rows = [
        (mark_name(one), mark_value(one, one.measured), mark_value(one, one.most), _met(one.met))
        for one in report.marks
    ]
    return card("Marks", table(("mark", "measured", "at most", "met"), rows)) if rows else ""


def invariants(report: Report) -> str:
    """What verify found; nothing where it did not look."""
    if report.invariants is None:
        return ""
    rows = [(one.name, _held(one.holds), one.says, found(one)) for one in report.invariants]
    return card("Invariants", table(("", "holds", "what must hold", "what was found"), rows, said=(2, 3)))


def found(one: Judgement) -> str:
    """The first counterexample, or what was compared."""
    if one.counterexample:
        return one.counterexample + (f" (and {one.broken - 1:,} more)" if one.broken > 1 else "")
    numbers = ", ".join(f"{name} {count:,}" for name, count in one.compared.items())
    return "; ".join(part for part in (numbers, one.why) if part) or "-"


def spent(report: Report) -> str:
    """CPU and memory of each process; nothing where nobody watched."""
    return card("What the processes spent", table(CPU_HEADS, map(_cpu_cells, report.cpu))) if report.cpu else ""


def _cpu_cells(one: CpuShare) -> tuple[str, ...]:
    cost = "-" if one.us_per_verdict is None else f"{number(one.us_per_verdict)} µs"
    return one.process, cost, number(one.cores), f"{number(one.seconds)} s", f"{number(one.rss_most_mib)} MiB"


def _met(met: bool | None) -> str:
    return {True: "yes", False: "NO", None: "not judged"}[met]


def _held(held: bool | None) -> str:
    return {True: "yes", False: "BROKEN", None: "not judged"}[held]


def card(title: str, inner: str, look: str = "") -> str:
    told = f'<p class="look">{escape(look)}</p>' if look else ""
    return f'<section class="card"><h2>{escape(title)}</h2>{told}{inner}</section>'


def table(heads: Sequence[str], rows: Iterable[Sequence[str]], said: Sequence[int] = ()) -> str:
    def cell(at: int, text: str, kind: str) -> str:
        scope = ' scope="col"' if kind == "head" else ' scope="row"' if at == 0 else ""
        tag, style = "th" if scope else "td", ' class="said"' if at in said else ""
        return f"<{tag}{scope}{style}>{escape(text)}</{tag}>"

    top = "".join(cell(at, head, "head") for at, head in enumerate(heads))
    body = "".join(f"<tr>{''.join(cell(at, text, '') for at, text in enumerate(row))}</tr>" for row in rows)
    return f'<div class="scroll" tabindex="0"><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'


def comparison(one: Comparison) -> str:
    voids = [
        f"{name} is void: {'; '.join(why)}"
        for name, why in ((one.base, one.base_void), (one.other, one.other_void))
        if why
    ]
    told = [("void", text) for text in voids] + [("open", text) for text in one.warnings]
    told += [("changed", text) for text in one.changed]
    notes = "".join(f'<li class="{mood}">{icon(mood)}<span>{escape(text)}</span></li>' for mood, text in told)
    rows = "".join(map(_row, one.rows))
    heads = "".join(
        f'<th scope="col">{escape(head)}</th>'
        for head in ("", "beyond noise?", "baseline", "this run", "ratio", "95 % interval")
    )
    return (
        f'<section class="card" id="baseline"><h2>Against the baseline: {escape(one.base)}</h2>'
        f'<p class="look">{escape(one.rule)}</p>'
        f'<ul class="findings">{notes}</ul><div class="scroll" tabindex="0"><table><thead><tr>{heads}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div></section>"
    )


def _row(row: Row) -> str:
    mood = WORDS.get(row.judgement, "")
    told = f'<span class="mood {mood}">{JUDGED[row.judgement]}</span>' if mood else JUDGED[row.judgement]
    cells = (
        with_unit(row.base, row.unit),
        with_unit(row.other, row.unit),
        "-" if row.ratio is None else number(row.ratio),
        "-" if row.interval is None else f"{number(row.interval[0])} to {number(row.interval[1])}",
    )
    values = "".join(f"<td>{escape(cell)}</td>" for cell in cells)
    return f'<tr><th scope="row">{escape(row.name)}</th><td>{told}</td>{values}</tr>'


def environment(report: Report) -> str:
    lines = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in environment_lines(report))
    scenario = escape(json.dumps(report.scenario, indent=2, ensure_ascii=False))
    seconds = map(_stretch_cells, report.stretches)
    heads = ("from", "offered/s", "started/s", "answers/s", "p50", "p99", "p99.9", "service p99", "lag p99", "lost/s")
    return (
        f'<section class="card"><h2>Where it ran</h2><p class="shared">{escape(sharing(report.environment))}</p>'
        f'<dl class="where">{lines}</dl>'
        f'<details><summary>The scenario, as it was run</summary><pre tabindex="0">{scenario}</pre></details>'
        f"<details><summary>The curves as a table</summary>{table(heads, seconds)}</details></section>"
    )


def _stretch_cells(one: Stretch) -> tuple[str, ...]:
    waited = one.intended
    return (
        clock(one.at_s),
        *(number(rate) for rate in (one.offered, one.started, one.completed)),
        *(wait(value, waited) for value in (waited.p50, waited.p99, waited.p999)),
        wait(one.service.p99, one.service),
        wait(one.lag.p99, one.lag),
        number(one.dropped + one.unresolved),
    )


def foot(report: Report) -> str:
    sent = report.counts.sends
    notes = [
        *NOTES,
        f"{sent:,} messages were sent for {report.counts.started:,} attempts ({percent(_again(report))} asked again).",
    ]
    return f"<footer>{''.join(f'<p>{escape(note)}</p>' for note in notes)}</footer>"


def _again(report: Report) -> float:
    return max(0.0, report.counts.sends / report.counts.started - 1) if report.counts.started else 0.0
