"""The names, types and labels of all metrics: dashboards, rules and other people's alerts rest on them."""

from conftest import Run
from gateway_scrape import families
from source_tree import ROOT

GOLDEN = ROOT / "tests" / "golden" / "metrics.txt"
BEARERS = ("code", "voucher", "voucher_id", "terminal", "redemption_id", "token", "phone")


def test_the_registry_is_the_one_that_was_promised(exposition: str) -> None:
    told = "\n".join(families(exposition)) + "\n"
    assert told == GOLDEN.read_text(), f"if this is meant, {GOLDEN.relative_to(ROOT)} becomes:\n{told}"


def test_nothing_is_labelled_by_who_or_what_was_scanned(exposition: str) -> None:
    labels = {label for line in families(exposition) for label in line.split(" ")[2].split(",")}
    assert not labels & set(BEARERS)


def test_promtool_finds_nothing_to_mend_in_the_metrics(exposition: str, promtool: Run) -> None:
    said = promtool("check", "metrics", input=exposition)
    assert (said.returncode, said.stdout + said.stderr) == (0, "")
