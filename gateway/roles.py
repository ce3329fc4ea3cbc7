"""Who may do what: one table of roles, and the one function that reads it.

A role names its actions and what it is bound to. A bound role sees an object only if the object names the
same merchant, channel or terminal; one that does not say whose it is, is seen by no bound role.
"""

import enum

import msgspec


class Action(enum.StrEnum):
    """Everything that can be asked of a gateway."""

    REDEEM = "redeem"
    PREVIEW = "preview"
    REVERSE = "reverse"  # a redemption of the terminal one stands at
    REVERSE_ANY = "reverse_any"  # a redemption of any terminal in one's bounds
    REDEMPTION_READ = "redemption_read"
    CAMPAIGN_READ = "campaign_read"
    CAMPAIGN_WRITE = "campaign_write"  # create, pause, resume, close, purge
    VOUCHER_READ = "voucher_read"
    VOUCHER_ISSUE = "voucher_issue"  # mint and import
    VOUCHER_VOID = "voucher_void"
    TERMINAL_READ = "terminal_read"
    TERMINAL_WRITE = "terminal_write"  # enrol, revoke, unlock
    STORE_READ = "store_read"  # merchants, stores, alliances
    STORE_WRITE = "store_write"
    TOKEN_READ = "token_read"  # noqa: S105 - an action
    TOKEN_WRITE = "token_write"  # noqa: S105 - an action
    KEY_READ = "key_read"  # ids and dates; key material leaves the key file for nobody
    KEY_WRITE = "key_write"
    LOG_READ = "log_read"
    STATEMENT_READ = "statement_read"


class Bound(enum.Enum):
    """What the objects of a role must share with its holder."""

    NOTHING = enum.auto()  # the whole deployment
    MERCHANT = enum.auto()
    CHANNEL = enum.auto()
    TERMINAL = enum.auto()


class Role(msgspec.Struct, frozen=True):
    """One row of the table."""

    bound: Bound
    actions: frozenset[Action]


def _role(bound: Bound, *actions: Action) -> Role:
    return Role(bound, frozenset(actions))


_READ_ALL = (action for action in Action if action.value.endswith("_read"))

ROLES = {
    "terminal": _role(
        Bound.TERMINAL,
        Action.REDEEM,
        Action.PREVIEW,
        Action.REVERSE,
        Action.REDEMPTION_READ,
        Action.TERMINAL_READ,
    ),
    "integrator": _role(
        Bound.MERCHANT,
        Action.REDEEM,
        Action.PREVIEW,
        Action.REVERSE,
        Action.REDEMPTION_READ,
        Action.TERMINAL_READ,
    ),
    "supervisor": _role(
        Bound.MERCHANT, Action.PREVIEW, Action.REVERSE_ANY, Action.REDEMPTION_READ, Action.TERMINAL_READ
    ),
    "merchant": _role(
        Bound.MERCHANT,
        Action.REDEMPTION_READ,
        Action.CAMPAIGN_READ,
        Action.TERMINAL_READ,
        Action.STORE_READ,
        Action.STATEMENT_READ,
    ),
    "channel": _role(Bound.CHANNEL, Action.CAMPAIGN_READ, Action.STATEMENT_READ),
    "operator": _role(
        Bound.NOTHING,
        Action.CAMPAIGN_READ,
        Action.CAMPAIGN_WRITE,
        Action.VOUCHER_READ,
        Action.VOUCHER_ISSUE,
        Action.VOUCHER_VOID,
        Action.REDEMPTION_READ,
        Action.TERMINAL_READ,
        Action.TERMINAL_WRITE,
        Action.STORE_READ,
    ),
    "auditor": _role(Bound.NOTHING, *_READ_ALL),
    # Not REDEEM, PREVIEW or REVERSE: those happen at a till, and an admin stands at none.
    "admin": _role(Bound.NOTHING, *(set(Action) - {Action.REDEEM, Action.PREVIEW, Action.REVERSE})),
}


class Principal(msgspec.Struct, frozen=True):
    """Somebody who proved who they are. `scope` is the merchant or channel a role is bound to.

    A terminal carries its number, its store, and in `scope` the merchant of that store.
    """

    role: str
    scope: str = ""
    terminal: int = 0
    store: str = ""


def may(
    principal: Principal,
    action: Action,
    *,
    merchant: str | None = None,
    channel: str | None = None,
    terminal: int | None = None,
    store: str | None = None,
) -> bool:
    """Whether `principal` may do `action` to an object of this merchant, channel, terminal and store."""
    role = ROLES[principal.role]
    if action not in role.actions:
        return False
    match role.bound:
        case Bound.NOTHING:
            return True
        case Bound.MERCHANT:
            return bool(principal.scope) and merchant == principal.scope
        case Bound.CHANNEL:
            return bool(principal.scope) and channel == principal.scope
        case Bound.TERMINAL:
            inside = store in (None, principal.store) and merchant in (None, principal.scope)
            return principal.terminal > 0 and terminal == principal.terminal and inside
