"""The static rules as the hot path asks them: what all scans of a campaign and store share is kept for one tick."""

from collections.abc import Callable

from gateway.campaign import Spans, compose, standing
from gateway.control import Control
from gateway.directory import Terminal
from gateway.messages import Verdict

STALE_MS_MAX = 10  # a standing may be this old: one clock reading serves all messages of a few loop turns


class Kept:
    """What the rules say of a campaign in a store during one tick. `first`..`end` is its largest issued range."""

    __slots__ = ("end", "first", "issued", "standing")

    def __init__(self, standing: Verdict, issued: Spans) -> None:
        self.standing, self.issued = standing, issued
        ranges = zip(issued.starts, issued.ends, strict=True)
        self.first, self.end = max(ranges, key=lambda span: span[1] - span[0], default=(0, 0))


class Standings:
    """decide() (gateway.campaign), kept. `tick` first, then ask."""

    def __init__(self, control: Control, now_ms: Callable[[], int]) -> None:
        self.control_seq = -1  # the control events the answers rest on
        self._control, self._now_ms = control, now_ms
        self._tick_ms = 0
        self._kept: dict[tuple[int, str, str], Kept] = {}

    def tick(self) -> int:
        """The time the rules use; forgets what a newer tick or a newer control event outdates."""
        now_ms = self._now_ms()
        seq = self._control.directory.control_seq
        if not 0 <= now_ms - self._tick_ms < STALE_MS_MAX or seq != self.control_seq:
            self._kept.clear()
            self._tick_ms, self.control_seq = now_ms, seq
        return self._tick_ms

    def kept(self, number: int, store: str, kind: str) -> Kept:
        """The standing of a campaign's vouchers of one kind in a store; an unknown campaign has issued none."""
        here = (number, store, kind)
        kept = self._kept.get(here)
        if kept is None:
            directory = self._control.directory
            campaign = directory.campaigns.get(number)
            if campaign is None:
                kept = Kept(Verdict.ACCEPTED, Spans())
            else:
                kept = Kept(standing(campaign, directory.outlet(store), self._tick_ms), campaign.issued(kind))
            self._kept[here] = kept
        return kept

    def judge(self, terminal: Terminal, number: int, serial: int, kind: str) -> Verdict:
        """All static rules for one scan, as of the last tick."""
        kept = self.kept(number, terminal.store, kind)
        locked = self._tick_ms < terminal.locked_until_ms
        return compose(kept.standing, locked=locked, issued=kept.issued.holds(serial))
