"""The page that says what "accepted" means names tests that exist."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "ops" / "decisions" / "014-what-accepted-means.md"


def test_every_crash_point_names_a_test_there_is() -> None:
    rows = [line for line in PAGE.read_text().splitlines() if line.startswith("|") and "`test_" in line]
    named = {name for line in rows for name in re.findall(r"`(test_\w+)`", line)}
    there = {
        name
        for file in (ROOT / "tests").rglob("test_*.py")
        for name in re.findall(r"def (test_\w+)\(", file.read_text())
    }
    assert len(rows) > 20
    assert not named - there, "named on the page, and no test"
