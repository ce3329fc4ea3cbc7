"""Campaigns over HTTP: create, list, pause, resume, close, purge, and issue, import and fetch their codes."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import msgspec
from aiohttp import web

from eventstore import events as e
from eventstore.events import ControlEvent, Offer
from gateway.campaign import Campaign, Spans
from gateway.codes import SERIAL_MAX
from gateway.core import Core
from gateway.desk import IMPORT_CODES_MAX, Imported
from gateway.directory import Directory, Rejected
from gateway.http_gate import Gate, Problem, absent, allowed, bad, json_response, unknown_yet, whole_number
from gateway.keyfile import KeyFile
from gateway.messages import CODE_CHARS_MAX, Verdict
from gateway.offer_input import offer_from_mapping
from gateway.offline_rules import policy_of
from gateway.roles import ROLES, Action, Bound, Principal, may

OFFER_BYTES_MAX = 512 * 1024  # offer_rules.STORES_MAX names of 32 letters, quoted
IMPORT_BYTES_MAX = IMPORT_CODES_MAX * (6 * CODE_CHARS_MAX // 4)  # the longest codes, a quarter of their letters escaped
CODES_PER_CALL_MAX = 1_000_000  # 46 MB of text, ten seconds of minting
CODES_PER_CHUNK = 500  # about a millisecond of minting, then the tills have their turn


class NewCampaign(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A campaign to create. `offer` is written as in a campaign file: times as dates, values as amounts."""

    slug: str
    offer: dict[str, Any]  # as gateway.offer_input reads it


class NewIssue(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Signed vouchers to issue; the same `request_id` again answers with the same serials."""

    count: int
    request_id: str


class Issued(msgspec.Struct, frozen=True):
    """The run of serials that was issued."""

    first_serial: int
    count: int


class NewImport(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Codes of another maker; the same `request_id` may be sent again."""

    request_id: str
    codes: list[str]


class CampaignBody(msgspec.Struct, frozen=True):
    """A campaign as `asker` may see it."""

    campaign: int
    slug: str
    state: str  # open | paused | closed | purged
    closed_ms: int | None
    issued: dict[str, int]
    offer: Offer


class RejectedCode(msgspec.Struct, frozen=True):
    """A code that was not imported, by its place in the request; `reason` never holds the code."""

    index: int
    verdict: str
    reason: str


class ImportOutcome(msgspec.Struct, frozen=True):
    """How many codes are new, how many were imported before, and which were not taken."""

    accepted: int
    repeated: int
    rejected: list[RejectedCode]


_campaign = msgspec.json.Decoder(NewCampaign)
_issue = msgspec.json.Decoder(NewIssue)
_import = msgspec.json.Decoder(NewImport)
Route = Callable[[web.Request], Awaitable[web.Response]]


class Campaigns:
    """Routes under /v1/campaigns."""

    def __init__(self, core: Core, gate: Gate, keys: KeyFile) -> None:
        self._core, self._control, self._gate, self._keys = core, core.control, gate, keys

    def routes(self) -> list[web.RouteDef]:
        """What to mount."""
        one = "/v1/campaigns/{slug}"
        return [
            web.get("/v1/campaigns", self.list_campaigns),
            web.post("/v1/campaigns", self.create),
            web.get(one, self.show),
            web.post(f"{one}/pause", self._step(lambda number: e.CampaignPaused(campaign=number))),
            web.post(f"{one}/resume", self._step(lambda number: e.CampaignResumed(campaign=number))),
            web.post(f"{one}/close", self._step(lambda number: e.CampaignClosed(campaign=number))),
            web.post(f"{one}/purge", self.purge),
            web.post(f"{one}/issues", self.issue),
            web.get(f"{one}/codes", self.codes),
            web.post(f"{one}/imports", self.import_codes),
        ]

    # --- campaigns ---

    async def list_campaigns(self, request: web.Request) -> web.Response:
        principal = self._gate.asker(request, Action.CAMPAIGN_READ).principal
        directory = self._control.directory
        seen = [campaign for campaign in directory.campaigns.values() if _sees(principal, directory, campaign)]
        return json_response([_body_for(principal, directory, campaign) for campaign in seen])

    async def show(self, request: web.Request) -> web.Response:
        """GET /v1/campaigns/{slug}; the number does as well."""
        principal = self._gate.asker(request, Action.CAMPAIGN_READ).principal
        campaign = self._named(request)
        if not _sees(principal, self._control.directory, campaign):
            raise _no_campaign(request)
        return json_response(_body_for(principal, self._control.directory, campaign))

    async def create(self, request: web.Request) -> web.Response:
        """POST /v1/campaigns."""
        asker, body = await self._gate.read(request, _campaign, Action.CAMPAIGN_WRITE, OFFER_BYTES_MAX)
        offer = offer_from_mapping(body.offer)
        if isinstance(offer, Rejected):
            raise bad(f"offer.{offer.field}", offer.why)

        def make(directory: Directory, now_ms: int) -> list[ControlEvent]:
            return [e.CampaignCreated(campaign=directory.next_campaign_number(), slug=body.slug, offer=offer)]

        allowed(await self._control.record(asker.actor, make))
        return self._response(asker.principal, body.slug)

    def _step(self, event_of: Callable[[int], ControlEvent]) -> Route:
        async def step(request: web.Request) -> web.Response:
            asker = self._gate.asker(request, Action.CAMPAIGN_WRITE)
            campaign = self._named(request)
            event = event_of(campaign.number)
            allowed(await self._control.record(asker.actor, lambda directory, now_ms: [event]))
            return self._response(asker.principal, campaign.slug)

        return step

    async def purge(self, request: web.Request) -> web.Response:
        """POST /v1/campaigns/{slug}/purge: may be repeated, and frees what an earlier call left."""
        asker = self._gate.asker(request, Action.CAMPAIGN_WRITE)
        campaign = self._named(request)
        allowed(await self._core.desk.purge(asker.actor, campaign.slug))
        return self._response(asker.principal, campaign.slug)

    def _named(self, request: web.Request) -> Campaign:
        campaign = self._control.directory.campaign(request.match_info["slug"][:64])
        if campaign is None:
            raise _no_campaign(request)
        return campaign

    def _response(self, principal: Principal, slug: str) -> web.Response:
        directory = self._control.directory
        return json_response(_body_for(principal, directory, directory.campaigns[directory.numbers[slug]]))

    # --- codes ---

    async def issue(self, request: web.Request) -> web.Response:
        """POST /v1/campaigns/{slug}/issues: the same request_id again answers with the same serials."""
        asker, body = await self._gate.read(request, _issue, Action.VOUCHER_ISSUE)
        campaign = self._named(request)
        issued = allowed(await self._core.desk.issue(asker.actor, campaign.slug, body.count, body.request_id))
        return json_response(Issued(issued.first_serial, issued.count))

    async def codes(self, request: web.Request) -> web.StreamResponse:
        """GET /v1/campaigns/{slug}/codes?first=&count=: lines of `serial,code` of signed serials, derived anew."""
        self._gate.asker(request, Action.VOUCHER_ISSUE)
        campaign = self._named(request)
        first = whole_number(request, "first", 0, SERIAL_MAX, 1)
        count = whole_number(request, "count", 1, CODES_PER_CALL_MAX, 1)
        if not _holds_all(campaign.signed, first, count):
            raise absent(f"run of {count} signed codes from serial {first} on in {campaign.slug}")
        active = (await asyncio.to_thread(self._keys.load)).active
        response = web.StreamResponse(headers={"Content-Type": "text/plain; charset=us-ascii"})
        response.headers["Cache-Control"] = "no-store"  # codes are money
        await response.prepare(request)
        for start in range(first, first + count, CODES_PER_CHUNK):
            size = min(CODES_PER_CHUNK, first + count - start)
            minted: Iterable[str] = self._core.ring.mint(active, campaign.number, start, size)
            if policy_of(campaign) is not None:  # tills of this campaign check codes themselves when they must
                minted = await asyncio.to_thread(list, map(self._core.facts.keys.signed, minted))
            lines = "".join(f"{serial},{code}\n" for serial, code in enumerate(minted, start))
            await response.write(lines.encode())
            await asyncio.sleep(0)
        await response.write_eof()
        return response

    async def import_codes(self, request: web.Request) -> web.Response:
        """POST /v1/campaigns/{slug}/imports: codes of another maker; the same request may be repeated."""
        asker, body = await self._gate.read(request, _import, Action.VOUCHER_ISSUE, IMPORT_BYTES_MAX)
        campaign = self._named(request)
        came = allowed(await self._core.desk.import_codes(asker.actor, campaign.slug, body.codes, body.request_id))
        if any(one.verdict is Verdict.UNRESOLVED for one in came):
            raise unknown_yet("some of these codes may not be imported yet")
        return json_response(_summary(came))


def _summary(came: list[Imported]) -> ImportOutcome:
    good = (Verdict.ACCEPTED, Verdict.REPEATED)
    rejected = [RejectedCode(one.index, one.verdict.name.lower(), one.why) for one in came if one.verdict not in good]
    return ImportOutcome(
        accepted=sum(one.verdict is Verdict.ACCEPTED for one in came),
        repeated=sum(one.verdict is Verdict.REPEATED for one in came),
        rejected=rejected,
    )


def _holds_all(spans: Spans, first: int, count: int) -> bool:
    return any(start <= first and first + count <= end for start, end in zip(spans.starts, spans.ends, strict=True))


def _no_campaign(request: web.Request) -> Problem:
    return absent(f"campaign {request.match_info['slug'][:64]!r}")


def _sees(principal: Principal, directory: Directory, campaign: Campaign) -> bool:
    merchant = principal.scope if principal.scope in directory.merchants_of(campaign) else None
    return may(principal, Action.CAMPAIGN_READ, merchant=merchant, channel=campaign.offer.channel)


def _body_for(principal: Principal, directory: Directory, campaign: Campaign) -> CampaignBody:
    """A merchant sees of a campaign's stores its own, and not how much the others may sell."""
    offer, issued = campaign.offer, {}
    if ROLES[principal.role].bound is Bound.MERCHANT:
        own = tuple(store for store in offer.stores if directory.stores[store].merchant == principal.scope)
        offer = msgspec.structs.replace(offer, stores=own)
    else:
        issued = {kind: _size(campaign.issued(kind)) for kind in ("signed", "typed", "foreign")}
    return CampaignBody(campaign.number, campaign.slug, _state_of(campaign), campaign.closed_ms, issued, offer)


def _size(spans: Spans) -> int:
    return sum(spans.ends) - sum(spans.starts)


def _state_of(campaign: Campaign) -> str:
    if campaign.purged:
        return "purged"
    if campaign.closed_ms is not None:
        return "closed"
    return "paused" if campaign.paused else "open"
