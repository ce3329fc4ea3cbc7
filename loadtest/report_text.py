"""Reports and comparisons as Markdown, for a pull request or a chat. Pure.

Names from a scenario are no markup here either: whatever could be taken for some is escaped.
"""

import re
from collections.abc import Iterable, Sequence

from loadtest.compare import Comparison
from loadtest.compare_rows import JUDGED
from loadtest.report_model import Report
from loadtest.report_words import (
    a_second,
    clock,
    environment_lines,
    load_sentence,
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

SIGNS = {"good": "✅", "bad": "❌", "open": "❔", "void": "⛔"}
MARKUP = re.compile(r"([\\`*_{}\[\]<>|#~!@])")


def plain(text: str) -> str:
    """A text that stays what it is; one line."""
    return MARKUP.sub(r"\\\1", " ".join(text.split()))


def markdown(report: Report, against: Comparison | None = None) -> str:
    """The summary of one run, with the difference to a baseline."""
    verdict = verdict_of(report)
    parts = [
        f"## {SIGNS[verdict.mood]} {verdict.word}: {plain(report.title)}",
        f"{plain(verdict.sentence)} {moment(report.started_ms)}, {clock(report.seconds)}.",
        "\n".join(f"- {SIGNS[line.mood]} {plain(line.text)}" for line in verdict.lines),
        _waits(report),
        _counts(report),
        plain(load_sentence(report)),
    ]
    if report.marks:
        rows = [
            (plain(mark_name(one)), mark_value(one, one.measured), mark_value(one, one.most), _met(one.met))
            for one in report.marks
        ]
        parts.append(_table(("mark", "measured", "at most", "met"), rows))
    if against is not None:
        parts.append("### Against the baseline\n\n" + comparison_markdown(against))
    where = "; ".join(f"{plain(name)} {plain(value)}" for name, value in environment_lines(report))
    parts.append(f"<sub>{where}. {plain(sharing(report.environment))}</sub>")
    return "\n\n".join(parts) + "\n"


def _met(met: bool | None) -> str:
    return {True: "yes", False: "**no**", None: "not judged"}[met]


def _waits(report: Report) -> str:
    kinds = (("intended", "from the intended start"), ("service", "service"), ("lag", "generator's lag"))
    rows = [
        (said, *(wait(value, p) for value in (p.p50, p.p99, p.p999, p.largest)))
        for kind, said in kinds
        for p in [report.latencies[kind].percentiles]
    ]
    return _table(("", "p50", "p99", "p99.9", "largest"), rows)


def _counts(report: Report) -> str:
    counts = report.counts
    lost = counts.dropped + counts.unresolved
    answers = max(1, sum(report.outcomes.values()))
    outcomes = ", ".join(
        f"{plain(name.replace('_', ' '))} {count:,} ({percent(count / answers)})"
        for name, count in sorted(report.outcomes.items(), key=lambda one: -one[1])
    )
    cpu = ", ".join(
        f"{plain(one.process)} {number(one.us_per_verdict)} µs" for one in report.cpu if one.us_per_verdict is not None
    )
    most = max((one.offered for one in report.stretches), default=0.0)
    lines = [
        f"- {counts.offered:,} attempts offered (up to {a_second(most)}), {counts.completed:,} answered, {lost:,} not",
        f"- outcomes: {outcomes or 'none'}",
    ]
    return "\n".join([*lines, *([f"- CPU a verdict: {cpu}"] if cpu else [])])


def comparison_markdown(one: Comparison) -> str:
    """What differs between two runs."""
    voids = [("base", one.base, one.base_void), ("other", one.other, one.other_void)]
    notes = [f"- {SIGNS['void']} {plain(name)} is void: {plain('; '.join(why))}" for _, name, why in voids if why]
    notes += [f"- ⚠️ {plain(text)}" for text in one.warnings]
    notes += [f"- changed: {plain(text)}" for text in one.changed]
    rows = [
        (
            plain(row.name),
            with_unit(row.base, row.unit),
            with_unit(row.other, row.unit),
            "" if row.ratio is None else number(row.ratio),
            "" if row.interval is None else f"{number(row.interval[0])} to {number(row.interval[1])}",
            f"**{JUDGED[row.judgement]}**" if row.judgement in ("better", "worse") else JUDGED[row.judgement],
        )
        for row in one.rows
    ]
    heads = ("", plain(one.base), plain(one.other), "ratio", "95 % interval", "more than noise?")
    return "\n\n".join([*(["\n".join(notes)] if notes else []), _table(heads, rows), one.rule])


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [heads, ["---", *["---:"] * (len(heads) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
