"""The door for Prometheus: one look at the running gateway per scrape, and what must be measured between scrapes."""

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from aiohttp import web

from eventstore.follower import Follower
from eventstore.log import LogLost
from eventstore.projections import CampaignTally
from gateway.campaign import Campaign
from gateway.core import LOG_FILE, Core, wall_ms
from gateway.exposition import Exposition, Projected, Snapshot
from gateway.lag import Lag
from gateway.lane import LaneState
from gateway.metrics import Metrics
from gateway.sampler import Sampler

if TYPE_CHECKING:
    from pathlib import Path

    from gateway.cluster import Valkey
    from gateway.embedded import EmbeddedValkey
    from gateway.ends import Ends
    from gateway.stream import Stream

LOOP_S = 0.1  # how often the loop's lateness is measured
NOTHING = CampaignTally(0, 0, 0)
FOLLOW_S = 1.0  # how often the projections' positions are compared with the log's


class Scrapes:
    """Serves `GET /metrics`. `watch` is what it has the core run meanwhile."""

    def __init__(
        self,
        core: Core,
        stream: "Stream",
        metrics: Metrics,
        ends: "Ends",
        *,
        directory: "Path",
        connect: "Valkey",
        valkey: "EmbeddedValkey | None",
        capacity: float,
    ) -> None:
        self._core, self._stream, self._metrics = core, stream, metrics
        self._ends, self._valkey, self._capacity = ends, valkey, capacity
        self._exposition = Exposition(metrics)
        self._sampler = Sampler(directory / LOG_FILE, connect, self._durable)
        self._followers = {"index": core.follower, "vouchers": core.counting}
        self._lags = {(name, lane.partition): Lag() for name in self._followers for lane in core.lanes}
        self._lag_seconds = dict.fromkeys(self._followers, 0.0)
        self._progress = dict.fromkeys(self._followers, 0.0)
        self._over_redeemed: set[int] = set()
        for work in (self._sampler.run(), self._measure_loop(), self._measure_followers()):
            core.watch(work)

    async def scraped(self, request: web.Request) -> web.Response:
        """`GET /metrics`."""
        text = await asyncio.to_thread(self._exposition.text, self.snapshot())
        return web.Response(body=text, headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"})

    def snapshot(self) -> Snapshot:
        """What a scrape reads off this gateway now."""
        core, directory = self._core, self._core.control.directory
        states = [str(lane.state) for lane in core.lanes]
        enrolled = (terminal.store for terminal in directory.terminals.values() if terminal.public_key)
        return Snapshot(
            ready=not core.troubles(),
            draining=core.leaving,
            connected=dict.fromkeys(enrolled, 0) | dict(self._stream.connected()),
            lanes={state: states.count(state) for state in states},
            last_sequences={str(lane.partition): lane.durable_seq for lane in core.lanes}
            | {"control": directory.control_seq},
            valkey_restarts=self._valkey.restarts if self._valkey else 0,
            projections={name: self._projected(name, follower) for name, follower in self._followers.items()},
            vouchers=self._vouchers() if core.counters.has_caught_up else None,
            conflicts=self._conflicts(),
            ends=dict(self._ends.counts),
            capacity=self._capacity,
            sampled=self._sampler.sampled,
        )

    def _projected(self, name: str, follower: Follower) -> Projected:
        positions = {str(lane.partition): follower.applied(lane.partition).seq for lane in self._core.lanes}
        return Projected(positions, self._lag_seconds[name], self._progress[name])

    def _vouchers(self) -> Mapping[str, Sequence[int]]:
        tallies, now_ms = self._core.counters.tallies(), wall_ms()
        campaigns = sorted(self._core.control.directory.campaigns.items())
        return {
            campaign.slug: voucher_states(campaign, tallies.get(number, NOTHING), now_ms)
            for number, campaign in campaigns
        }

    def _conflicts(self) -> Mapping[str, Sequence[int]]:
        directory = self._core.control.directory
        counts = Counter(event.campaign for event in directory.conflicts.values())
        return {
            campaign.slug: [counts[number]]
            for number, campaign in sorted(directory.campaigns.items())
            if campaign.offer.offline is not None
        }

    def _durable(self) -> list[int]:
        return [
            max(lane.durable_seq, *(follower.applied(lane.partition).seq for follower in self._followers.values()))
            for lane in self._core.lanes
        ]

    async def _measure_loop(self) -> None:
        loop = asyncio.get_running_loop()
        due_s = loop.time()
        while True:
            due_s = max(due_s, loop.time()) + LOOP_S
            await asyncio.sleep(due_s - loop.time())
            self._metrics.loop_lag.observe(max(0.0, loop.time() - due_s))

    async def _measure_followers(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            lanes = [lane for lane in self._core.lanes if lane.state is not LaneState.HALTED]
            for name, follower in self._followers.items():
                applied = [follower.applied(lane.partition).seq for lane in lanes]
                self._lag_seconds[name] = max(
                    (
                        self._lags[name, lane.partition].seconds(loop.time(), lane.durable_seq, seq)
                        for lane, seq in zip(lanes, applied, strict=True)
                    ),
                    default=0.0,
                )
                if self._progress[name] < 1 and all(lane.state is LaneState.ADMITTING for lane in lanes):
                    newest = sum(lane.durable_seq for lane in lanes)
                    self._progress[name] = min(1.0, sum(applied) / newest) if newest else 1.0
            self._core.counters.has_caught_up |= self._progress["vouchers"] == 1
            await self._compare_with_issued()
            await asyncio.sleep(FOLLOW_S)

    async def _compare_with_issued(self) -> None:
        """No campaign may have more vouchers redeemed and voided than it issued, as two parts of the log tell it."""
        tallies = self._core.counters.tallies()
        try:
            await (
                self._core.control.confirm()
            )  # asked after the redemptions were counted: their issue comes before them
        except LogLost:
            return
        campaigns = self._core.control.directory.campaigns
        for number in tallies.keys() & campaigns.keys() - self._over_redeemed:
            tally = tallies[number]
            if tally.redeemed + tally.voided > issued(campaigns[number]):
                self._over_redeemed.add(number)
                self._metrics.violated("over_redeemed")


def issued(campaign: Campaign) -> int:
    """How many vouchers a campaign has, whatever became of them."""
    spans = (campaign.signed, campaign.typed, campaign.foreign)
    return sum(sum(span.ends) - sum(span.starts) for span in spans)


def voucher_states(campaign: Campaign, tally: CampaignTally, now_ms: int) -> tuple[int, int, int, int]:
    """How many issued vouchers are open, redeemed, voided, expired; see exposition.VOUCHER_STATES."""
    unused = max(0, issued(campaign) - tally.redeemed - tally.voided)
    is_over = campaign.closed_ms is not None or now_ms >= campaign.offer.ends_ms
    return (0, tally.redeemed, tally.voided, unused) if is_over else (unused, tally.redeemed, tally.voided, 0)
