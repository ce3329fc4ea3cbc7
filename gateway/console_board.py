"""What the console's screens show, computed from counts that are there anyway, for one view at a time."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence

from eventstore.follower import Follower
from eventstore.hourly import EVERYWHERE, HourlyCounts, Row
from eventstore.outcomes import HOUR_MS, OUTCOMES
from gateway import console_bodies as b
from gateway.campaign import Campaign
from gateway.console_forecast import forecast
from gateway.console_live import SCANS, SECONDS_KEPT, Latencies, Live, bad_beyond, reason_of
from gateway.console_scope import View
from gateway.core import Core
from gateway.directory import Terminal
from gateway.messages import Verdict
from gateway.metrics import Metrics
from gateway.stream import Stream

OBJECTIVES = {"availability": 0.9995, "fast": 0.99, "tail": 0.999}  # as in the SLO file; a test compares them
FAST_S, TAIL_S = 0.05, 0.25
ANSWERS_MIN = 1000  # fewer say nothing about shares of one in two thousand
STORES_TOLD_MAX = 20  # of a campaign's best stores


class Board:
    """Reads core, counters and counts; changes nothing."""

    def __init__(
        self,
        core: Core,
        metrics: Metrics,
        stream: Stream,
        counts: HourlyCounts,
        live: Live,
        follower: Follower,
        now_ms: Callable[[], int],
    ) -> None:
        self._core, self._metrics, self._stream = core, metrics, stream
        self._counts, self._live, self._follower, self._now_ms = counts, live, follower, now_ms

    # --- now ---

    def latencies(self) -> Latencies:
        """The metrics' counters of redemptions, all doors together."""
        tallies = [tally for (op, _), tally in self._metrics.tallies.items() if op == "redeem"]
        answered = [histogram for tally in tallies for histogram in tally.seconds[:2]]
        bounds = answered[0].bounds if answered else ()
        counts = [sum(column) for column in zip(*(histogram.counts for histogram in answered), strict=True)]
        return Latencies(bounds, counts, [sum(column) for column in zip(*(t.verdicts for t in tallies), strict=True)])

    def now(self, view: View, count: int = SECONDS_KEPT) -> b.Now:
        """The last `count` seconds, and how things stand."""
        now_ms, troubles = self._now_ms(), self._core.troubles()
        now_s = now_ms // 1000
        connected = self._stream.connected()
        return b.Now(
            at_ms=now_ms,
            ready=not troubles,
            troubles=troubles if view.reads_log else [],
            seconds=self._live.seconds(view.sees_cell, now_s, count, latencies=view.sees_all),
            mix=self._live.mix(view.sees_cell, now_s),
            tills=sum(n for store, n in connected.items() if view.sees_store(store)),
            unresolved=self._live.unresolved(now_s) if view.sees_all else 0,
            shares=self._shares() if view.sees_all else [],
            draining=self._core.leaving,
            behind=self.behind(),
        )

    def behind(self) -> int:
        """Batches this gateway made durable that are not counted yet."""
        return sum(max(0, lane.durable_seq - self._follower.applied(lane.partition).seq) for lane in self._core.lanes)

    def _shares(self) -> list[b.Share]:
        told, shed = self.latencies(), sum(self._metrics.shed_requests.values())
        answered = sum(told.counts)
        unresolved = told.verdicts[Verdict.UNRESOLVED] if told.verdicts else 0
        slow = [bad_beyond(told.bounds, told.counts, limit) if answered else 0 for limit in (FAST_S, TAIL_S)]
        return [
            _share("availability", answered + unresolved + shed, unresolved + shed),
            _share("fast", answered, slow[0]),
            _share("tail", answered, slow[1]),
        ]

    # --- stores ---

    def stores(self, view: View) -> list[b.StoreRow]:
        """Every store the view sees."""
        return self._store_rows(view, view.own_stores())

    def _store_rows(self, view: View, names: Iterable[str]) -> list[b.StoreRow]:
        now_ms = self._now_ms()
        per_minute, connected = self._live.per_minute(now_ms // 1000), self._stream.connected()
        day = self._day(now_ms // HOUR_MS)
        tills: dict[str, list[Terminal]] = {}
        for terminal in view.directory.terminals.values():
            tills.setdefault(terminal.store, []).append(terminal)
        rows = []
        for name in names:
            store, own = view.directory.stores[name], tills.get(name, [])
            rows.append(
                b.StoreRow(
                    store=name,
                    title=store.title,
                    merchant=store.merchant,
                    tills=connected.get(name, 0),
                    enrolled=sum(till.public_key is not None and not till.revoked for till in own),
                    last_ms=max((self._last_ms(till.number) for till in own), default=0),
                    per_minute=per_minute[name],
                    day=day[name, "all"],
                    day_refused=day[name, "refused"],
                    locked=sum(till.locked_until_ms > now_ms for till in own),
                )
            )
        return rows

    def _last_ms(self, terminal: int) -> int:
        counted = self._counts.tills.get(terminal)
        return counted.last_ms if counted else 0

    def _day(self, this_hour: int) -> Counter[tuple[str, str]]:
        day: Counter[tuple[str, str]] = Counter()
        for hour, cells in self._counts.day.items():
            if hour > this_hour - 24:
                for (store, kind), n in cells.items():
                    outcome = OUTCOMES[kind]
                    day[store, "all"] += n * (outcome in SCANS)
                    day[store, "refused"] += n * (outcome == "refused")
        return day

    async def store(self, view: View, name: str, hours: int) -> b.StoreLife:
        """One store the view sees, by till and hour. Raises sqlite3.Error."""
        first_hour = self._now_ms() // HOUR_MS - hours + 1
        rows = await self._counts.hours(name, [0, *view.directory.campaigns], first_hour)
        tills = [till for till in view.directory.terminals.values() if till.store == name]
        connected = self._stream.connected_numbers()
        return b.StoreLife(
            row=self._store_rows(view, [name])[0],
            tills=[self._till_row(till, till.number in connected) for till in tills],
            hours=hours_of(rows),
            reasons=reasons_of(rows),
        )

    def _till_row(self, till: Terminal, connected: bool) -> b.TillRow:
        counted = self._counts.tills.get(till.number)
        locked = till.locked_until_ms > self._now_ms()
        state = "revoked" if till.revoked else "offered" if till.public_key is None else "enrolled"
        return b.TillRow(
            terminal=till.number,
            label=till.label,
            state="locked" if locked and state == "enrolled" else state,
            connected=connected,
            last_ms=counted.last_ms if counted else 0,
            redeemed=counted.redeemed if counted else 0,
            refused=counted.refused if counted else 0,
            reversed=counted.undone if counted else 0,
        )

    # --- campaigns ---

    def campaigns(self, view: View) -> list[b.CampaignRow]:
        """Every campaign the view sees, the newest first."""
        seen = [campaign for campaign in view.directory.campaigns.values() if view.sees_campaign(campaign)]
        totals = self._totals(view)
        return [self._campaign_row(view, campaign, totals) for campaign in reversed(seen)]

    def _totals(self, view: View) -> Counter[tuple[int, str]]:
        totals: Counter[tuple[int, str]] = Counter()
        for (store, campaign, kind), n in self._counts.totals.items():
            if view.sees_store(store) if view.counts_by_store else store == EVERYWHERE:
                totals[campaign, OUTCOMES[kind]] += n
        return totals

    def _campaign_row(self, view: View, campaign: Campaign, totals: Mapping[tuple[int, str], int]) -> b.CampaignRow:
        number, offer, now_ms = campaign.number, campaign.offer, self._now_ms()
        return b.CampaignRow(
            campaign=number,
            slug=campaign.slug,
            title=offer.title,
            state=_state_of(campaign, now_ms),
            starts_ms=offer.starts_ms,
            ends_ms=offer.ends_ms,
            value_minor=offer.value_minor,
            currency=offer.currency,
            issued=None if view.counts_by_store else _issued(campaign),
            redeemed=totals.get((number, "redeemed"), 0),
            reversed=totals.get((number, "reversed"), 0),
            voided=totals.get((number, "voided"), 0),
            refused=totals.get((number, "refused"), 0),
        )

    async def campaign(self, view: View, campaign: Campaign, hours: int) -> b.CampaignLife:
        """One campaign the view sees. Raises sqlite3.Error."""
        now_ms = self._now_ms()
        first_hour = now_ms // HOUR_MS - hours + 1
        row = self._campaign_row(view, campaign, self._totals(view))
        rows: list[Row] = []
        for store in view.own_stores() if view.counts_by_store else [EVERYWHERE]:
            rows += await self._counts.hours(store, [campaign.number], first_hour)
        by_hour = hours_of(rows)
        ahead = None
        if row.issued is not None and row.state == "open":
            ahead = forecast(row, by_hour, now_ms)
        return b.CampaignLife(row, by_hour, reasons_of(rows), ahead, self._best_stores(view, campaign.number))

    def _best_stores(self, view: View, number: int) -> list[tuple[str, int]]:
        stores: Counter[str] = Counter()
        for (store, campaign, kind), n in self._counts.totals.items():
            if campaign == number and store and OUTCOMES[kind] == "redeemed" and view.sees_cell(store, campaign):
                stores[store] += n
        return stores.most_common(STORES_TOLD_MAX)


def hours_of(rows: Sequence[Row]) -> list[b.Hour]:
    """Rows of any stores and campaigns as one curve, oldest first; hours without a scan are left out."""
    hours: dict[int, Counter[str]] = {}
    for hour, kind, n in rows:
        hours.setdefault(hour, Counter())[OUTCOMES[kind]] += n
    return [
        b.Hour(hour * HOUR_MS, c["redeemed"], c["refused"], c["reversed"], c["voided"])
        for hour, c in sorted(hours.items())
    ]


def reasons_of(rows: Sequence[Row]) -> dict[str, int]:
    """Why scans were refused, most first, under their public reasons."""
    reasons: Counter[str] = Counter()
    for _, kind, n in rows:
        if OUTCOMES[kind] == "refused":
            reasons[reason_of(kind)] += n
    return dict(reasons.most_common())


def _share(name: str, answers: int, bad: int) -> b.Share:
    objective = OBJECTIVES[name]
    left = 1 - bad / (answers * (1 - objective)) if answers >= ANSWERS_MIN else None
    return b.Share(name, objective, answers, bad, None if left is None else round(left, 4))


def _issued(campaign: Campaign) -> int:
    kinds = (campaign.signed, campaign.typed, campaign.foreign)
    return sum(sum(spans.ends) - sum(spans.starts) for spans in kinds)


def _state_of(campaign: Campaign, now_ms: int) -> str:
    if campaign.purged:
        return "purged"
    if campaign.closed_ms is not None:
        return "closed"
    if campaign.paused:
        return "paused"
    if now_ms < campaign.offer.starts_ms:
        return "not_yet"
    return "over" if now_ms >= campaign.offer.ends_ms else "open"
