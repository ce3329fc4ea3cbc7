"""Rules from promises: the factors, what is refused, and time made shorter."""

from pathlib import Path

import pytest
from click.testing import CliRunner
from source_tree import ROOT

from gateway import slo
from gateway.cli import run
from gateway.cli_ops import slo as slo_command

TEXT = (ROOT / "ops" / "slo.toml").read_text()


def test_over_thirty_days_the_factors_are_those_of_the_workbook() -> None:
    assert [burn.factor for burn in slo.fast_burns(30)] == [14.4, 6.0]
    slow = slo.slow_burn(30)
    assert (slow.factor, slo.span(slow.long_s), slo.span(slow.short_s)) == (1.0, "3d", "6h")


def test_a_campaign_of_nine_days_pages_at_lower_rates() -> None:
    assert [burn.factor for burn in slo.fast_burns(9)] == [4.32, 1.8]
    assert [(slo.span(burn.long_s), slo.span(burn.short_s)) for burn in slo.fast_burns(9)] == [
        ("1h", "5m"),
        ("6h", "30m"),
    ]
    assert (slo.slow_burn(9).factor, slo.span(slo.slow_burn(9).long_s)) == (0.9, "1d")


@pytest.mark.parametrize(
    ("old", "new", "said"),
    (
        ("objective = 0.9995", "objective = 99.95", "availability.objective"),
        ("window_days = 9", "window_days = 0", "window_days"),
        ("window_days = 9", "windows_days = 9", "windows_days"),
        ("seconds = 0.05", "seconds = 0.07", "0.07 is no bucket bound: 0.0005, "),
        ("[availability]", "[availability", "line"),
    ),
)
def test_bad_promises_are_refused_with_what_is_wrong(old: str, new: str, said: str, tmp_path: Path) -> None:
    text = TEXT.replace(old, new, 1)
    with pytest.raises(slo.BadPromises, match=said):
        slo.read(text)
    (tmp_path / "slo.toml").write_text(text)
    assert run(["slo", "rules", str(tmp_path / "slo.toml")]) == 2


def test_time_is_made_shorter_everywhere_and_names_stay() -> None:
    text = "job:x:rate5m > 1 and rate(y[5m]) > 2 * z offset 1d and job:a:increase1h > 500\n  for: 15m\n"
    assert slo.scaled(text, 60) == (
        "job:x:rate5m > 1 and rate(y[5s]) > 2 * z offset 24m and job:a:increase1h > 8.33333\n  for: 15s\n"
    )
    assert slo.scaled("[30s]", 60) == "[500ms]"
    assert slo.scaled(text, 1) == text


def test_the_command_writes_and_prints_the_rules(tmp_path: Path) -> None:
    promises = str(ROOT / "ops" / "slo.toml")
    printed = CliRunner().invoke(slo_command, ["rules", promises])
    assert printed.stdout == slo.rules(slo.read(TEXT))
    (tmp_path / "alerts.yml").write_text("for: 10m\n")
    assert run(["slo", "rules", promises, "--into", str(tmp_path), "--time-scale", "10", "--window-days", "30"]) == 0
    assert (tmp_path / "alerts.yml").read_text() == "for: 1m\n"
    assert "14.4 * 0.0005" in (tmp_path / "slo.yml").read_text()
