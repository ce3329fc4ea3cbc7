"""What the control partition says so far: merchants, stores, campaigns, terminals, tokens, keys.

`Directory` is folded from control events and from nothing else. Folding never judges: an event in the log has
happened, whatever today's rules (`gateway.control_rules`, asked before an event is written) would say of it.
The values are frozen and replaced, never changed: what a lookup returned stays true of its moment, and a copy
is cheap.
"""

import copy
from typing import assert_never

import msgspec

from eventstore import events as e
from eventstore.events import Control, ControlEvent, VouchersIssued
from eventstore.offline_events import OfflineConflict
from gateway.campaign import Campaign, Outlet
from gateway.roles import Principal


class Rejected(msgspec.Struct, frozen=True):
    """A request that was not carried out: the field that is wrong, as the asker wrote it, and why."""

    field: str
    why: str


class Merchant(msgspec.Struct, frozen=True):
    merchant: str
    title: str
    alliances: frozenset[str] = frozenset()


class Store(msgspec.Struct, frozen=True):
    store: str
    merchant: str
    title: str


class Terminal(msgspec.Struct, frozen=True):
    """A till's device. It is enrolled once it has a public key (Ed25519, 32 bytes)."""

    number: int
    store: str
    label: str
    token_hash: bytes  # of its newest enrolment token; good once, before `token_expires_ms`
    token_expires_ms: int
    public_key: bytes | None = None
    revoked: bool = False
    locked_until_ms: int = 0


class Token(msgspec.Struct, frozen=True):
    """A bearer token. `scope`, by role: a merchant, a channel, a terminal's number in decimal, or empty."""

    token_id: str
    token_hash: bytes
    role: str
    scope: str
    label: str
    revoked: bool = False


class Directory(msgspec.Struct):
    """State as of control batch `control_seq` (0: nothing applied)."""

    control_seq: int = 0
    deployment: e.DeploymentInitialised | None = None
    merchants: dict[str, Merchant] = {}
    alliances: dict[str, frozenset[str]] = {}
    stores: dict[str, Store] = {}
    campaigns: dict[int, Campaign] = {}
    numbers: dict[str, int] = {}  # of campaigns, by slug
    issues: dict[tuple[int, str], VouchersIssued] = {}  # by campaign and request_id
    terminals: dict[int, Terminal] = {}
    enrolments: dict[bytes, int] = {}  # terminals that may still enrol, by token hash
    tokens: dict[bytes, Token] = {}  # by token hash
    token_hashes: dict[str, bytes] = {}  # by token_id
    live_keys: set[int] = set()
    retired_keys: set[int] = set()
    conflicts: dict[bytes, OfflineConflict] = {}  # by the redemption_id that lost; few, people look at each

    def apply(self, control: Control, seq: int, at_ms: int) -> None:
        """Fold control batch `seq`, written at `at_ms`. One that is already folded changes nothing."""
        if seq <= self.control_seq:
            return
        assert seq == self.control_seq + 1, f"control batch {seq} after {self.control_seq}"
        for event in control.events:
            self._fold(event, at_ms)
        self.control_seq = seq

    def copied(self) -> "Directory":
        """An independent directory with the same state, for trying events out."""
        twin = copy.copy(self)
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if isinstance(value, dict | set):
                setattr(twin, name, value.copy())
        return twin

    # --- lookups

    def campaign(self, reference: str) -> Campaign | None:
        """By slug, or by number in decimal (a slug is never all digits)."""
        number = int(reference) if reference.isascii() and reference.isdigit() else self.numbers.get(reference, 0)
        return self.campaigns.get(number)

    def outlet(self, store: str) -> Outlet:
        """What the rules need to know of a store, which must exist. True until the next control batch."""
        found = self.stores[store]
        return Outlet(store, found.merchant, self.merchants[found.merchant].alliances)

    def merchants_of(self, campaign: Campaign) -> frozenset[str]:
        """The merchants at whose stores the campaign may be redeemed: those it is visible to."""
        named = frozenset(self.stores[store].merchant for store in campaign.stores)
        return named | self.alliances.get(campaign.offer.alliance or "", frozenset())

    def issued_as(self, campaign: int, request_id: str) -> VouchersIssued | None:
        """The range an earlier request with this idempotency key got."""
        return self.issues.get((campaign, request_id))

    def enrolling(self, token_hash: bytes, now_ms: int) -> Terminal | None:
        """The terminal that may enrol with this token now."""
        terminal = self.terminals.get(self.enrolments.get(token_hash, 0))
        return terminal if terminal is not None and now_ms < terminal.token_expires_ms else None

    def principal_of_token(self, token_hash: bytes) -> Principal | None:
        """Who holds this bearer token; None if it is unknown or revoked, or its terminal is."""
        token = self.tokens.get(token_hash)
        if token is None or token.revoked:
            return None
        if token.role == "terminal":
            return self.principal_of_terminal(int(token.scope))
        return Principal(token.role, token.scope)

    def principal_of_terminal(self, number: int) -> Principal | None:
        """Terminal `number` as somebody who asks; None if it is unknown or revoked."""
        terminal = self.terminals.get(number)
        if terminal is None or terminal.revoked:
            return None
        return Principal("terminal", self.stores[terminal.store].merchant, number, terminal.store)

    def next_campaign_number(self) -> int:
        return max(self.campaigns, default=0) + 1

    def next_terminal_number(self) -> int:
        return max(self.terminals, default=0) + 1

    def next_serial(self, campaign: int) -> int:
        """The first serial never issued in a campaign, which must exist."""
        return self.campaigns[campaign].next_serial

    # --- folding

    def _fold(self, event: ControlEvent, at_ms: int) -> None:
        match event:
            case e.DeploymentInitialised():
                self.deployment = event
            case e.MerchantAdded(merchant=merchant):
                self.merchants[merchant] = Merchant(merchant, event.title)
            case e.AllianceDefined():
                self._alliance_defined(event)
            case e.StoreOpened(store=store):
                self.stores[store] = Store(store, event.merchant, event.title)
            case e.CampaignCreated() | e.CampaignPaused() | e.CampaignResumed():
                self._campaign_changed(event)
            case e.CampaignClosed(campaign=number):
                self._replace_campaign(number, closed_ms=at_ms)
            case e.CampaignPurged(campaign=number):
                self._replace_campaign(number, purged=True)
            case e.VouchersIssued():
                self._vouchers_issued(event)
            case e.TerminalOffered() | e.TerminalEnrolled() | e.TerminalRevoked():
                self._terminal_admitted(event)
            case e.TerminalLocked(terminal=number):
                self._replace_terminal(number, locked_until_ms=event.until_ms)
            case e.TerminalUnlocked(terminal=number):
                self._replace_terminal(number, locked_until_ms=0)
            case e.TokenCreated() | e.TokenRevoked():
                self._token_changed(event)
            case e.KeyAdded(key_id=key_id):
                self.live_keys.add(key_id)
            case e.KeyRetired(key_id=key_id):
                self.live_keys.remove(key_id)
                self.retired_keys.add(key_id)
            case e.IdReused():
                pass  # for the people who read the log; no answer depends on it
            case OfflineConflict():
                self.conflicts[event.redemption_id] = event
            case _:
                assert_never(event)

    def _alliance_defined(self, event: e.AllianceDefined) -> None:
        members = frozenset(event.merchants)
        for name in members ^ self.alliances.get(event.alliance, frozenset()):
            merchant = self.merchants[name]
            alliances = merchant.alliances ^ {event.alliance}
            self.merchants[name] = msgspec.structs.replace(merchant, alliances=alliances)
        self.alliances[event.alliance] = members

    def _campaign_changed(self, event: e.CampaignCreated | e.CampaignPaused | e.CampaignResumed) -> None:
        if not isinstance(event, e.CampaignCreated):
            self._replace_campaign(event.campaign, paused=isinstance(event, e.CampaignPaused))
            return
        number, slug, offer = event.campaign, event.slug, event.offer
        assert number not in self.campaigns
        assert slug not in self.numbers
        self.campaigns[number] = Campaign(number=number, slug=slug, offer=offer, stores=frozenset(offer.stores))
        self.numbers[slug] = number

    def _vouchers_issued(self, event: VouchersIssued) -> None:
        assert (event.campaign, event.request_id) not in self.issues
        campaign = self.campaigns[event.campaign]
        spans = campaign.issued(event.kind).joined(event.first_serial, event.count)
        after = max(campaign.next_serial, event.first_serial + event.count)
        self._replace_campaign(event.campaign, **{event.kind: spans}, next_serial=after)
        self.issues[event.campaign, event.request_id] = event

    def _terminal_admitted(self, event: e.TerminalOffered | e.TerminalEnrolled | e.TerminalRevoked) -> None:
        number = event.terminal
        if before := self.terminals.get(number):
            self.enrolments.pop(before.token_hash, None)
        match event:
            case e.TerminalOffered():
                self.terminals[number] = Terminal(number, event.store, event.label, event.token_hash, event.expires_ms)
                self.enrolments[event.token_hash] = number
            case e.TerminalEnrolled():
                self._replace_terminal(number, public_key=event.public_key)
            case e.TerminalRevoked():
                self._replace_terminal(number, revoked=True)

    def _token_changed(self, event: e.TokenCreated | e.TokenRevoked) -> None:
        if isinstance(event, e.TokenRevoked):
            token_hash = self.token_hashes[event.token_id]
            self.tokens[token_hash] = msgspec.structs.replace(self.tokens[token_hash], revoked=True)
            return
        token = Token(event.token_id, event.token_hash, event.role, event.scope, event.label)
        self.tokens[token.token_hash] = token
        self.token_hashes[token.token_id] = token.token_hash

    def _replace_campaign(self, number: int, **changes: object) -> None:
        self.campaigns[number] = msgspec.structs.replace(self.campaigns[number], **changes)

    def _replace_terminal(self, number: int, **changes: object) -> None:
        self.terminals[number] = msgspec.structs.replace(self.terminals[number], **changes)
