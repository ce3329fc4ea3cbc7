"""From what is promised (ops/slo.toml) to Prometheus rules: recorded ratios, and alerts on how fast a budget burns.

Multi-window burn rates after the Site Reliability Workbook, chapter "Alerting on SLOs": a page when 2 % of the budget
went in an hour or 5 % in six hours, a ticket when 10 % went in a tenth of the window; each also over a twelfth of its
time, so that the alert ends soon after its cause. The factors follow from the window: share * window / time.

Pure: text in, text out. `scaled` makes minutes of hours in finished rules, so that a test can wait for them.
"""

import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any

import msgspec
from msgspec import Meta

HOUR_S, DAY_S = 3600, 86_400
BUCKETS_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)  # metrics.SECONDS
FAST = ((0.02, HOUR_S), (0.05, 6 * HOUR_S))  # share of the budget, in seconds
SLOW_SHARE = 0.1  # in a tenth of the window, in whole days
SHORT = 12  # the second window is this much shorter

_Share = Annotated[float, Meta(gt=0.5, lt=1)]


class Availability(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    objective: _Share


class Within(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`objective` of all within `seconds`."""

    objective: _Share
    seconds: Annotated[float, Meta(gt=0)]


class Promises(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The content of slo.toml."""

    window_days: Annotated[int, Meta(ge=1, le=90)]
    attempts_an_hour_min: Annotated[int, Meta(ge=0)]
    availability: Availability
    latency: tuple[Within, ...]
    freshness: Within


class BadPromises(Exception):
    """Says what is wrong with slo.toml, and where."""


class Burn(msgspec.Struct, frozen=True):
    """A pair of windows in seconds, and how many times the allowed rate is too much in both."""

    long_s: int
    short_s: int
    factor: float


def read(text: str) -> Promises:
    """Raises BadPromises."""
    try:
        promises = msgspec.convert(tomllib.loads(text), Promises)
    except (tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise BadPromises(str(error)) from None
    for within in promises.latency:
        if within.seconds not in BUCKETS_S:
            raise BadPromises(
                f"latency.seconds {within.seconds:g} is no bucket bound: {', '.join(map(str, BUCKETS_S))}"
            )
    return promises


def with_window(promises: Promises, days: int) -> Promises:
    """The same promises over another time."""
    return msgspec.structs.replace(promises, window_days=days)


def fast_burns(window_days: int) -> tuple[Burn, ...]:
    """Those that page."""
    return tuple(_burn(share, long_s, window_days) for share, long_s in FAST)


def slow_burn(window_days: int) -> Burn:
    """The one that can wait for the morning."""
    return _burn(SLOW_SHARE, max(1, round(window_days / 10)) * DAY_S, window_days)


def _burn(share: float, long_s: int, window_days: int) -> Burn:
    return Burn(long_s, long_s // SHORT, round(share * window_days * DAY_S / long_s, 2))


def span(seconds: float) -> str:
    """As Prometheus writes lengths of time: 90 -> 90s, 7200 -> 2h."""
    for unit, size in (("d", DAY_S), ("h", HOUR_S), ("m", 60), ("s", 1)):
        if seconds >= size and seconds % size == 0:
            return f"{seconds / size:.0f}{unit}"
    return f"{max(1, round(seconds * 1000))}ms"


# --- rules ------------------------------------------------------------------------------------------------------------

_Rule = dict[str, Any]
_ATTEMPTS = "tillgate_redeem_requests_total"
_SECONDS = "tillgate_redeem_duration_seconds"
_RUNBOOKS = "ops/runbooks"
_HEADER = """\
# Made by `tillgate slo rules` from ops/slo.toml: change that, and run it again.
"""


def rules(promises: Promises) -> str:
    """The whole of slo.yml."""
    groups = {
        "tillgate-slo-ratios": [*_ratios(promises)],
        "tillgate-slo-alerts": [*_availability_alerts(promises), *_latency_alerts(promises)],
    }
    return _HEADER + _yaml(groups)


def _windows(promises: Promises) -> list[int]:
    burns = (*fast_burns(promises.window_days), slow_burn(promises.window_days))
    return sorted({seconds for burn in burns for seconds in (burn.short_s, burn.long_s)})


def _ratios(promises: Promises) -> Iterator[_Rule]:
    whole = span(promises.window_days * DAY_S)
    for window in map(span, _windows(promises)):
        lost = f'sum by (job) (rate({_ATTEMPTS}{{outcome="unresolved"}}[{window}]))'
        every = f"sum by (job) (rate({_ATTEMPTS}[{window}]))"
        yield {"record": f"job:tillgate_redeem_unresolved:ratio_rate{window}", "expr": f"{lost} / {every}"}
        for within in promises.latency:
            yield {"record": _slow_name(within, window), "expr": _slow_ratio(within, window)}
    yield {"record": "job:tillgate_redeem_attempts:increase1h", "expr": f"sum by (job) (increase({_ATTEMPTS}[1h]))"}
    lag = "max by (job) (tillgate_projection_lag_seconds)"
    yield {"record": "job:tillgate_projection_fresh:bool", "expr": f"{lag} < bool {promises.freshness.seconds:g}"}
    fresh = f"avg_over_time(job:tillgate_projection_fresh:bool[{whole}])"
    yield {
        "record": "job:tillgate_projection_fresh:budget_left",
        "expr": _left(f"1 - {fresh}", promises.freshness.objective),
    }
    lost = f'sum by (job) (increase({_ATTEMPTS}{{outcome="unresolved"}}[{whole}]))'
    spent = f"{lost} / sum by (job) (increase({_ATTEMPTS}[{whole}]))"
    yield {
        "record": "job:tillgate_redeem_availability:budget_left",
        "expr": _left(spent, promises.availability.objective),
    }


def _left(spent: str, objective: float) -> str:
    """1 when nothing of the budget is spent, 0 when all is, less than 0 when the promise is broken."""
    return f"1 - ({spent}) / {1 - objective:.6g}"


def _slow_name(within: Within, window: str) -> str:
    return f"job:tillgate_redeem_slower_than_{within.seconds * 1000:g}ms:ratio_rate{window}"


def _slow_ratio(within: Within, window: str) -> str:
    decided = 'outcome!="unresolved"'
    fast = f'sum by (job) (rate({_SECONDS}_bucket{{{decided},le="{within.seconds}"}}[{window}]))'
    return f"1 - {fast} / sum by (job) (rate({_SECONDS}_count{{{decided}}}[{window}]))"


def _availability_alerts(promises: Promises) -> Iterator[_Rule]:
    def ratio(window: str) -> str:
        return f"job:tillgate_redeem_unresolved:ratio_rate{window}"

    budget = 1 - promises.availability.objective
    share = "{{ $value | humanizePercentage }} of the redemptions of {{ $labels.job }} got no answer"
    text = f"{share} in the last hour or six."
    yield _alert(
        "TillgateRedeemErrorBudgetBurn", promises, ratio, budget, "Redemptions get no answer, far too often", text
    )
    text = f"{share}: at this rate the budget does not last."
    yield _slow_alert(
        "TillgateRedeemErrorBudgetBurn", promises, ratio, budget, "Redemptions get no answer, somewhat too often", text
    )


def _latency_alerts(promises: Promises) -> Iterator[_Rule]:
    for within in promises.latency:

        def ratio(window: str, within: Within = within) -> str:
            return _slow_name(within, window)

        budget, bound = 1 - within.objective, f"{within.seconds * 1000:g} ms"
        told = f"{{{{ $value | humanizePercentage }}}} of the answers of {{{{ $labels.job }}}} took longer than {bound}"
        name = "TillgateRedeemLatencyBudgetBurn"
        for make, summary in (
            (_alert, "Answers are late, far too often"),
            (_slow_alert, "Answers are late, somewhat too often"),
        ):
            rule = make(
                name,
                promises,
                ratio,
                budget,
                summary,
                f"{told}; {within.objective * 100:g} % may not.",
            )
            rule["labels"]["bound"] = bound.replace(" ", "")
            yield rule


def _alert(name: str, promises: Promises, ratio: Any, budget: float, summary: str, text: str) -> _Rule:
    arms = [_arm(burn, ratio, budget) for burn in fast_burns(promises.window_days)]
    return _burning(name, promises, "(" + " or ".join(arms) + ")", "2m", "page", summary, text)


def _slow_alert(name: str, promises: Promises, ratio: Any, budget: float, summary: str, text: str) -> _Rule:
    arm = _arm(slow_burn(promises.window_days), ratio, budget)
    return _burning(name, promises, arm, "1h", "ticket", summary, text)


def _arm(burn: Burn, ratio: Any, budget: float) -> str:
    limit = f"{burn.factor:g} * {budget:.6g}"
    return f"({ratio(span(burn.long_s))} > {limit} and {ratio(span(burn.short_s))} > {limit})"


def _burning(
    name: str, promises: Promises, burning: str, pending: str, severity: str, summary: str, text: str
) -> _Rule:
    guard = f"job:tillgate_redeem_attempts:increase1h > {promises.attempts_an_hour_min}"
    return {
        "alert": name,
        "expr": f"{burning} and {guard}",
        "for": pending,
        "labels": {"severity": severity, "layer": "service"},
        "annotations": {
            "summary": summary,
            "description": text,
            "runbook_url": f"{_RUNBOOKS}/{name}.md",
            "dashboard_url": "/d/tillgate-redeem",
        },
    }


def _yaml(groups: Mapping[str, Sequence[_Rule]]) -> str:
    lines = ["groups:"]
    for name, members in groups.items():
        lines += [f"  - name: {name}", "    rules:"]
        for rule in members:
            lines += _rule_lines(rule)
    return "\n".join(lines) + "\n"


def _rule_lines(rule: _Rule) -> Iterator[str]:
    lead = "      - "
    for key, value in rule.items():
        if isinstance(value, dict):
            yield f"{lead}{key}:"
            yield from (f"          {name}: {_quoted(text)}" for name, text in value.items())
        else:
            yield f"{lead}{key}: {_quoted(value) if key == 'expr' else value}"
        lead = "        "


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'" if re.search(r"[{}:#'\"\[\]&*!|>%@`]", text) else text


# --- time, faster -----------------------------------------------------------------------------------------------------

_UNITS = {"s": 1, "m": 60, "h": HOUR_S, "d": DAY_S}
_LENGTH = re.compile(r"(\[|offset |\bfor: )(\d+)([smhd])\b")
_GUARD = re.compile(r"(:increase1h > )(\d+)")


def scaled(text: str, factor: int) -> str:
    """Rules whose windows, offsets and pending times are `factor` times shorter; names stay as they are."""

    def shorter(found: re.Match[str]) -> str:
        return found[1] + span(int(found[2]) * _UNITS[found[3]] / factor)

    return _GUARD.sub(lambda found: f"{found[1]}{int(found[2]) / factor:g}", _LENGTH.sub(shorter, text))
