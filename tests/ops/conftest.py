"""What the checks of ops/ share: outside programs, which may be absent, and `make ops-check`, which forgives none."""

import shutil
import subprocess
from collections.abc import Callable, Generator
from typing import Any

import pytest
from gateway_scrape import scraped

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="session")
def tool() -> Callable[[str, str], Run]:
    """`tool(program, package)` gives a function that runs the program; skips where it is not installed.

    The function takes arguments and keywords of subprocess.run, and returns what the program said, ended well or not.
    """

    def needed(program: str, package: str) -> Run:
        path = shutil.which(program)
        if path is None:
            pytest.skip(f"{program} is not installed: apt install {package}")

        def run(*args: object, **keywords: Any) -> "subprocess.CompletedProcess[str]":
            return subprocess.run([path, *map(str, args)], capture_output=True, text=True, **keywords)

        return run

    return needed


@pytest.fixture(scope="session")
def promtool(tool: Callable[[str, str], Run]) -> Run:
    return tool("promtool", "prometheus")


def _not_forgiven(report: pytest.TestReport | pytest.CollectReport, config: pytest.Config) -> None:
    if report.skipped and config.getoption("require_tools") and not hasattr(report, "wasxfail"):
        why = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        report.outcome, report.longrepr = "failed", f"--require-tools: {why}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    _not_forgiven(report, item.config)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    _not_forgiven(report, collector.config)
    return report


@pytest.fixture(scope="session")
def exposition(tmp_path_factory: pytest.TempPathFactory) -> str:
    """One scrape of a real gateway."""
    return scraped(tmp_path_factory.mktemp("scraped") / "data")
