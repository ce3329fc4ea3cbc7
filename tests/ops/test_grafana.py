"""The dashboards, without Grafana: made by their generator, well formed, and asking for metrics that exist."""

import importlib.util
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from conftest import Run
from prometheus_client.parser import text_string_to_metric_families
from source_tree import ROOT

from devices.health import Health, ScannerHealth
from devices.health import exposition as terminal_exposition
from devices.scanner import Capabilities, State, Statistics

GRAFANA = ROOT / "ops" / "grafana"
BOARDS = sorted((GRAFANA / "dashboards").glob("*.json"))
RULES = sorted((ROOT / "ops" / "prometheus" / "rules").glob("*.yml"))
OF_EVERY_SCRAPE = {"up"}
VARIABLES = {"$__rate_interval": "5m", "$job": "tillgate", "$store": ".*", "$campaign": ".*", "$transport": ".*"}


def board(path: Path) -> Any:
    return json.loads(path.read_text())


def generator() -> ModuleType:
    sys.path.insert(0, str(GRAFANA))
    try:
        spec = importlib.util.spec_from_file_location("grafana_build", GRAFANA / "build.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module
    finally:
        sys.path.remove(str(GRAFANA))


def expressions() -> Iterator[tuple[str, str]]:
    """`board: panel`, and each of its queries with the variables filled in."""
    for path in BOARDS:
        told = board(path)
        queries = [(panel["title"], target["expr"]) for panel in told["panels"] for target in panel["targets"]]
        for title, expr in [*queries, *(("annotation", one["expr"]) for one in told["annotations"]["list"])]:
            filled = expr
            for variable, value in VARIABLES.items():
                filled = filled.replace(variable, value)
            yield f"{path.stem}: {title}", filled


def names_in(expr: str) -> set[str]:
    """Metrics and recorded names that an expression asks for, as promtool's own listing would give them."""
    bare = re.sub(r'"[^"]*"', "", expr)
    return set(re.findall(r"(?<![\w:$])(?:\w+:)?(?:tillgate|process|python)_\w+(?::\w+)?|\bup\b", bare))


@pytest.fixture(scope="module")
def told(exposition: str) -> set[str]:
    """Every name there is: of a gateway, of a till, and recorded by our rules."""
    scanner = ScannerHealth("lane1", "serial", State.READY, Capabilities(), Statistics())
    till = terminal_exposition(Health(0, 0, True, 0, 0, 0, 0, [scanner]))
    names = set(OF_EVERY_SCRAPE)
    for text in (exposition, till):
        for family in text_string_to_metric_families(text):
            names |= {sample.name for sample in family.samples} | {family.name}
            names |= {f"{family.name}_{part}" for part in ("bucket", "count", "sum") if family.type == "histogram"}
            names |= {f"{family.name}_total"} if family.type == "counter" else set()
    for path in RULES:
        groups = yaml.safe_load(path.read_text())["groups"]
        names |= {rule["record"] for group in groups for rule in group["rules"] if "record" in rule}
    return names


def test_the_files_are_what_the_generator_makes() -> None:
    made = generator()
    boards = {one["uid"].removeprefix("tillgate-"): made.written(one) for one in (make() for make in made.BOARDS)}
    assert {path.stem for path in BOARDS} == boards.keys()
    for path in BOARDS:
        assert path.read_text() == boards[path.stem], f"run: python ops/grafana/build.py ({path.name})"


def test_names_and_numbers_are_unique() -> None:
    told = [board(path) for path in BOARDS]
    assert len({one["uid"] for one in told}) == len({one["title"] for one in told}) == len(BOARDS)
    for one in told:
        ids = [panel["id"] for panel in one["panels"]]
        assert len(set(ids)) == len(ids)


@pytest.mark.parametrize("path", BOARDS, ids=lambda path: path.stem)
def test_every_panel_says_its_unit_its_source_and_fits_its_row(path: Path) -> None:
    taken: set[tuple[int, int]] = set()
    for panel in board(path)["panels"]:
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        assert panel["datasource"]["uid"] == "${datasource}"
        assert all(target["datasource"]["uid"] == "${datasource}" for target in panel["targets"])
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert place["x"] + place["w"] <= 24
        assert not cells & taken, f"{panel['title']} lies over another panel"
        taken |= cells


def test_every_query_asks_for_something_that_exists(told: set[str]) -> None:
    missing = {where: names_in(expr) - told for where, expr in expressions() if names_in(expr) - told}
    assert missing == {}
    assert all(names_in(expr) for _, expr in expressions())


def test_prometheus_understands_every_query(promtool: Run, tmp_path: Path) -> None:
    rules = [{"record": f"query:number{index}", "expr": expr} for index, (_, expr) in enumerate(expressions())]
    path = tmp_path / "queries.yml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "queries", "rules": rules}]}))
    said = promtool("check", "rules", path)
    assert said.returncode == 0, said.stdout + said.stderr


def test_every_board_an_alert_names_exists() -> None:
    uids = {board(path)["uid"] for path in BOARDS}
    named = {
        rule["annotations"]["dashboard_url"].removeprefix("/d/")
        for path in RULES
        for group in yaml.safe_load(path.read_text())["groups"]
        for rule in group["rules"]
        if "alert" in rule and "dashboard_url" in rule["annotations"]
    }
    assert named
    assert named <= uids
