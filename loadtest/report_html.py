"""A report as one HTML file that needs nothing else: no request leaves it, it opens from a disk, it can be mailed.

Its policy (Content-Security-Policy, in a meta element) allows nothing but its own style and its own small script, each
by the hash of its text, so a hostile name in a scenario could not do anything even if it were not escaped; and there
are no style attributes. Without the script every figure is still there. Every chart is in the page twice, for wide and
for narrow screens, of which the style shows one.
"""

import base64
import hashlib
import json
from collections.abc import Sequence
from html import escape

from loadtest import report_parts as parts
from loadtest.compare import Comparison
from loadtest.report_chart import Chart, Key
from loadtest.report_charts import lag, outcomes, rates, waiting
from loadtest.report_model import Report
from loadtest.report_shapes import load, spectrum
from loadtest.report_watched import server
from loadtest.report_words import verdict_of


def page(report: Report, style: str, script: str, against: tuple[Report, Comparison] | None = None) -> str:
    """The whole file. `style` and `script` are CSS and JavaScript; `against`: a baseline, and how this run differs."""
    baseline = against[0] if against else None
    shape, curve = spectrum(report, baseline), load(report, baseline)
    body = [
        parts.top(report),
        "<main>",
        parts.verdict(report, against[1] if against else None),
        parts.figures(report),
        *(f"<section>{_figure(chart)}</section>" for chart in (rates(report), waiting(report, baseline), lag(report))),
        f"<section>{_figure(shape)}</section>" if curve is None else _beside([_figure(shape), _figure(curve)]),
        f"<section>{_figure(outcomes(report))}</section>",
        parts.faults(report),
        _beside([*map(_figure, server(report)), parts.spent(report), parts.marks(report)]),
        parts.comparison(against[1]) if against else "",
        parts.percentiles(report),
        parts.invariants(report),
        parts.environment(report),
        "</main>",
        parts.foot(report),
    ]
    policy = (
        f"default-src 'none'; style-src {_hash(style)}; script-src {_hash(script)}; base-uri 'none'; form-action 'none'"
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="robots" content="noindex"><meta name="referrer" content="no-referrer">'
        f"<title>{escape(verdict_of(report).word)}: {escape(report.title)} - Tillgate load report</title>"
        f"<style>{style}</style></head><body>{''.join(body)}<script>{script}</script></body></html>\n"
    )


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _figure(chart: Chart) -> str:
    keys = "".join(map(_key, chart.keys))
    return (
        f'<figure class="card" id="{chart.name}"><figcaption><h2>{escape(chart.title)}</h2>'
        f'<p class="look">{escape(chart.look)}</p></figcaption><ul class="keys">{keys}</ul>'
        f'<div class="plot">{chart.wide}{chart.narrow}</div>{_values(chart)}</figure>'
    )


def _key(key: Key) -> str:
    mark = (
        f'<rect class="swatch {key.style}" x="5" y="0" width="14" height="12" rx="2"/>'
        if key.shape == "block"
        else f'<path class="line {key.style}{" dash" if key.shape == "dash" else ""}" d="M1 6H23"/>'
    )
    note = f'<span class="note">{escape(key.note)}</span>' if key.note else ""
    drawn = f'<svg viewBox="0 0 24 12" aria-hidden="true">{mark}</svg>'
    return f"<li>{drawn}<span>{escape(key.name)}</span>{note}</li>"


def _values(chart: Chart) -> str:
    """For the script: no script itself, and no text in it can end the element."""
    told = {"xs": [round(x, 5) for x in chart.xs], "words": chart.words, "rows": chart.rows}
    text = json.dumps(told, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c").replace("&", "\\u0026")
    return f'<script type="application/json" data-of="{chart.name}">{text}</script>'


def _beside(cards: Sequence[str]) -> str:
    """Two in a row where there is room; an odd table at the end takes the whole width."""
    return f'<div class="grid2">{"".join(cards)}</div>'
