"""Tells connected tills what they may accept offline: at once, when it changes, and every hour."""

from collections.abc import Callable, Sequence
from typing import Protocol

from gateway.campaign import Campaign
from gateway.core import Core
from gateway.directory import Terminal
from gateway.messages import Grant
from gateway.offline_rules import RENEW_MS, grant_of, is_same


class Granted(Protocol):
    """A connected till."""

    terminal: Terminal

    def send(self, message: Grant) -> None: ...


class Grants:
    """The newest grant of every connected till that takes them."""

    def __init__(self, core: Core, now_ms: Callable[[], int]) -> None:
        self._core, self._now_ms = core, now_ms
        self._told: dict[Granted, Grant] = {}
        self._seen: Sequence[object] = ()
        self._renewed_ms = now_ms()

    def greet(self, till: Granted) -> None:
        """Tell a till that has just come."""
        self._tell(till, self._grant(till.terminal.store))

    def forget(self, till: Granted) -> None:
        """It has left."""
        self._told.pop(till, None)

    def renew(self, *, changed: bool) -> None:
        """Tell everybody whose grant is another one now, or an hour old; `changed`: there is something new to look at.

        What most control events change, no grant speaks of: they cost a look at the campaigns and nothing more.
        """
        now_ms = self._now_ms()
        is_due = now_ms >= self._renewed_ms + RENEW_MS
        if not (self._told and (is_due or (changed and self._is_news()))):
            return
        self._renewed_ms = now_ms if is_due else self._renewed_ms
        grants = {store: self._grant(store) for store in {till.terminal.store for till in self._told}}
        for till, old in list(self._told.items()):
            grant = grants[till.terminal.store]
            if is_due or not is_same(grant, old):
                self._tell(till, grant)

    def _tell(self, till: Granted, grant: Grant) -> None:
        self._told[till] = grant
        till.send(grant)

    def _grant(self, store: str) -> Grant:
        return grant_of(self._core.control.directory, store, self._core.facts.keys.public_keys, self._now_ms())

    def _is_news(self) -> bool:
        """Values of the directory are replaced when they change, never altered: the same ones say the same."""
        directory = self._core.control.directory
        campaigns: list[Campaign] = [one for one in directory.campaigns.values() if one.offer.offline is not None]
        seen = (*campaigns, *directory.alliances.values(), self._core.facts.keys)
        before, self._seen = self._seen, seen
        return len(before) != len(seen) or any(a is not b for a, b in zip(before, seen, strict=True))
