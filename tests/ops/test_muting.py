"""One cause, one page: a real Alertmanager is given what the rules raise for a cause, and mutes all but the cause."""

import json
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from conftest import Run
from source_tree import ROOT
from test_prometheus import rules

START_S = 20.0

# What fires when something breaks (seen with `make alerts-live`), and the one page that is left.
CAUSES = {
    "a full disk": (
        "DiskFillingUp",
        ("EventAppendFailing", "ValkeyReadOnly", "GatewayDown", "NotEnoughReady", "RedeemErrorBudgetBurn"),
    ),
    "a read-only Valkey": ("ValkeyReadOnly", ("NotEnoughReady", "RedeemErrorBudgetBurn")),
    "a Valkey that hangs": ("ValkeyUnavailable", ("ValkeyReadOnly", "NotEnoughReady", "RedeemErrorBudgetBurn")),
    "a lost log": (
        "PartitionHalted",
        ("ReconciliationDifference", "NotEnoughReady", "RedeemErrorBudgetBurn", "ProjectionLagging"),
    ),
    "a dead disk": ("EventAppendFailing", ("GatewayDown", "NotEnoughReady", "RedeemErrorBudgetBurn")),
    "a slow disk": ("EventLogFsyncSlow", ("RedeemLatencyBudgetBurn", "EventLoopStalled")),
    "a gateway that is gone": ("GatewayDown", ("NotEnoughReady", "RedeemErrorBudgetBurn")),
}
Call = Callable[..., Any]


@pytest.fixture(scope="module")
def alertmanager(tool: Callable[[str, str], Run], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Call]:
    """Asks an Alertmanager with our configuration: path and, to post, a body."""
    tool("prometheus-alertmanager", "prometheus-alertmanager")
    home = tmp_path_factory.mktemp("alertmanager")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    command = ["prometheus-alertmanager", f"--config.file={ROOT / 'ops' / 'alertmanager' / 'alertmanager.yml'}"]
    command += [f"--storage.path={home}", f"--web.listen-address={address}", "--cluster.listen-address="]
    with (home / "log").open("wb") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log)

    def call(path: str, body: object = None) -> Any:
        content = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            f"http://{address}/api/v2/{path}", content, {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request) as answer:
            return json.loads(answer.read() or b"null")

    try:
        _wait_for(lambda: call("status"), home / "log")
        yield call
    finally:
        server.terminate()
        server.wait()


def _wait_for(call: Callable[[], object], log: Path) -> None:
    until_s = time.monotonic() + START_S
    while True:
        try:
            call()
            return
        except urllib.error.URLError:
            assert time.monotonic() < until_s, log.read_text()
            time.sleep(0.05)


def alerts(name: str, job: str) -> list[dict[str, dict[str, str]]]:
    """The alert as each of its rules labels it, as raised in a deployment."""
    made = [rule["labels"] for rule in rules() if rule.get("alert") == f"Tillgate{name}"]
    assert made, name
    return [{"labels": {"alertname": f"Tillgate{name}", "job": job, **labels}} for labels in made]  # type: ignore[dict-item]


@pytest.mark.parametrize("cause", CAUSES)
def test_one_cause_is_one_page(cause: str, alertmanager: Call) -> None:
    page, effects = CAUSES[cause]
    job = f"tillgate-{cause.replace(' ', '-')}"
    ends = (datetime.now(UTC) + timedelta(minutes=5)).isoformat()
    raised = [alert | {"endsAt": ends} for name in (page, *effects) for alert in alerts(name, job)]
    elsewhere = [alert | {"endsAt": ends} for alert in alerts("NotEnoughReady", f"{job}-2")]
    alertmanager("alerts", [*raised, *elsewhere])
    _settles(alertmanager, job, len(raised), {f"Tillgate{page}"})
    _settles(alertmanager, f"{job}-2", 1, {"TillgateNotEnoughReady"})  # another deployment is not muted


def _settles(alertmanager: Call, job: str, count: int, loud: set[str]) -> None:
    """Once all alerts of a deployment are known, and have been held against each other, these pages are not muted.

    Alertmanager works through what it was told one by one, so for a moment an effect is loud before its cause is known.
    """
    until_s = time.monotonic() + START_S
    while True:
        told = [alert for alert in alertmanager("alerts") if alert["labels"]["job"] == job]
        pages = [alert for alert in told if alert["labels"]["severity"] == "page"]
        active = {alert["labels"]["alertname"] for alert in pages if alert["status"]["state"] == "active"}
        if len(told) == count and all(alert["status"]["state"] != "unprocessed" for alert in told) and active == loud:
            return
        assert time.monotonic() < until_s, told
        time.sleep(0.05)


def test_what_is_wrong_with_vouchers_is_never_muted(alertmanager: Call) -> None:
    job = "tillgate-wrong"
    ends = (datetime.now(UTC) + timedelta(minutes=5)).isoformat()
    raised = [
        alert | {"endsAt": ends} for name in ("DiskFillingUp", "InvariantViolated") for alert in alerts(name, job)
    ]
    alertmanager("alerts", raised)
    _settles(alertmanager, job, len(raised), {"TillgateDiskFillingUp", "TillgateInvariantViolated"})
