"""What scanners still have to hear: the verdict of the newest scan of each, or that it takes long."""

from collections.abc import Callable
from typing import Protocol

import msgspec

from devices.framing import Signal


class _Sounding(msgspec.Struct):
    redemption_id: bytes
    told_to_wait: bool = False


class Sounding(Protocol):
    """`sound` has a scanner sound something; it may be replaced at any time."""

    sound: Callable[[str, Signal], None]


class Soundings:
    """The newest scan of each scanner, until its verdict was sounded."""

    def __init__(self, till: Sounding) -> None:
        self._till = till
        self._newest: dict[str, _Sounding] = {}

    def expect(self, source: str, redemption_id: bytes, *, long: bool) -> None:
        """A scan was heard; `long`: its verdict is not to be expected now."""
        self._newest[source] = _Sounding(redemption_id)
        if long:
            self._wait(source)

    def take_long(self) -> None:
        """No verdict is to be expected now."""
        for source in self._newest:
            self._wait(source)

    def forget(self, redemption_id: bytes) -> None:
        """Nothing more is to be sounded of this scan."""
        for source in self._of(redemption_id):
            del self._newest[source]

    def verdict(self, redemption_id: bytes, signal: Signal) -> None:
        """Sound it where nothing newer was scanned."""
        for source in self._of(redemption_id):
            if signal is Signal.WAIT:
                self._wait(source)
            else:
                del self._newest[source]
                self._till.sound(source, signal)

    def _of(self, redemption_id: bytes) -> list[str]:
        return [source for source, sounding in self._newest.items() if sounding.redemption_id == redemption_id]

    def _wait(self, source: str) -> None:
        sounding = self._newest[source]
        if not sounding.told_to_wait:
            self._till.sound(source, Signal.WAIT)
        sounding.told_to_wait = True
