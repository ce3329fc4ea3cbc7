"""The static rules: may this voucher be redeemed here and now, and may this redemption be undone?

Everything a voucher's own history does not decide is decided here, from a `Campaign` (folded from the log),
the `Outlet` of the asking terminal, and the time; never from a clock, a connection or a cache. Of several
true reasons the answer is the smallest `Verdict`, so the checks below stand in the order of that enum.

Thousands of scans of one tick share their campaign and store, so the rules come in two pieces: `standing()`
is all that does not depend on the serial, to be asked once a tick for each (campaign, store), and `compose()`
adds what belongs to the scan. `decide()` is the two together: what anyone outside the hot path calls.

Hours are read off the wall clock of the campaign's time zone at the instant asked about: an hour that the
clocks repeat is open both times, an hour they skip never comes.
"""

import bisect
from collections.abc import Iterator
from datetime import datetime, time, timedelta
from zoneinfo import ZoneInfo

import msgspec

from eventstore.events import Offer
from gateway.messages import Verdict
from gateway.roles import Action, Principal, may

SIGNED, TYPED, FOREIGN = "signed", "typed", "foreign"
CODE_KINDS = (SIGNED, TYPED, FOREIGN)
# A weekly hour may fall into the gap of a clock change, and Samoa once skipped a day: the week after has it.
OPENING_DAYS_MAX = 15
DAY_S = 86_400


class Spans(msgspec.Struct, frozen=True):
    """A set of serials as sorted, disjoint, non-adjacent half-open ranges `starts[i] <= serial < ends[i]`."""

    starts: tuple[int, ...] = ()
    ends: tuple[int, ...] = ()

    def holds(self, serial: int) -> bool:
        at = bisect.bisect_right(self.starts, serial)
        return at > 0 and serial < self.ends[at - 1]

    def overlaps(self, first: int, count: int) -> bool:
        """Whether any serial of [first, first + count) is in the set."""
        at = bisect.bisect_left(self.starts, first + count)
        return at > 0 and first < self.ends[at - 1]

    def joined(self, first: int, count: int) -> "Spans":
        """The set with [first, first + count) added; it must not overlap."""
        assert count > 0
        assert not self.overlaps(first, count)
        left = right = bisect.bisect_left(self.starts, first)
        start, end = first, first + count
        if left and self.ends[left - 1] == start:
            left, start = left - 1, self.starts[left - 1]
        if right < len(self.starts) and self.starts[right] == end:
            right, end = right + 1, self.ends[right]
        return Spans((*self.starts[:left], start, *self.starts[right:]), (*self.ends[:left], end, *self.ends[right:]))


class Campaign(msgspec.Struct, frozen=True, kw_only=True):
    """A campaign as the control events so far leave it."""

    number: int
    slug: str
    offer: Offer
    stores: frozenset[str]  # offer.stores, for the membership test
    paused: bool = False
    closed_ms: int | None = None
    purged: bool = False
    signed: Spans = Spans()
    typed: Spans = Spans()
    foreign: Spans = Spans()
    next_serial: int = 1  # serials are never reused, whatever the kind of code

    def issued(self, kind: str) -> Spans:
        """The serials issued under codes of `kind`. A serial issued as typed makes no signed code good."""
        match kind:
            case "signed":
                return self.signed
            case "typed":
                return self.typed
            case _:
                assert kind == FOREIGN
                return self.foreign

    def issued_every(self, step: int) -> list[int]:
        """Multiples of `step` whose neighbourhoods [n, n + step) hold every serial issued so far, in order."""
        kinds = (self.signed, self.typed, self.foreign)
        spans = [span for kind in kinds for span in zip(kind.starts, kind.ends, strict=True)]
        return sorted({n * step for start, end in spans for n in range(start // step, -(-end // step))})


class Outlet(msgspec.Struct, frozen=True):
    """Where a scan was made: a store, whose it is, and the alliances its merchant belongs to."""

    store: str
    merchant: str
    alliances: frozenset[str] = frozenset()


def is_eligible(campaign: Campaign, outlet: Outlet) -> bool:
    """Whether the campaign is for this store at all, by name or through its alliance."""
    return outlet.store in campaign.stores or campaign.offer.alliance in outlet.alliances


def standing(campaign: Campaign, outlet: Outlet, now_ms: int) -> Verdict:
    """What the rules say of every issued voucher of `campaign` in this store now, whatever its serial."""
    offer = campaign.offer
    if not is_eligible(campaign, outlet):
        return Verdict.NOT_ELIGIBLE
    if campaign.closed_ms is not None:
        return Verdict.CLOSED
    if campaign.paused:
        return Verdict.PAUSED
    if now_ms < offer.starts_ms:
        return Verdict.NOT_YET_VALID
    if now_ms >= offer.ends_ms:
        return Verdict.EXPIRED
    return Verdict.ACCEPTED if is_open(offer, now_ms) else Verdict.OUTSIDE_HOURS


def compose(standing: Verdict, *, locked: bool, issued: bool) -> Verdict:
    """The standing of a campaign in a store, and what is particular to one scan, as one verdict."""
    assert standing is Verdict.ACCEPTED or standing > Verdict.NOT_ISSUED
    if locked:
        return Verdict.TERMINAL_LOCKED
    return standing if issued else Verdict.NOT_ISSUED


def decide(
    campaign: Campaign | None, outlet: Outlet, *, serial: int, kind: str, locked_until_ms: int, now_ms: int
) -> Verdict:
    """All static rules for one scan whose code is genuine: ACCEPTED, or the reason that counts most.

    `campaign` is None when the code names one that does not exist; `kind` is one of `CODE_KINDS`;
    `locked_until_ms` is the asking terminal's.
    """
    locked = now_ms < locked_until_ms
    if campaign is None:
        return compose(Verdict.ACCEPTED, locked=locked, issued=False)
    issued = campaign.issued(kind).holds(serial)
    return compose(standing(campaign, outlet, now_ms), locked=locked, issued=issued)


# --- hours --------------------------------------------------------------------------------------------------


def is_open(offer: Offer, now_ms: int) -> bool:
    """Whether the weekday and hour rules allow this instant; an offer without rules is always open."""
    if not offer.hours:
        return True
    wall = datetime.fromtimestamp(now_ms // 1000, ZoneInfo(offer.time_zone))
    weekday, minute = wall.isoweekday(), wall.hour * 60 + wall.minute
    return any(weekday in rule.weekdays and rule.from_minute <= minute < rule.to_minute for rule in offer.hours)


def next_legal_ms(offer: Offer, now_ms: int) -> int | None:
    """The first instant from now on at which window and hours allow a redemption, or None if none is left.

    For the note beside NOT_YET_VALID and OUTSIDE_HOURS. It takes tens of microseconds; the answer stays the
    same until the instant it names, so it can be kept that long.
    """
    earliest_ms = max(now_ms, offer.starts_ms)
    legal_ms = earliest_ms if is_open(offer, earliest_ms) else _next_opening_ms(offer, earliest_ms)
    return legal_ms if legal_ms is not None and legal_ms < offer.ends_ms else None


def openings(offer: Offer, from_ms: int, until_ms: int) -> list[tuple[int, int]]:
    """The half-open stretches of [from_ms, until_ms) in which window and hours allow a redemption."""
    from_ms, until_ms = max(from_ms, offer.starts_ms), min(until_ms, offer.ends_ms)
    found: list[tuple[int, int]] = []
    at_ms = from_ms
    while at_ms < until_ms:
        opens_ms = next_legal_ms(offer, at_ms)
        if opens_ms is None or opens_ms >= until_ms:
            break
        at_ms = min(_closing_ms(offer, opens_ms), until_ms)
        found.append((opens_ms, at_ms))
    return found


def _closing_ms(offer: Offer, open_ms: int) -> int:
    """The first instant after an open one at which no rule holds; the end of the window, if that comes first."""
    if not offer.hours:
        return offer.ends_ms
    zone = ZoneInfo(offer.time_zone)
    while open_ms < offer.ends_ms:
        changes = _clock_change_ms(open_ms // 1000, open_ms // 1000 + DAY_S, zone)
        turns = sorted({*_rule_ends_ms(offer, open_ms, zone), *changes})
        turn_ms = next((ms for ms in turns if ms > open_ms), offer.ends_ms)
        if turn_ms >= offer.ends_ms or not is_open(offer, turn_ms):
            return min(turn_ms, offer.ends_ms)
        open_ms = turn_ms
    return offer.ends_ms


def _rule_ends_ms(offer: Offer, after_ms: int, zone: ZoneInfo) -> Iterator[int]:
    """Each instant of about a day at which a rule's last minute has passed; both, if the clocks repeat it."""
    today = datetime.fromtimestamp(after_ms // 1000, zone).date()
    for days in (-1, 0, 1, 2):
        day = datetime.combine(today + timedelta(days), time(tzinfo=zone))
        for rule in offer.hours:
            end = day + timedelta(minutes=rule.to_minute)  # of the wall clock: 24:00 is the next day's midnight
            yield from (_epoch_ms(end), _epoch_ms(end.replace(fold=1)))


def _next_opening_ms(offer: Offer, after_ms: int) -> int | None:
    zone = ZoneInfo(offer.time_zone)
    changes = _clock_change_ms(after_ms // 1000, after_ms // 1000 + OPENING_DAYS_MAX * DAY_S, zone)
    turns = sorted({*_rule_starts_ms(offer, after_ms, zone), *changes})
    return next((ms for ms in turns if ms > after_ms and is_open(offer, ms)), None)


def _rule_starts_ms(offer: Offer, after_ms: int, zone: ZoneInfo) -> Iterator[int]:
    """Each instant, past ones too, at which a rule's first minute begins; both, if the clocks repeat it."""
    today = datetime.fromtimestamp(after_ms // 1000, zone).date()
    for days in range(-1, OPENING_DAYS_MAX):  # from yesterday: clocks set back past midnight return there
        day = today + timedelta(days)
        for rule in offer.hours:
            if day.isoweekday() in rule.weekdays:
                hour, minute = divmod(rule.from_minute, 60)
                start = datetime(day.year, day.month, day.day, hour, minute, tzinfo=zone)
                yield from (_epoch_ms(start), _epoch_ms(start.replace(fold=1)))


def _epoch_ms(moment: datetime) -> int:
    return int(moment.timestamp()) * 1000


def _clock_change_ms(before_s: int, after_s: int, zone: ZoneInfo) -> Iterator[int]:
    """The instant in (before, after] at which the zone's offset changes, if it does; by bisection.

    One at most: no zone has changed its clocks twice within OPENING_DAYS_MAX since 2005.
    """
    offset = _offset_at(before_s, zone)
    if _offset_at(after_s, zone) == offset:
        return
    while after_s - before_s > 1:
        middle_s = (before_s + after_s) // 2
        if _offset_at(middle_s, zone) == offset:
            before_s = middle_s
        else:
            after_s = middle_s
    yield after_s * 1000


def _offset_at(epoch_s: int, zone: ZoneInfo) -> timedelta | None:
    return datetime.fromtimestamp(epoch_s, zone).utcoffset()


# --- reversals ----------------------------------------------------------------------------------------------


class Made(msgspec.Struct, frozen=True):
    """A redemption that somebody wants undone: where it was made, and when (the gateway's clock)."""

    terminal: int
    merchant: str
    at_ms: int


def decide_reversal(made: Made, asker: Principal, *, acting_terminal: int, offer: Offer, now_ms: int) -> Verdict:
    """Whether `asker`, standing at `acting_terminal` (0: at none), may undo `made` now.

    Closing, pausing or locking does not stand in the way: giving a voucher back is the harmless direction.
    """
    at_own_till = acting_terminal == made.terminal and may(
        asker, Action.REVERSE, merchant=made.merchant, terminal=made.terminal
    )
    if not (at_own_till or may(asker, Action.REVERSE_ANY, merchant=made.merchant)):
        return Verdict.NOT_YOURS
    return Verdict.WINDOW_OVER if now_ms > made.at_ms + offer.reversal_window_ms else Verdict.ACCEPTED
