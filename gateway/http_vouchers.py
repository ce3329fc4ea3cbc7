"""Single vouchers over HTTP: the life of one, and its end."""

from http import HTTPStatus

import msgspec
from aiohttp import web

from eventstore.vouchers import LOST, REDEEMED, REVERSED, TOMBSTONE, VOIDED, Entry
from gateway.campaign import CODE_KINDS, Campaign
from gateway.codes import CAMPAIGN_MAX, SERIAL_MAX, Refused
from gateway.core import Core
from gateway.desk import REASON_CHARS_MAX
from gateway.http_gate import Gate, Problem, absent, allowed, bad, json_response, unknown_yet
from gateway.messages import Verdict
from gateway.roles import Action

_KINDS = {REDEEMED: "redeemed", VOIDED: "voided", REVERSED: "reversed", TOMBSTONE: "tombstoned", LOST: "conflict"}


class VoucherNamed(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One of the two; a code stays out of the path, because paths are logged."""

    voucher_id: str | None = None
    code: str | None = None


class VoidRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """End one unredeemed voucher, named by its id or its code; `request_id` makes a repeat harmless."""

    reason: str
    request_id: str
    voucher_id: str | None = None
    code: str | None = None


class Deed(msgspec.Struct, frozen=True, omit_defaults=True):
    """Something that was done to a voucher."""

    kind: str  # redeemed | voided | reversed | tombstoned | conflict
    at_ms: int
    seq: int
    terminal: int = 0  # 0: no till
    store: str = ""


class ConflictSeen(msgspec.Struct, frozen=True):
    """An acceptance without a connection that lost the voucher, and the redemption that came before it."""

    redemption_id: str
    terminal: int
    store: str
    accepted_ms: int  # by the till's clock
    position: str
    first_kind: str  # redeemed | voided
    first_terminal: int
    first_store: str
    first_ms: int


class VoucherBody(msgspec.Struct, frozen=True, omit_defaults=True):
    """The life of one voucher: who holds it, and what was settled on it before."""

    voucher_id: str
    campaign: str
    kind: str  # signed | typed | foreign
    state: str  # unused | redeemed | voided | purged
    holder: Deed | None
    settled: list[Deed]
    conflicts: list[ConflictSeen] = []


class Voided(msgspec.Struct, frozen=True):
    """What came of it: `accepted` or `repeated`, or the verdict that says why not."""

    voucher_id: str
    verdict: str


_named = msgspec.json.Decoder(VoucherNamed)
_void = msgspec.json.Decoder(VoidRequest)


class Vouchers:
    """Routes under /v1/vouchers."""

    def __init__(self, core: Core, gate: Gate) -> None:
        self._core, self._gate = core, gate

    def routes(self) -> list[web.RouteDef]:
        """What to mount."""
        return [web.post("/v1/vouchers/show", self.show), web.post("/v1/vouchers/void", self.void)]

    async def show(self, request: web.Request) -> web.Response:
        """POST /v1/vouchers/show."""
        _, body = await self._gate.read(request, _named, Action.VOUCHER_READ)
        campaign, serial, kind = await self.named(body)
        state = await self._core.desk.voucher(campaign.number, serial)
        holder = self._deed(state.holder) if state.holder else None
        standing = "purged" if campaign.purged else holder.kind if holder else "unused"
        settled = [self._deed(entry) for entry in state.settled]
        voucher_id = f"{campaign.number}-{serial}"
        has_lost = campaign.purged or any(deed.kind == "conflict" for deed in settled)
        lost = self._conflicts(campaign.number, serial) if has_lost else []
        return json_response(VoucherBody(voucher_id, campaign.slug, kind, standing, holder, settled, lost))

    async def void(self, request: web.Request) -> web.Response:
        """POST /v1/vouchers/void: ends an unredeemed voucher; the same request may be repeated."""
        asker, body = await self._gate.read(request, _void, Action.VOUCHER_VOID)
        if not 1 <= len(body.reason) <= REASON_CHARS_MAX:
            raise bad("reason", f"must be 1 to {REASON_CHARS_MAX} characters")
        campaign, serial, _ = await self.named(VoucherNamed(body.voucher_id, body.code))
        desk = self._core.desk
        verdict = allowed(await desk.void(asker.actor, campaign.number, serial, body.reason, body.request_id))
        if verdict is Verdict.UNRESOLVED:
            raise unknown_yet("whether the voucher is voided is not known")
        return json_response(Voided(f"{campaign.number}-{serial}", verdict.name.lower()))

    async def named(self, named: VoucherNamed) -> tuple[Campaign, int, str]:
        """Campaign, serial and kind of code. Raises Problem."""
        if (named.voucher_id is None) == (named.code is None):
            raise bad("voucher_id", "give either the voucher_id or the code")
        number, serial = _parts_of(named.voucher_id) if named.voucher_id is not None else await self._spot(named.code)
        campaign = self._core.control.directory.campaigns.get(number)
        kinds = [kind for kind in CODE_KINDS if campaign is not None and campaign.issued(kind).holds(serial)]
        if campaign is None or not kinds:
            raise absent(f"voucher {number}-{serial}")
        return campaign, serial, kinds[0]

    async def _spot(self, code: str | None) -> tuple[int, int]:
        assert code is not None
        spot = await self._core.desk.identify(code)
        if spot is None:
            raise unknown_yet("which voucher this code names is not known")
        if not isinstance(spot, Refused):
            return spot.campaign, spot.serial
        if spot.verdict is Verdict.UNREADABLE:
            raise bad("code", spot.why)
        raise Problem(HTTPStatus.NOT_FOUND, "no voucher has this code", "code")

    def _conflicts(self, campaign: int, serial: int) -> list[ConflictSeen]:
        return [
            ConflictSeen(
                redemption_id=event.redemption_id.hex(),
                terminal=event.terminal,
                store=event.store,
                accepted_ms=event.accepted_ms,
                position=":".join(map(str, event.place)),
                first_kind=event.first_kind,
                first_terminal=event.first_terminal,
                first_store=event.first_store,
                first_ms=event.first_ms,
            )
            for event in self._core.control.directory.conflicts.values()
            if (event.campaign, event.serial) == (campaign, serial)
        ]

    def _deed(self, entry: Entry) -> Deed:
        terminal = self._core.control.directory.terminals.get(entry.terminal)
        store = terminal.store if terminal else ""
        return Deed(_KINDS[entry.kind], entry.at_ms, entry.seq, entry.terminal, store)


def _parts_of(voucher_id: str) -> tuple[int, int]:
    """Campaign and serial of `<campaign>-<serial>`. Raises Problem 400."""
    campaign, _, serial = voucher_id.partition("-")
    for digits, high in ((campaign, CAMPAIGN_MAX), (serial, SERIAL_MAX)):
        if not (digits.isascii() and digits.isdigit() and len(digits) <= 13 and int(digits) <= high):
            raise bad("voucher_id", "must be like 12-345: the campaign's number, a dash, the serial")
    return int(campaign), int(serial)
