"""Each alert has a runbook and each runbook an alert; what a runbook tells to type exists."""

import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from gateway_scrape import families
from source_tree import ROOT
from test_prometheus import OF_TERMINALS, RULES, rules

from gateway.cli import tillgate

RUNBOOKS = ROOT / "ops" / "runbooks"
PAGES = sorted(path for path in RUNBOOKS.glob("*.md") if path.name != "README.md")
HEADINGS = ["Meaning", "Impact", "Diagnosis", "Mitigation", "Verify", "Later"]
CHANGES = {
    "rebuild",
    "init",
    "purge",
    "close",
    "pause",
    "resume",
    "revoke",
    "unlock",
    "void",
    "retire",
    "create",
    "offer",
}


def section(path: Path, heading: str) -> str:
    return path.read_text().split(f"## {heading}\n")[1].split("\n## ")[0]


def commands(text: str) -> Iterator[list[str]]:
    """Every `tillgate ...`, in a line of its own or between backticks."""
    for found in re.finditer(r"(?:^|`|: )tillgate ([a-z][^`\n]*)", text, re.MULTILINE):
        yield found[1].split()


def leaf(words: list[str]) -> tuple[click.Command, list[str]]:
    """The command that the words name, and the words after it."""
    command: click.Command = tillgate
    with click.Context(command) as context:
        while words and isinstance(command, click.Group) and not words[0].startswith("-"):
            found = command.get_command(context, words[0])
            assert found is not None, f"there is no tillgate {' '.join(words)}"
            command, words = found, words[1:]
    return command, words


def test_each_alert_has_a_runbook_and_each_runbook_an_alert() -> None:
    assert {path.stem for path in PAGES} == {str(rule["alert"]) for rule in rules() if "alert" in rule}, RULES


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_a_runbook_has_all_its_parts_in_order(path: Path) -> None:
    assert path.read_text().splitlines()[0] == f"# {path.stem}"
    assert re.findall(r"^## (.*)$", path.read_text(), re.MULTILINE) == HEADINGS
    assert all(section(path, heading).strip() for heading in HEADINGS)
    assert "```sh" in section(path, "Diagnosis"), "looking is done with commands"


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_what_a_runbook_tells_to_type_exists(path: Path) -> None:
    for words in commands(path.read_text()):
        command, rest = leaf(words)
        known = {flag for option in command.params for flag in (*option.opts, "--help")}
        assert not {word for word in rest if word.startswith("-")} - known, words


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_looking_changes_nothing(path: Path) -> None:
    for heading in ("Diagnosis", "Verify"):
        for block in re.findall(r"```sh\n(.*?)```", section(path, heading), re.DOTALL):
            typed = [line for line in block.splitlines() if not line.startswith("#")]
            assert not {word for line in typed for word in line.split()} & CHANGES, typed
            assert not any(re.match(r"(rm|kill|mv|systemctl (re)?start)\b", line) for line in typed)


def test_every_metric_in_a_runbook_exists(exposition: str) -> None:
    recorded = {str(rule["record"]) for rule in rules() if "record" in rule}
    names = {line.split(" ")[0] for line in families(exposition)} | OF_TERMINALS
    for path in PAGES:
        for name in re.findall(r"[\w:]*tillgate_\w+(?::\w+)?", path.read_text()):
            base = re.sub(r"_(bucket|sum|count)?$", "", name)
            assert name in recorded | names or base in names, f"{path.name}: {name}"
