"""The wire contract between tills and the gateway: verdicts, stream messages, HTTP bodies. Imports nothing of ours.

Stream (`/v1/stream`, subprotocol `tillgate.v1`): every WebSocket message is one msgpack array whose first element is
the tag below (subprotocol `tillgate.v1.json`: the same as JSON text, bytes as base64). A till says `hello`, answers the
`challenge` with `proof`, gets `welcome`, and from then on sends `redeem` and `reverse` messages, each with a `ref` of
its own choosing, and gets one `verdicts` message with that `ref` back for each.
"""

import enum

import msgspec

SUBPROTOCOL = "tillgate.v1"
SUBPROTOCOL_JSON = "tillgate.v1.json"
CODE_CHARS_MAX = 4296  # what a version-40 QR can hold in alphanumeric mode (ISO/IEC 18004); more is line noise
REF_CHARS_MAX = 64  # a receipt or cashier number; longer ones are somebody's free text
SCANS_PER_MESSAGE_MAX = 256  # one message stays far below a batch, so that one till cannot crowd out others
ID_BYTES = 16
OFFLINE_CONTEXT = b"tillgate-offline-1\n"  # domain separation: an offline code's signature can mean nothing else


class Verdict(enum.IntEnum):
    """The answer to one scan. Order is precedence: of several true reasons the smallest is told. Never reuse a number.

    0-9 are outcomes that stand for ever; 10-199 are refusals that hold while their reason holds; 255 is no answer.
    """

    ACCEPTED = 0  # the op took effect: redeemed (or reversed, voided, imported: see the op)
    TOMBSTONED = 1  # a reversal overtook its redemption: nothing to undo, the late redemption will be refused
    REPEATED = 2  # the same id and body took effect before: the first answer again
    REVERSED = 3  # this redemption was reversed; it stays so
    CONFLICT = 4  # an offline acceptance lost to another redemption; beside a record as static verdict: it is a fact
    ID_REUSED = 5  # this redemption_id was used with another body, terminal or voucher: a fault in the till
    CONFLICT_AGAIN = 6  # the same offline acceptance again: it lost, and that stands (public word: conflict)
    TERMINAL_LOCKED = 10  # too many unknown or forged codes from this terminal
    UNREADABLE = 11  # not a code at all, or cut or mistyped: scan again
    UNKNOWN_CODE = 12  # no voucher has this code
    FORGED = 13  # signature does not match (public word: unknown_code)
    NOT_ISSUED = 14  # signed, but its serial was never issued (public word: unknown_code)
    VOIDED = 20
    ALREADY_REDEEMED = 21
    TOO_MANY_REVERSALS = 22  # ten settled ids on one voucher: the voucher is worn out
    NOT_ELIGIBLE = 30  # not valid in this store
    CLOSED = 31
    PAUSED = 32
    NOT_YET_VALID = 33
    EXPIRED = 34
    OUTSIDE_HOURS = 35
    NOT_FOUND = 40  # reversal: no such redemption
    NOT_YOURS = 41  # reversal: made at another terminal, and you are no supervisor
    WINDOW_OVER = 42  # reversal: too late
    DUPLICATE = 43  # import: this code already belongs to another campaign
    UNRESOLVED = 255  # nothing is known: ask again with the same id; never stored


SETTLED_MAX = 10
_PUBLIC = {
    Verdict.FORGED: Verdict.UNKNOWN_CODE,
    Verdict.NOT_ISSUED: Verdict.UNKNOWN_CODE,
    Verdict.REPEATED: Verdict.ACCEPTED,
    Verdict.TOMBSTONED: Verdict.REVERSED,
    Verdict.CONFLICT_AGAIN: Verdict.CONFLICT,
}
PUBLIC = tuple(_PUBLIC.get(Verdict(n), Verdict(n)) if n in Verdict._value2member_map_ else None for n in range(256))
"""What a till is told, by verdict byte: unknown, forged and never-issued look alike, repeats look like the first."""


class Redeem(msgspec.Struct, array_like=True, gc=False, frozen=True):
    """One scan to be redeemed.

    What `redemption_id` stands for is its voucher, its two references and the terminal: sent again with another of
    these it is refused as ID_REUSED. `scanned_ms` and `entry` are recorded, not compared; a retry may stamp them anew.
    """

    redemption_id: bytes  # 16 bytes, minted and journalled before the first send; the same on every retry
    code: str
    scanned_ms: int  # terminal's clock, UTC milliseconds
    entry: int = 1  # 1 scanned, 2 typed
    merchant_ref: str | None = None
    cashier_ref: str | None = None

    def __repr__(self) -> str:
        return f"Redeem({self.redemption_id.hex()})"  # the code is a bearer secret


class Reverse(msgspec.Struct, array_like=True, gc=False, frozen=True):
    """Undo one named redemption. `original` lets a reversal overtake it; a till always has it in its journal."""

    reversal_id: bytes
    redemption_id: bytes  # of the redemption to undo
    reversed_ms: int
    original: Redeem | None = None
    reason: str | None = None


class Fact(msgspec.Struct, array_like=True, gc=False, frozen=True):
    """A voucher that a till accepted without a connection. It has happened: the answer says what it came to."""

    redeem: Redeem  # as it would have been asked; its id stands for both
    accepted_ms: int  # by the gateway's clock, as far as the till could tell
    contact_ms: int  # when the till last heard of a gateway before that


class Hello(msgspec.Struct, array_like=True, tag="hello", frozen=True):
    terminal: int
    software: str
    takes_grants: bool = False  # this till can accept offline: it is to be told what it may, at once and on each change


class Challenge(msgspec.Struct, array_like=True, tag="challenge", frozen=True):
    """Sign `tillgate-hello-1\\n` + nonce with the device's Ed25519 key."""

    nonce: bytes


class Proof(msgspec.Struct, array_like=True, tag="proof", frozen=True):
    signature: bytes


class Welcome(msgspec.Struct, array_like=True, tag="welcome", frozen=True):
    store: str
    server_ms: int
    language: str  # en | zh: the store's default for cashier texts


class RedeemMany(msgspec.Struct, array_like=True, tag="redeem", gc=False, frozen=True):
    ref: int
    scans: list[Redeem]


class ReverseMany(msgspec.Struct, array_like=True, tag="reverse", gc=False, frozen=True):
    ref: int
    reversals: list[Reverse]


class FactMany(msgspec.Struct, array_like=True, tag="facts", gc=False, frozen=True):
    ref: int
    facts: list[Fact]


class Winner(msgspec.Struct, frozen=True):
    """The redemption that stands in the way (or stood before): where and when, terminal masked."""

    store: str
    terminal: str
    at_ms: int


class Detail(msgspec.Struct, array_like=True, frozen=True):
    """What is told beside a verdict's number."""

    winner: Winner | None = None
    note: str | None = None  # e.g. the next legal time, the place of a bad character
    offer: str | None = None  # of an accepted voucher: its campaign's title and value, for reading


class Place(msgspec.Struct, array_like=True, frozen=True):
    """A run of `count` answers whose records lie side by side in the log."""

    partition: int
    seq: int
    index: int
    count: int


class Verdicts(msgspec.Struct, array_like=True, tag="verdicts", frozen=True):
    """Answers in the order of the message they answer. `codes[i]` is a public Verdict byte.

    `places` are runs covering all scans in order (seq 0: no place, the answer is UNRESOLVED).
    """

    ref: int
    codes: bytes
    at_ms: int  # the gateway's clock when the batch was made
    places: list[Place]
    details: dict[int, Detail]


class Drain(msgspec.Struct, array_like=True, tag="drain", frozen=True):
    """The gateway is about to leave: reconnect (elsewhere) within `within_ms`."""

    within_ms: int


class Notice(msgspec.Struct, array_like=True, tag="notice", frozen=True):
    """Something a person should know; `code` is stable, `text` is for reading."""

    code: str
    text: str


class OfflineOffer(msgspec.Struct, array_like=True, frozen=True):
    """What a till may accept of one campaign while it has no connection. Spans are half-open."""

    campaign: int
    offer: str  # title and value, for reading
    value_minor: int
    currency: str
    opens: list[tuple[int, int]]  # UTC milliseconds between which it may be redeemed
    issued: list[tuple[int, int]]  # serials
    count_max: int  # accepted here and not settled, at any time
    value_minor_max: int
    minutes_max: int  # since the last contact


class Grant(msgspec.Struct, array_like=True, tag="grant", frozen=True):
    """Everything this till may accept offline. It takes the place of any earlier one; no offers: nothing any more."""

    server_ms: int
    until_ms: int  # by the gateway's clock; after it nothing may be accepted
    keys: dict[int, bytes]  # Ed25519 public keys of offline codes, by key id
    offers: list[OfflineOffer]


FromTill = Hello | Proof | RedeemMany | ReverseMany | FactMany
FromGateway = Challenge | Welcome | Verdicts | Drain | Notice | Grant

HELLO_CONTEXT = b"tillgate-hello-1\n"  # domain separation: this signature can mean nothing else


# --- HTTP bodies: the same facts under readable names ----------------------------------------------------------------


class RedemptionRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """POST /v1/redemptions. `redemption_id` is 32 hex digits (or a UUID with dashes)."""

    redemption_id: str
    code: str
    terminal: int = 0  # which of the merchant's terminals; a terminal-bound token needs none
    scanned_ms: int = 0
    typed: bool = False
    merchant_ref: str | None = None
    cashier_ref: str | None = None


class ReversalRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """POST /v1/redemptions/{id}/reversal."""

    reversal_id: str
    terminal: int = 0
    reversed_ms: int = 0
    reason: str | None = None
    original: RedemptionRequest | None = None


class Position(msgspec.Struct, frozen=True):
    partition: int
    seq: int
    index: int


class Answer(msgspec.Struct, frozen=True, omit_defaults=True):
    """What every redemption call returns, with HTTP 200: accepted, or exactly one reason why not."""

    redemption_id: str
    verdict: str  # lower-case name of the public Verdict
    retry: bool = False  # true: nothing is known, send the same again
    text_en: str = ""
    text_zh: str = ""
    at_ms: int = 0
    position: Position | None = None
    voucher_id: str | None = None
    campaign: str | None = None
    value_minor: int | None = None
    currency: str | None = None
    winner: Winner | None = None
    note: str | None = None
