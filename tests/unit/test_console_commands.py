"""The cashier's command lines."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devices.console import SetReference, ShowOpen, TypedCode, Undo, parse_command


@pytest.mark.parametrize(
    ("line", "command"),
    (
        ("waiting", ShowOpen()),
        ("reverse last", Undo("reverse", "")),
        ("give-up LAST", Undo("give-up", "")),
        ("reverse #AbCdEf", Undo("reverse", "abcdef")),
        ("  give-up 0192-abcd ", Undo("give-up", "0192abcd")),
        ("code 1234 5678", TypedCode("1234 5678")),
        ("cashier 4711", SetReference("cashier", "4711")),
        ("cashier", SetReference("cashier", "")),
        ("receipt 2026-11-22/17", SetReference("receipt", "2026-11-22/17")),
        ("receipt " + "9" * 65, None),  # longer than the gateway takes
        ("receipt 1 2", None),
        ("", None),
        ("reverse", None),
        ("reverse abc", None),  # too short to be meant
        ("reverse xyz12", None),
        ("code", None),
        ("status now", None),
    ),
)
def test_commands(line: str, command: object) -> None:
    assert parse_command(line) == command


@given(line=st.text(max_size=60))
def test_any_line_is_a_command_or_none(line: str) -> None:
    parse_command(line)


def test_a_typed_code_is_never_shown() -> None:
    assert "SECRET" not in repr(parse_command("code SECRET"))
