"""A gateway with two days behind it, hostile names among honest ones, and one who looks at its console over HTTP."""

import asyncio
import math
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
from core_world import DAY_MS, offer, wall_ms
from log_batches import id16
from stream_world import Site, TillClient, config_for, device, prepared

from eventstore import events as e
from eventstore.events import RECORD, REDEEM, REVERSE, Extra, encode_records
from eventstore.log import EMPTY_HEAD, Batch
from eventstore.sqlite_log import SqliteLog
from gateway.control import Control
from gateway.core import LOG_FILE, mint_tip
from gateway.directory import Rejected
from gateway.main import running
from gateway.messages import Redeem, Verdict

HOUR_MS = 3_600_000
HOSTILE = "<img src=x onerror=\"document.title='pwned'\"><script>document.title='pwned'</script>${7*7}{{7*7}}"
MERCHANTS = {"lotus": "Lotus Bakery 荷花饼屋", "noodle": "Third Street Noodles", "tea": "Tea & Co", "mean": HOSTILE}
STORES = {
    "lotus-east": ("lotus", "Lotus, East Gate"),
    "lotus-park": ("lotus", "Lotus, People's Park 人民公园店"),
    "lotus-hall": ("lotus", "Lotus, Market Hall"),
    "noodle-1": ("noodle", "Noodles, Third Street"),
    "noodle-2": ("noodle", "Noodles, Railway Station"),
    "noodle-3": ("noodle", "Noodles, University"),
    "tea-river": ("tea", "Tea & Co, Riverside"),
    "tea-tower": ("tea", "Tea & Co, Clock Tower"),
    "mean-1": ("mean", HOSTILE),
}
TILLS_PER_STORE = 2
ISSUED = {"autumn-noodles": 12000, "tea-box": 2500, "summer-ice": 400, "mean": 20}
TITLES = {
    "autumn-noodles": "A bowl of autumn noodles 秋日面",
    "tea-box": "A box of tea",
    "summer-ice": "Summer ice",
    "mean": HOSTILE,
}
ROLES = {"auditor": "", "operator": "", "merchant": "lotus", "supervisor": "lotus", "channel": "radio"}
HOURS = 47
TELLS_S = 10.0  # live means within a second; a shared machine may be busy


async def played(directory: Path) -> None:
    """Initialise a deployment whose log already holds two days of scans."""
    await prepared(directory)
    log = SqliteLog.open(directory / LOG_FILE, lambda seconds, batches: None)
    try:
        control = Control(log, now_ms=wall_ms, mint_tip=mint_tip)
        await control.confirm()
        for events in _market():
            outcome = await control.record("test", lambda directory, now_ms, events=events: events)
            assert not isinstance(outcome, Rejected), outcome
        await log.append(_history(wall_ms()))
    finally:
        await log.close()


def _market() -> list[list[e.ControlEvent]]:
    now_ms, names = wall_ms(), list(STORES)
    enrolment: list[e.ControlEvent] = []
    for n in range(1, TILLS_PER_STORE * len(names) + 1):
        store, label = (
            names[(n - 1) // TILLS_PER_STORE],
            HOSTILE[:40] if n == len(names) * 2 else f"counter {n % 2 + 1}",
        )
        token = id16("token", n) * 2
        enrolment += [
            e.TerminalOffered(terminal=n, store=store, label=label, token_hash=token, expires_ms=now_ms + 60_000),
            e.TerminalEnrolled(terminal=n, public_key=device(n).public_key().public_bytes_raw()),
        ]
    campaigns: list[e.ControlEvent] = []
    for number, (slug, count) in enumerate(ISSUED.items(), 1):
        first, last = (-40, -2) if slug == "summer-ice" else (-3, 9)
        terms = offer(
            title=TITLES[slug], value_minor=1800, stores=tuple(names), channel="radio" if slug == "tea-box" else "",
            starts_ms=now_ms + first * DAY_MS, ends_ms=now_ms + last * DAY_MS,
        )  # fmt: skip
        campaigns.append(e.CampaignCreated(campaign=number, slug=slug, offer=terms))
        request = HOSTILE[:60] if slug == "mean" else f"print-run-{number}"
        campaigns.append(
            e.VouchersIssued(campaign=number, kind="signed", first_serial=1, count=count, request_id=request)
        )
    return [
        [e.MerchantAdded(merchant=merchant, title=title) for merchant, title in MERCHANTS.items()],
        [e.StoreOpened(store=store, merchant=of, title=title) for store, (of, title) in STORES.items()],
        enrolment,
        campaigns,
    ]


def _history(now_ms: int) -> list[Batch]:
    """One batch a store and hour: more at noon and in the evening, a tenth refused, a few reversed."""
    chance, head, batches = random.Random(7), EMPTY_HEAD, []
    serials = {1: iter(range(1, 6000)), 2: iter(range(1, 1500))}
    for hour in range(HOURS, 0, -1):
        at_ms = now_ms // HOUR_MS * HOUR_MS - hour * HOUR_MS + 60_000
        busy = 1.2 + math.cos((at_ms / HOUR_MS % 24 - 12) / 24 * math.tau) + 0.5 * math.cos(at_ms / HOUR_MS % 12)
        for at in range(len(STORES) - 1):
            rows, verdicts, extras = [], bytearray(), {}
            for _ in range(max(1, round(busy * chance.uniform(3, 9)))):
                campaign = 1 if chance.random() < 0.75 else 2
                serial, till = next(serials[campaign]), 1 + at * TILLS_PER_STORE + chance.randrange(2)
                claim, own_id = id16("claim", campaign, serial), id16("id", campaign, serial)
                rows.append(RECORD.pack(REDEEM, 0, 1, 0, campaign, serial, own_id, claim, till, at_ms, 4))
                verdicts.append(Verdict.ACCEPTED)
                if chance.random() < 0.10:
                    why = chance.choice([Verdict.ALREADY_REDEEMED, Verdict.ALREADY_REDEEMED, Verdict.NOT_ELIGIBLE])
                    other = id16("again", campaign, serial)
                    rows.append(RECORD.pack(REDEEM, 0, 1, 0, campaign, serial, other, other, till, at_ms, 4))
                    verdicts.append(why)
                if chance.random() < 0.03:
                    undo = id16("undo", campaign, serial)
                    extras[len(rows)] = Extra(target_id=own_id, reason="wrong table " + HOSTILE[:50])
                    rows.append(RECORD.pack(REVERSE, 0, 0, 0, campaign, serial, undo, claim, till, at_ms, 4))
                    verdicts.append(Verdict.ACCEPTED)
            payload = encode_records(rows, extras, received_ms=at_ms + at)
            batch = Batch(0, head.seq + 1, head.tip, id16("tip", head.seq), payload, bytes(verdicts))
            head = msgspec.structs.replace(head, seq=batch.seq, tip=batch.tip)
            batches.append(batch)
    return batches


class Viewer:
    """One who looks at the console over HTTP."""

    def __init__(self, site: Site, token: str) -> None:
        self.site, self.token, self.headers = site, token, {"Authorization": f"Bearer {token}"}

    async def get(self, path: str, code: int = 200) -> Any:
        async with self.site.session.get(f"{self.site.gateway.url}{path}", headers=self.headers) as response:
            assert response.status == code, await response.text()
            return await response.json()

    async def post(self, path: str, body: object, code: int = 200) -> Any:
        url = f"{self.site.gateway.url}{path}"
        async with self.site.session.post(url, json=body, headers=self.headers) as response:
            assert response.status == code, await response.text()
            return await response.json()

    @asynccontextmanager
    async def stream(self, query: str, last_id: str = "") -> AsyncIterator["EventStream"]:
        url = f"{self.site.gateway.url}/console/api/stream?{query}"
        headers = self.headers | ({"Last-Event-ID": last_id} if last_id else {})
        async with self.site.session.get(url, headers=headers) as response:
            assert response.status == 200, await response.text()
            assert response.headers["X-Accel-Buffering"] == "no"
            yield EventStream(response.content)


class EventStream:
    """Server-sent events, as a browser reads them."""

    def __init__(self, content: aiohttp.StreamReader) -> None:
        self.content = content
        self.last_id = ""

    async def next(self, kind: str, fits: Any = lambda body: True) -> Any:
        """The next event of a kind that fits."""
        async with asyncio.timeout(TELLS_S):
            while True:
                name, body = await self._event()
                if name == kind and fits(body):
                    return body

    async def _event(self) -> tuple[str, Any]:
        name, body = "", None
        while line := (await self.content.readline()).decode().rstrip("\n"):
            field, _, value = line.partition(": ")
            if field == "event":
                name = value
            elif field == "id":
                self.last_id = value
            elif field == "data":
                body = msgspec.json.decode(value)
        return name, body


class ConsoleWorld:
    """The running gateway, a viewer of every role, and codes that nobody has used."""

    def __init__(self, site: Site, viewers: dict[str, Viewer]) -> None:
        self.site, self.viewers = site, viewers
        self.url = f"{site.gateway.url}/console"

    def codes(self, slug: str, first: int, count: int) -> list[str]:
        number = list(ISSUED).index(slug) + 1
        return list(self.site.w.core.ring.mint(1, number, first, count))

    async def redeem(self, till: TillClient, codes: Sequence[str]) -> list[Verdict]:
        return [Verdict(code) for code in (await till.redeem(*map(self.scan, codes))).codes]

    def scan(self, code: str) -> Redeem:
        return self.site.w.scan(code)


@asynccontextmanager
async def console_world(directory: Path, **changes: Any) -> AsyncIterator[ConsoleWorld]:
    """A gateway with a past, and tokens for every role of the console."""
    await played(directory)
    async with AsyncExitStack() as stack:
        gateway = await stack.enter_async_context(running(config_for(directory, **changes)))
        site = Site(gateway, await stack.enter_async_context(aiohttp.ClientSession()))
        await site.w.ready()
        admin = Viewer(site, (directory / "secrets" / "admin.token").read_text().strip())
        viewers = {"admin": admin}
        for role, scope in ROLES.items():
            made = await admin.post("/v1/tokens", {"role": role, "scope": scope, "label": f"{role} {HOSTILE[:20]}"})
            viewers[role] = Viewer(site, made["token"])
        yield ConsoleWorld(site, viewers)
