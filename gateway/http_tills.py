"""Which terminal a request is for, and whether its bearer may act there."""

from http import HTTPStatus

from aiohttp import web

from gateway.core import Core
from gateway.directory import Terminal
from gateway.http_gate import BEARERS_KEPT_MAX, Gate, Problem, bad
from gateway.roles import ROLES, Action, Principal, may


class Tills:
    """Finds terminals for requests; who may redeem where is kept until the next control event."""

    def __init__(self, core: Core, gate: Gate) -> None:
        self._control, self._gate = core.control, gate
        self._kept: dict[str | None, dict[int, Terminal]] = {}  # by bearer, the terminals it may redeem at
        self._kept_seq = -1

    def known(self, authorization: str | None) -> dict[int, Terminal] | None:
        """Terminals this bearer was let redeem at since the last control event; None if it did not ask since."""
        control_seq = self._control.directory.control_seq
        if control_seq != self._kept_seq or len(self._kept) >= BEARERS_KEPT_MAX:
            self._kept.clear()
            self._kept_seq = control_seq
        return self._kept.get(authorization)

    def of(self, request: web.Request) -> dict[int, Terminal]:
        """`known` of the request's bearer, who is asked for if need be. Raises Problem for who is not let in."""
        header = request.headers.get("Authorization")
        tills = self.known(header)
        if tills is None:
            self._gate.asker(request, Action.REDEEM, stale_ok=True)
            tills = self._kept[header] = {}
        return tills

    def chosen(self, request: web.Request, number: int, action: Action) -> Terminal:
        """The terminal a request is for; `number` 0: the bearer's own. Raises Problem."""
        principal = self._gate.asker(request, action, stale_ok=True).principal
        number = number or principal.terminal
        if not number:
            raise bad("terminal", "say which of your terminals this is")
        return self._own(principal, number, action)

    def reverser(self, request: web.Request, number: int) -> tuple[Principal, int]:
        """Who reverses, and at which terminal (0: at none). Raises Problem."""
        principal = self._gate.asker(request, Action.REVERSE, Action.REVERSE_ANY).principal
        if Action.REVERSE_ANY not in ROLES[principal.role].actions:
            return principal, self.chosen(request, number, Action.REVERSE).number
        if number:
            self._own(principal, number, Action.REVERSE_ANY)
        return principal, number

    def _own(self, principal: Principal, number: int, action: Action) -> Terminal:
        directory = self._control.directory
        terminal = directory.terminals.get(number)
        merchant = directory.stores[terminal.store].merchant if terminal else None
        store = terminal.store if terminal else None
        if terminal is None or not may(principal, action, merchant=merchant, terminal=number, store=store):
            raise Problem(HTTPStatus.FORBIDDEN, f"terminal {number} is none of yours", "terminal")
        if terminal.revoked:
            raise Problem(HTTPStatus.FORBIDDEN, f"terminal {number} was revoked", "terminal")
        return terminal
