"""Who may do what: the table written a second time, and every pair of roles for what it must not see."""

import itertools
from typing import Any

import pytest

from gateway.roles import ROLES, Action, Bound, Principal, may

# One row an action, one column a role: x may, - may not.
TABLE = """
                 terminal integrator supervisor merchant channel operator auditor admin
redeem           x        x          -          -        -       -        -       -
preview          x        x          x          -        -       -        -       -
reverse          x        x          -          -        -       -        -       -
reverse_any      -        -          x          -        -       -        -       x
redemption_read  x        x          x          x        -       x        x       x
campaign_read    -        -          -          x        x       x        x       x
campaign_write   -        -          -          -        -       x        -       x
voucher_read     -        -          -          -        -       x        x       x
voucher_issue    -        -          -          -        -       x        -       x
voucher_void     -        -          -          -        -       x        -       x
terminal_read    x        x          x          x        -       x        x       x
terminal_write   -        -          -          -        -       x        -       x
store_read       -        -          -          x        -       x        x       x
store_write      -        -          -          -        -       -        -       x
token_read       -        -          -          -        -       -        x       x
token_write      -        -          -          -        -       -        -       x
key_read         -        -          -          -        -       -        x       x
key_write        -        -          -          -        -       -        -       x
log_read         -        -          -          -        -       -        x       x
statement_read   -        -          -          x        x       -        x       x
"""
_HEAD, *_ROWS = TABLE.strip().splitlines()
ALLOWED = {
    (role, Action(row.split()[0]))
    for row in _ROWS
    for role, mark in zip(_HEAD.split(), row.split()[1:], strict=True)
    if mark == "x"
}

MINE = {  # one holder of each role, and an object that is all theirs
    "terminal": Principal("terminal", "bar", 5, "bar-1"),
    "integrator": Principal("integrator", "bar"),
    "supervisor": Principal("supervisor", "bar"),
    "merchant": Principal("merchant", "bar"),
    "channel": Principal("channel", "app"),
    "operator": Principal("operator"),
    "auditor": Principal("auditor"),
    "admin": Principal("admin"),
}
OWN: dict[str, Any] = {"merchant": "bar", "channel": "app", "terminal": 5, "store": "bar-1"}
FOREIGN: dict[str, Any] = {"merchant": "other", "channel": "mall", "terminal": 6, "store": "far-1"}
WHOLE_DEPLOYMENT = {"operator", "auditor", "admin"}


def test_the_tables_speak_of_the_same_roles_and_actions() -> None:
    assert set(_HEAD.split()) == set(ROLES) == set(MINE)
    assert [row.split()[0] for row in _ROWS] == [action.value for action in Action]
    assert {name for name, role in ROLES.items() if role.bound is Bound.NOTHING} == WHOLE_DEPLOYMENT


@pytest.mark.parametrize(("role", "action"), tuple(itertools.product(MINE, Action)))
def test_each_role_may_what_the_table_says_and_only_to_its_own(role: str, action: Action) -> None:
    allowed, everywhere = (role, action) in ALLOWED, role in WHOLE_DEPLOYMENT
    assert may(MINE[role], action, **OWN) == allowed
    assert may(MINE[role], action, **FOREIGN) == (allowed and everywhere)
    assert may(MINE[role], action) == (allowed and everywhere)  # an object that names no owner


OTHERS: dict[
    str, tuple[Principal, dict[str, Any]]
] = {  # a second holder of each bound role, with the object that is theirs
    "terminal": (Principal("terminal", "bar", 6, "bar-1"), {"merchant": "bar", "terminal": 6, "store": "bar-1"}),
    "integrator": (Principal("integrator", "grill"), {"merchant": "grill", "terminal": 7, "store": "grill-1"}),
    "supervisor": (Principal("supervisor", "grill"), {"merchant": "grill", "terminal": 7, "store": "grill-1"}),
    "merchant": (Principal("merchant", "grill"), {"merchant": "grill", "store": "grill-1"}),
    "channel": (Principal("channel", "mall"), {"channel": "mall"}),
}


@pytest.mark.parametrize(("role", "other"), tuple(itertools.product(MINE, OTHERS)))
def test_no_role_sees_what_belongs_to_another(role: str, other: str) -> None:
    owner, theirs = OTHERS[other]
    one_merchant = ROLES[role].bound is Bound.MERCHANT and owner.scope == MINE[role].scope
    seen = {action for action in Action if may(MINE[role], action, **theirs)}
    expected = {action for who, action in ALLOWED if who == role}
    assert seen == (expected if role in WHOLE_DEPLOYMENT or one_merchant else set())


def test_ids_of_another_kind_open_nothing() -> None:
    assert not may(Principal("channel", "bar"), Action.CAMPAIGN_READ, merchant="bar")
    assert not may(Principal("merchant", "app"), Action.CAMPAIGN_READ, channel="app")
    assert not may(Principal("terminal", "bar", 5, "bar-1"), Action.REDEEM, merchant="bar", store="bar-1")


def test_an_empty_scope_matches_no_empty_owner() -> None:
    assert not may(Principal("channel"), Action.CAMPAIGN_READ, channel="")
    assert not may(Principal("merchant"), Action.CAMPAIGN_READ, merchant="")
    assert not may(Principal("terminal"), Action.REDEEM, terminal=0)


@pytest.mark.parametrize("wrong", ({"merchant": "other"}, {"store": "bar-2"}, {"terminal": 6}))
def test_a_terminal_is_bound_in_everything_it_names(wrong: dict[str, Any]) -> None:
    theirs: dict[str, Any] = OWN | wrong
    assert not may(MINE["terminal"], Action.REDEEM, **theirs)
