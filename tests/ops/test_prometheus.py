"""The rules of ops/prometheus: taken by Prometheus, made of what was promised, resting on metrics that exist."""

import re
from pathlib import Path

import pytest
import yaml
from conftest import Run
from gateway_scrape import families
from msgspec import structs
from source_tree import ROOT

from devices.health import Health
from devices.health import exposition as terminal_exposition
from gateway import metrics, slo

PROMETHEUS = ROOT / "ops" / "prometheus"
RULES = sorted((PROMETHEUS / "rules").glob("*.yml"))
TESTS = sorted((PROMETHEUS / "tests").glob("*.yml"))
# Told by the terminal daemon, which no gateway's scrape shows.
_HEALTH = Health(**dict.fromkeys((field.name for field in structs.fields(Health)), 0) | {"scanners": []})
OF_TERMINALS = {line.split(" ")[0] for line in families(terminal_exposition(_HEALTH))}


def rules() -> list[dict[str, object]]:
    return [rule for path in RULES for group in yaml.safe_load(path.read_text())["groups"] for rule in group["rules"]]


def metrics_in(expr: str) -> set[str]:
    """Names of ours in an expression, but not of what is recorded (those have colons)."""
    return set(re.findall(r"(?<![\w:])tillgate_\w+(?![\w:])", expr))


def test_prometheus_takes_the_configuration_and_the_rules(promtool: Run) -> None:
    said = promtool("check", "config", PROMETHEUS / "prometheus.yml")
    assert said.returncode == 0, said.stdout + said.stderr


@pytest.mark.slow
@pytest.mark.timeout(180)  # ten seconds on a quiet machine
@pytest.mark.parametrize("path", TESTS, ids=lambda path: path.stem)
def test_rules_fire_and_stay_silent_as_written_down(path: Path, promtool: Run) -> None:
    said = promtool("test", "rules", path.name, cwd=path.parent)
    assert said.returncode == 0, said.stdout + said.stderr


def test_the_rules_of_what_is_promised_are_up_to_date() -> None:
    made = slo.rules(slo.read((ROOT / "ops" / "slo.toml").read_text()))
    path = PROMETHEUS / "rules" / "slo.yml"
    assert path.read_text() == made, "run: tillgate slo rules ops/slo.toml --into ops/prometheus/rules"


def test_promises_are_about_buckets_that_exist() -> None:
    assert slo.BUCKETS_S == metrics.SECONDS


def test_every_rule_has_a_unit_test() -> None:
    tested = " ".join(path.read_text() for path in TESTS)
    alerts = {str(rule["alert"]) for rule in rules() if "alert" in rule}
    assert not {name for name in alerts if f'"{name}"' not in tested}
    silent = {name for name in alerts if not re.search(rf'"{name}".*\n.*\n +exp_samples: \[\]', tested)}
    assert silent == {"TillgateWatchdog"}, "an alert is also seen staying silent"
    # Of the burn-rate windows one stands for all: they differ by their length only.
    recorded = {re.sub(r"_rate\w+$", "_rate", str(rule["record"])) for rule in rules() if "record" in rule}
    assert not {name for name in recorded if not re.search(re.escape(name) + r"(\d\w+)?\b", tested)}


def test_every_metric_in_a_rule_exists(exposition: str) -> None:
    told: set[str] = set(OF_TERMINALS)
    for line in families(exposition):
        name, kind, _ = line.split(" ")
        told |= {f"{name}_bucket", f"{name}_sum", f"{name}_count"} if kind == "histogram" else {name}
    for rule in rules():
        assert metrics_in(str(rule["expr"])) <= told, rule


def test_every_recorded_name_in_a_rule_is_recorded() -> None:
    recorded = {str(rule["record"]) for rule in rules() if "record" in rule}
    for rule in rules():
        assert set(re.findall(r"\b\w+:tillgate_\w+:\w+", str(rule["expr"]))) <= recorded, rule


def test_every_label_value_in_a_rule_is_one_that_is_told(exposition: str) -> None:
    for rule in rules():
        for name, value in re.findall(r'(\w+)="([^"]*)"', str(rule["expr"])):
            assert name == "le" or f'{name}="{value}"' in exposition, rule


def test_every_alert_says_what_whom_and_where_to_read_on() -> None:
    for rule in rules():
        if "alert" not in rule:
            continue
        labels, notes = rule["labels"], rule["annotations"]
        assert isinstance(labels, dict)
        assert isinstance(notes, dict)
        assert re.fullmatch(r"Tillgate([A-Z][a-z]+)+", str(rule["alert"]))
        assert labels["severity"] in ("page", "ticket", "warning", "none")
        assert labels["layer"] in ("correctness", "disk", "log", "valkey", "gateway", "service", "watchdog")
        assert "{{" not in notes["summary"], "a summary groups: values belong into the description"
        assert notes["runbook_url"] == f"ops/runbooks/{rule['alert']}.md"
        assert notes["dashboard_url"].startswith("/d/tillgate-")
