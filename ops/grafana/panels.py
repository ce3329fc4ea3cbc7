"""What the dashboards are made of: panels that flow into rows, and queries in the words of our metrics."""

from typing import Any

Json = dict[str, Any]

SOURCE = {"type": "prometheus", "uid": "${datasource}"}
WIDTH, STAT_HEIGHT, PLOT_HEIGHT, TABLE_HEIGHT = 24, 4, 8, 10
JOB = 'job="$job"'
GOOD, WARN, BAD = "green", "orange", "red"
COLOURS = {"accepted": "green", "refused": "orange", "unresolved": "red"}


def rate(metric: str, by: str = "", where: str = "") -> str:
    """Per second, summed."""
    return f"sum{f' by ({by})' if by else ''} (rate({metric}{{{_where(where)}}}[$__rate_interval]))"


def quantile(share: float, metric: str, by: str = "", where: str = "") -> str:
    """Of a histogram, in its unit."""
    names = ", ".join(filter(None, (by, "le")))
    return f"histogram_quantile({share}, sum by ({names}) (rate({metric}_bucket{{{_where(where)}}}[$__rate_interval])))"


def _where(where: str) -> str:
    return ",".join(filter(None, (JOB, where)))


def _target(expr: str, legend: str, ref: int) -> Json:
    return {"datasource": SOURCE, "expr": expr, "legendFormat": legend or "__auto", "refId": chr(ord("A") + ref)}


def _steps(limits: list[tuple[float | None, str]]) -> Json:
    return {"mode": "absolute", "steps": [{"value": value, "color": colour} for value, colour in limits]}


def stat(
    title: str,
    expr: str,
    unit: str,
    *,
    text: str,
    limits: tuple[tuple[float, str], ...] = (),
    base: str = GOOD,
    width: int = 4,
    decimals: int | None = None,
    instant: bool = True,
) -> Json:
    """One number. `limits`: from which value on it has which colour."""
    target = _target(expr, "", 0) | ({"instant": True, "range": False} if instant else {})
    defaults: Json = {"unit": unit, "thresholds": _steps([(None, base), *limits]), "color": {"mode": "thresholds"}}
    if decimals is not None:
        defaults["decimals"] = decimals
    options = {"colorMode": "background", "graphMode": "none", "reduceOptions": {"calcs": ["lastNotNull"]}}
    return _panel("stat", title, [target], width, STAT_HEIGHT, text, defaults, options)


def plot(
    title: str,
    unit: str,
    *series: tuple[str, str],
    text: str = "",
    width: int = 8,
    stack: bool = False,
    line: float | None = None,
    log: bool = False,
    least: float | None = 0,
) -> Json:
    """Curves: (expression, legend). `line`: a limit to show, dashed."""
    custom: Json = {"lineWidth": 1.5, "fillOpacity": 30 if stack else 6, "showPoints": "never"}
    custom["stacking"] = {"mode": "normal" if stack else "none"}
    if log:
        custom["scaleDistribution"] = {"type": "log", "log": 10}
    defaults: Json = {"unit": unit, "custom": custom, "color": {"mode": "palette-classic"}}
    if least is not None and not log:
        defaults["min"] = least
    if line is not None:
        custom["thresholdsStyle"] = {"mode": "dashed"}
        defaults["thresholds"] = _steps([(None, GOOD), (line, BAD)])
    options = {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi", "sort": "desc"}}
    targets = [_target(expr, legend, ref) for ref, (expr, legend) in enumerate(series)]
    panel = _panel("timeseries", title, targets, width, PLOT_HEIGHT, text, defaults, options)
    panel["fieldConfig"]["overrides"] = [
        {
            "matcher": {"id": "byName", "options": name},
            "properties": [{"id": "color", "value": {"mode": "fixed", "fixedColor": colour}}],
        }
        for name, colour in COLOURS.items()
    ]
    return panel


def heat(title: str, metric: str, text: str, width: int = 12, where: str = "") -> Json:
    """How a histogram of seconds is spread over time."""
    expr = f"sum by (le) (increase({metric}_bucket{{{_where(where)}}}[$__rate_interval]))"
    target = _target(expr, "{{le}}", 0) | {"format": "heatmap"}
    options = {"calculate": False, "yAxis": {"unit": "s"}, "color": {"scheme": "Oranges", "mode": "scheme"}}
    return _panel("heatmap", title, [target], width, PLOT_HEIGHT, text, {"unit": "s"}, options)


def table(title: str, text: str, *columns: tuple[str, str, str], width: int = 24, by: str) -> Json:
    """Rows by `by`; columns are (name, unit, expression)."""
    targets = [
        _target(expr, name, ref) | {"format": "table", "instant": True, "range": False}
        for ref, (name, _, expr) in enumerate(columns)
    ]
    units = [
        {"matcher": {"id": "byName", "options": name}, "properties": [{"id": "unit", "value": unit}]}
        for name, unit, _ in columns
    ]
    renamed = {f"Value #{chr(ord('A') + ref)}": name for ref, (name, _, _) in enumerate(columns)}
    panel = _panel("table", title, targets, width, TABLE_HEIGHT, text, {"unit": "short"}, {"showHeader": True})
    panel["fieldConfig"]["overrides"] = units
    panel["transformations"] = [
        {"id": "joinByField", "options": {"byField": by, "mode": "outer"}},
        {"id": "organize", "options": {"excludeByName": {"Time": True}, "renameByName": renamed}},
    ]
    return panel


def _panel(
    kind: str, title: str, targets: list[Json], width: int, height: int, text: str, defaults: Json, options: Json
) -> Json:
    return {
        "type": kind,
        "title": title,
        "description": text,
        "datasource": SOURCE,
        "targets": targets,
        "gridPos": {"w": width, "h": height},
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": options,
    }


def board(
    uid: str, title: str, text: str, panels: list[Json], *, variables: tuple[Json, ...] = (), since: str = "now-3h"
) -> Json:
    """A dashboard: its panels flow from left to right into rows, and are numbered in that order."""
    x = y = row_height = 0
    for number, panel in enumerate(panels, 1):
        place = panel["gridPos"]
        if x + place["w"] > WIDTH:
            x, y, row_height = 0, y + row_height, 0
        place |= {"x": x, "y": y}
        panel["id"] = number
        x, row_height = x + place["w"], max(row_height, place["h"])
    return {
        "uid": uid,
        "title": title,
        "description": text,
        "tags": ["tillgate"],
        "schemaVersion": 39,
        "version": 1,
        "editable": False,
        "refresh": "15s",
        "time": {"from": since, "to": "now"},
        "timezone": "browser",
        "graphTooltip": 1,
        "links": [{"type": "dashboards", "tags": ["tillgate"], "asDropdown": True, "title": "Tillgate"}],
        "templating": {
            "list": [_SOURCE_VARIABLE, variable("job", "label_values(tillgate_build_info, job)"), *variables]
        },
        "annotations": {"list": [_STARTS]},
        "panels": panels,
    }


_SOURCE_VARIABLE = {"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus"}
_STARTS = {
    "name": "starts",
    "datasource": SOURCE,
    "enable": True,
    "iconColor": "blue",
    "expr": f"changes(process_start_time_seconds{{{JOB}}}[1m]) > 0",
    "titleFormat": "gateway started",
    "textFormat": "{{instance}}",
}


def variable(name: str, query: str, *, all_of_it: bool = False) -> Json:
    return {
        "name": name,
        "label": name.capitalize(),
        "type": "query",
        "datasource": SOURCE,
        "query": query,
        "refresh": 2,
        "includeAll": all_of_it,
        "multi": all_of_it,
        "sort": 1,
    }
