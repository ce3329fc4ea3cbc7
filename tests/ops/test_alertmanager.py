"""The Alertmanager configuration is one that Alertmanager takes."""

from collections.abc import Callable

from source_tree import ROOT

CONFIG = ROOT / "ops" / "alertmanager" / "alertmanager.yml"


def test_alertmanager_takes_the_configuration(tool: Callable[..., Callable[..., object]]) -> None:
    amtool = tool("amtool", "prometheus-alertmanager")
    said = amtool("check-config", CONFIG)
    assert said.returncode == 0, said.stdout + said.stderr
