"""The command line as a whole: help, typos, exit codes, and what it does not do."""

import os
import pty
import subprocess
import sys
from pathlib import Path

import click
import pytest
from cli_world import spawn, tillgate
from source_tree import ROOT

from gateway.cli import COMMANDS, LazyGroup
from gateway.cli import tillgate as root

HEAVY = ("aiohttp", "asyncio", "rich", "redis", "uvloop", "cryptography", "msgspec.inspect")


def test_help_names_every_command_and_loads_none_of_them() -> None:
    program = (
        "import sys; from gateway.cli import run; run(['--help']);"
        f"print(*sorted(set({HEAVY!r}) & set(sys.modules)), file=sys.stderr)"
    )
    told = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert all(f"  {name}  " in told.stdout for name in COMMANDS)
    assert told.stderr.split() == []


def all_commands() -> list[tuple[str, ...]]:
    found: list[tuple[str, ...]] = []
    context = click.Context(root)
    for name in COMMANDS:
        command = LazyGroup.get_command(root, context, name)
        found.append((name,))
        if isinstance(command, click.Group):
            found += [(name, each) for each in command.list_commands(context)]
    return found


PRINT_DOCUMENTS = (  # what they print has a form of its own
    *(("log", "export"), ("slo", "rules"), ("config", "example"), ("config", "schema")),
    *(("api", kind) for kind in ("openapi", "asyncapi", "html")),
)


@pytest.mark.parametrize("words", all_commands(), ids=" ".join)
def test_every_command_explains_itself_and_prints_json_if_it_prints_results(words: tuple[str, ...]) -> None:
    told = tillgate(*words, "--help")
    assert told.code == 0
    assert "Usage: tillgate " + " ".join(words) in told.out
    is_group = words[:1] == words and any(words[0] == other[0] and len(other) > 1 for other in all_commands())
    assert "--json" in told.out or is_group or words in PRINT_DOCUMENTS


def test_a_typo_is_answered_with_the_word_that_was_meant() -> None:
    for args, meant in (
        (("camapign",), "campaign"),
        (("voucher", "isue"), "issue"),
        (("init", "--dat", "x"), "--data"),
    ):
        told = tillgate(*args)
        assert told.code == 2
        assert meant in told.err
        assert told.out == ""


def test_a_data_directory_that_is_none_is_named() -> None:
    told = tillgate("merchant", "list", "--data", "/nowhere/at/all")
    assert told.code == 2
    assert "/nowhere/at/all" in told.err


def test_a_bad_setting_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TILLGATE_SERVER__PROT", "1")
    told = tillgate("serve")
    assert told.code == 2
    assert "TILLGATE_SERVER__PORT" in told.err


def test_nobody_there_is_exit_code_4(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("tg_X\n")
    token.chmod(0o600)
    told = tillgate("merchant", "list", "--url", "http://127.0.0.1:1", "--token-file", token)
    assert told.code == 4
    assert "http://127.0.0.1:1 cannot be reached: connect" in told.err


def test_a_token_that_others_may_read_is_not_used(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("tg_X\n")
    token.chmod(0o644)
    told = tillgate("merchant", "list", "--url", "http://127.0.0.1:1", "--token-file", token)
    assert told.code == 1
    assert f"chmod 600 {token}" in told.err


def test_output_that_nobody_reads_any_more_is_no_crash() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    process = spawn("--help", stdout=writing)
    os.close(writing)
    _, err = process.communicate(timeout=20)
    assert "Traceback" not in err
    assert "BrokenPipe" not in err


@pytest.mark.parametrize("no_color", (False, True))
def test_colours_only_on_a_terminal_and_never_with_no_color(no_color: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if no_color:
        monkeypatch.setenv("NO_COLOR", "1")
    else:
        monkeypatch.delenv("NO_COLOR", raising=False)
    ours, theirs = pty.openpty()
    process = spawn("merchant", "list", "--data", "/nowhere", stderr=theirs)
    os.close(theirs)
    process.communicate(timeout=20)
    said = os.read(ours, 4096).decode()
    os.close(ours)
    assert "next: tillgate init" in said
    assert ("\x1b[31m" in said) is not no_color
