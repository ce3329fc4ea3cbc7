"""The console's live side: one tick for all viewers, each frame made once for all who may see the same.

Theory. Nothing here runs for a scan. Four times a second the hub looks at counts that were made anyway and encodes what
changed, once for each (view, topic), however many look. A viewer has a short queue; one that reads too slowly loses the
oldest frames and is told how many. Rows are absolute, so whoever lost frames is right again with the next one; only the
tail's events are gone for good, and those are counted.
"""

import asyncio
import resource
from collections import deque
from collections.abc import Callable, Sequence

import msgspec
from aiohttp import web

from eventstore.log import CONTROL, Batch, EventLog, LogDamaged, LogLost
from gateway import console_bodies as b
from gateway.console_board import Board
from gateway.console_events import Filters, tail_of
from gateway.console_live import SECONDS_KEPT, Live, quantile
from gateway.console_scope import View
from gateway.control import Control
from gateway.messages import Verdict
from gateway.metrics import Metrics

TICK_S = 0.25
TICKS_A_SECOND = 4
SECONDS_TOLD = 4  # of `now` in a tick: late batches may still change the last ones
FRAMES_MAX = 32  # waiting for one viewer: some seconds of ticks; a phone in a lift loses the older ones
VIEWERS_MAX = 64  # a control room and its managers; each costs a few per cent of what one till does
HEARTBEAT_S = 15.0  # proxies cut what is silent for longer
WRITE_S_MAX = 30.0  # a viewer whose line takes nothing for so long is gone
BATCHES_WAITING_MAX = 256  # of one tick, for the tail: what is beyond is counted as left out
REPLAY_BATCHES_MAX = 64  # of a partition, for a viewer that was away; more is told as lost
TOPICS = ("now", "stores", "campaigns", "load", "tail")
SLOW_TOPICS = ("stores", "campaigns", "load")  # told once a second


class Viewer:
    """One open stream: whose, what of, and the frames that wait for it."""

    def __init__(self, view: View, topics: Sequence[str], filters: Filters, is_welcome: Callable[[], bool]) -> None:
        self.view, self.topics, self.filters, self.is_welcome = view, topics, filters, is_welcome
        self._frames: deque[tuple[bytes, int]] = deque()
        self._wake = asyncio.Event()
        self._lost_frames = self._lost_events = 0
        self._bye: bytes | None = None

    def offer(self, frame: bytes, events: int = 0) -> None:
        """Queue a frame that carries `events` of the tail; a full queue loses its oldest."""
        if len(self._frames) >= FRAMES_MAX:
            _, events_lost = self._frames.popleft()
            self._lost_frames += 1
            self._lost_events += events_lost
        self._frames.append((frame, events))
        self._wake.set()

    def leave(self, why: str) -> None:
        """Tell this viewer why, and end its stream."""
        self._bye = frame_of("bye", {"why": why})
        self._wake.set()

    async def pump(self, response: web.StreamResponse) -> None:
        """Write until told to leave, or until the line is gone (ConnectionError, TimeoutError)."""
        while True:
            try:
                async with asyncio.timeout(HEARTBEAT_S):
                    await self._wake.wait()
            except TimeoutError:
                await _written(response, b": still here\n\n")
                continue
            self._wake.clear()
            frames = [frame for frame, _ in self._frames]
            self._frames.clear()
            if self._lost_frames:
                lost = b.Lost(self._lost_frames, self._lost_events, 0)
                frames.insert(0, frame_of("lost", lost))
                self._lost_frames = self._lost_events = 0
            if self._bye is not None:
                frames.append(self._bye)
            await _written(response, b"".join(frames))
            if self._bye is not None:
                return


async def _written(response: web.StreamResponse, content: bytes) -> None:
    async with asyncio.timeout(WRITE_S_MAX):
        await response.write(content)


def frame_of(event: str, body: object, position: str = "") -> bytes:
    """One event of a stream (WHATWG HTML, server-sent events). JSON has no line break, so one data line does."""
    named = f"id: {position}\n" if position else ""
    return f"event: {event}\n{named}data: ".encode() + msgspec.json.encode(body) + b"\n\n"


class Hub:
    """All viewers of this gateway."""

    def __init__(self, board: Board, live: Live, metrics: Metrics, log: EventLog, control: Control) -> None:
        self._board, self._live, self._metrics, self._log, self._control = board, live, metrics, log, control
        self.viewers: set[Viewer] = set()
        self.is_closed = False
        self.loads: deque[b.Load] = deque(maxlen=SECONDS_KEPT)
        self._fresh: deque[Batch] = deque()
        self._fresh_left_out = 0
        self._positions: dict[int, int] = {}
        self._control_seq = control.directory.control_seq
        self._loop = asyncio.get_running_loop()
        self._meter = _Meter(metrics)

    def saw(self, batches: Sequence[Batch]) -> None:
        """These were counted: they may be shown."""
        self._positions[batches[-1].partition] = batches[-1].seq
        if any("tail" in viewer.topics for viewer in self.viewers):
            self._fresh.extend(batches)
            while len(self._fresh) > BATCHES_WAITING_MAX:
                self._fresh_left_out += len(self._fresh.popleft().verdicts)

    def position(self) -> str:
        """Up to where what is shown was counted: `0:17,1:4,control:9`."""
        parts = [f"{partition}:{seq}" for partition, seq in sorted(self._positions.items())]
        return ",".join([*parts, f"control:{self._control_seq}"])

    async def run(self, now_s: Callable[[], int]) -> None:
        """Tick until cancelled. Raises LogFailed."""
        ticks, due_s = 0, self._loop.time()
        while True:
            due_s = max(due_s + TICK_S, self._loop.time())  # after a stall: no rush to catch up
            await asyncio.sleep(due_s - self._loop.time())
            ticks += 1
            second_over = ticks % TICKS_A_SECOND == 0
            if second_over:
                told = self._board.latencies()
                self._live.answered(now_s(), told)
                self.loads.append(self._meter.second(now_s()))
                self._dismiss_strangers()
            if self.viewers:
                await self._tick(second_over)

    def _dismiss_strangers(self) -> None:
        for viewer in list(self.viewers):
            if not viewer.is_welcome():
                viewer.leave("this token is not good any more")

    async def _tick(self, second_over: bool) -> None:
        batches = await self._control_news() + list(self._fresh)
        left_out, self._fresh_left_out = self._fresh_left_out, 0
        self._fresh.clear()
        made: dict[tuple[object, ...], tuple[bytes, int] | None] = {}
        for viewer in self.viewers:
            for topic in viewer.topics:
                if topic in SLOW_TOPICS and not second_over:
                    continue
                key = (topic, *viewer.view.key, viewer.filters if topic == "tail" else None)
                if key not in made:
                    made[key] = self._frame(topic, viewer.view, viewer.filters, batches, left_out)
                if (frame := made[key]) is not None:
                    viewer.offer(*frame)

    def _frame(
        self, topic: str, view: View, filters: Filters, batches: Sequence[Batch], left_out: int
    ) -> tuple[bytes, int] | None:
        board, position = self._board, self.position()
        match topic:
            case "now":
                return frame_of("now", board.now(view, SECONDS_TOLD), position), 0
            case "stores":
                return frame_of("stores", board.stores(view), position), 0
            case "campaigns":
                return frame_of("campaigns", board.campaigns(view), position), 0
            case "load":
                return (frame_of("load", self.loads[-1], position), 0) if self.loads else None
        tail = tail_of(view, filters, batches)
        if not (tail.events or tail.left_out or left_out):
            return None
        tail = b.Tail(tail.events, tail.left_out + left_out)
        return frame_of("tail", tail, position), len(tail.events) + tail.left_out

    async def _control_news(self) -> list[Batch]:
        head = self._control.directory.control_seq
        if head <= self._control_seq:
            return []
        first = max(self._control_seq + 1, head - REPLAY_BATCHES_MAX + 1)
        try:
            news = await self._read(CONTROL, first, head)
        except LogLost:  # a shared log comes back; at the next tick it is asked again
            return []
        self._control_seq = head
        return news

    async def _read(self, partition: int, first: int, last: int) -> list[Batch]:
        """Raises LogFailed, LogLost."""
        try:
            return await self._log.read(partition, first, last - first + 1)
        except LogDamaged:  # its lane has halted, and the troubles say why
            return []

    async def replay(self, viewer: Viewer, last_id: str) -> None:
        """What a viewer that comes back missed of the tail, as far as it is near; the rest is told as lost."""
        batches: list[Batch] = []
        lost = 0
        for name, seq in parsed_position(last_id).items():
            partition = CONTROL if name == "control" else int(name)
            newest = self._control_seq if name == "control" else self._positions.get(partition, 0)
            first = max(seq + 1, newest - REPLAY_BATCHES_MAX + 1)
            if newest <= seq:
                continue
            try:
                batches += await self._read(partition, first, newest)
            except LogLost:
                first = newest + 1
            lost += first - seq - 1
        if lost:
            viewer.offer(frame_of("lost", b.Lost(0, 0, lost)))
        tail = tail_of(viewer.view, viewer.filters, batches)
        if tail.events or tail.left_out:
            viewer.offer(frame_of("tail", tail, self.position()), len(tail.events))

    def close(self, why: str) -> None:
        """Send everybody away, for good."""
        self.is_closed = True
        for viewer in list(self.viewers):
            viewer.leave(why)


def parsed_position(text: str) -> dict[str, int]:
    """`0:17,control:9` as a mapping; what is not of this form is left out, for it came from outside."""
    found: dict[str, int] = {}
    for part in text[:4096].split(","):
        name, _, seq = part.partition(":")
        good = name == "control" or (name.isascii() and name.isdigit() and len(name) <= 4)
        if good and seq.isascii() and seq.isdigit() and len(seq) <= 13:
            found[name] = int(seq)
    return found


class _Meter:
    """Differences of the metrics' counters from second to second."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._before = self._read()

    def second(self, at_s: int) -> b.Load:
        before, now = self._before, self._read()
        self._before = now
        counts = [n - then for n, then in zip(now.counts, before.counts, strict=False)] or now.counts
        lag = [n - then for n, then in zip(now.lag, before.lag, strict=True)]
        commits = [n - then for n, then in zip(now.commits, before.commits, strict=True)]
        shed, durable, batches = now.shed - before.shed, now.durable - before.durable, now.batches - before.batches
        bounds = self._metrics.loop_lag.bounds
        return b.Load(
            at_s=at_s,
            asked=now.answers - before.answers + shed,
            durable=durable,
            unresolved=now.unresolved - before.unresolved,
            shed=shed,
            in_flight=sum(tally.in_flight for tally in self._metrics.tallies.values()),
            p50_ms=round(1000 * quantile(bounds, counts, 0.50), 2),
            p99_ms=round(1000 * quantile(bounds, counts, 0.99), 2),
            lag_p99_ms=round(1000 * quantile(bounds, lag, 0.99), 2),
            commit_p99_ms=round(1000 * quantile(bounds, commits, 0.99), 2),
            per_batch=round(durable / batches, 1) if batches else 0.0,
            cpu=round((now.cpu_s - before.cpu_s) / (TICK_S * TICKS_A_SECOND), 2),
        )

    def _read(self) -> "_Read":
        metrics, usage = self._metrics, resource.getrusage(resource.RUSAGE_SELF)
        tallies = list(metrics.tallies.values())
        histograms = [histogram.counts for tally in tallies for histogram in tally.seconds[:2]]
        return _Read(
            answers=sum(sum(tally.verdicts) for tally in tallies),
            unresolved=sum(tally.verdicts[Verdict.UNRESOLVED] for tally in tallies),
            shed=sum(metrics.shed_requests.values()),
            durable=metrics.appended,
            batches=sum(metrics.batch_size.counts),
            counts=[sum(column) for column in zip(*histograms, strict=True)],
            lag=list(metrics.loop_lag.counts),
            commits=list(metrics.commit_seconds.counts),
            cpu_s=usage.ru_utime + usage.ru_stime,
        )


class _Read(msgspec.Struct, frozen=True):
    answers: int
    unresolved: int
    shed: int
    durable: int
    batches: int
    counts: list[int]
    lag: list[int]
    commits: list[int]
    cpu_s: float
