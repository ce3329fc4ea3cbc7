"""What happened, to the byte: packed records of voucher batches, and the events of the control partition.

A voucher batch's payload is a 16-byte header, then `count` records of exactly 64 bytes, then a msgpack map of what is
rare (`extras`, by record index). Records are fixed-size because the claim function in Valkey reads them in place, and
because a record costs one `struct` call to make. Refused scans are records too. The batch's verdict bytes, one a
record, say what came of each; a byte below `EFFECTS_END` changed state, any other changed nothing:

    0 APPLIED     the op took effect (redeemed, reversed, voided, imported)
    1 TOMBSTONED  a reversal came before its redemption: that redemption will be refused for ever

One byte above it leaves a mark: 4 CONFLICT. A REDEEM whose static verdict is that is a fact, accepted at a till with no
connection; with it as verdict it lost its voucher to another redemption, and its claim id is settled.

A record, big-endian (`RECORD`):

    off size field
      0    1 op             REDEEM REVERSE VOID IMPORT
      1    1 static verdict  what the gateway's rules said before the claim; 0 = nothing against it
      2    1 entry          how the code came in: 0 unknown, 1 scanned, 2 typed
      3    1 (zero)
      4    4 campaign       0 = the scan names no voucher
      8    8 serial         inside the campaign; without a voucher, 8 bytes of the code's keyed hash
     16   16 redemption_id  minted by the terminal; for REVERSE the reversal's own id; for IMPORT the code's keyed hash
     32   16 claim_id       digest of (terminal, redemption_id, body); for REVERSE that of the redemption it undoes
     48    4 terminal       number; 0 = an operator
     52    8 scanned_ms     the terminal's clock, recorded and never believed
     60    4 control_seq    control head the rules were applied at (low 32 bits)

Header (`HEADER`): format version, kind, 2 zero bytes, count u32, received_ms u64 (the gateway's clock).
"""

import struct
from collections.abc import Iterator, Sequence

import msgspec

from eventstore.offline_events import Acceptance, OfflineConflict, OfflinePolicy

BATCH_FORMAT = 1
HEADER = struct.Struct(">BBHIQ")
RECORD = struct.Struct(">BBBBIQ16s16sIQI")
HEADER_BYTES = HEADER.size
RECORD_BYTES = RECORD.size
KIND_VOUCHERS, KIND_CONTROL = 1, 2

REDEEM, REVERSE, VOID, IMPORT = 1, 2, 3, 4
APPLIED, TOMBSTONED, CONFLICT = 0, 1, 4
EFFECTS_END = 2
ENTRY_UNKNOWN, ENTRY_SCANNED, ENTRY_TYPED = 0, 1, 2
NO_ID = bytes(16)

assert (HEADER_BYTES, RECORD_BYTES) == (16, 64)


class BadPayload(ValueError):
    """A payload that is not a batch of this format; says what was wrong."""


class Extra(msgspec.Struct, frozen=True, array_like=True, omit_defaults=True):
    """What only some records carry. Four fields in the log unless it is a fact: a format's bytes never change."""

    merchant_ref: str | None = None  # the till's receipt number
    cashier_ref: str | None = None
    target_id: bytes | None = None  # REVERSE: the redemption_id it undoes
    reason: str | None = None  # REVERSE, VOID: why, in the asker's words
    offline: Acceptance | None = None  # REDEEM: it is a fact


class Record(msgspec.Struct, frozen=True, gc=False):
    """One unpacked record; see the module's table."""

    op: int
    static_verdict: int
    entry: int
    campaign: int
    serial: int
    redemption_id: bytes
    claim_id: bytes
    terminal: int
    scanned_ms: int
    control_seq: int


_encoder = msgspec.msgpack.Encoder()
_extras_decoder = msgspec.msgpack.Decoder(dict[int, Extra])


def encode_records(records: Sequence[bytes], extras: dict[int, Extra], *, received_ms: int) -> bytes:
    """Join packed records (`RECORD.pack`) into one payload."""
    head = HEADER.pack(BATCH_FORMAT, KIND_VOUCHERS, 0, len(records), received_ms)
    rare = {i: e if e.offline else (e.merchant_ref, e.cashier_ref, e.target_id, e.reason) for i, e in extras.items()}
    tail = _encoder.encode(rare) if rare else b""
    return b"".join((head, *records, tail))


def payload_head(payload: bytes) -> tuple[int, int, int]:
    """(kind, count, received_ms) of any payload. Raises BadPayload."""
    if len(payload) < HEADER_BYTES:
        raise BadPayload(f"payload of {len(payload)} bytes has no header")
    version, kind, _, count, received_ms = HEADER.unpack_from(payload)
    if version != BATCH_FORMAT:
        raise BadPayload(f"payload format {version}, this build reads {BATCH_FORMAT}")
    if kind not in (KIND_VOUCHERS, KIND_CONTROL):
        raise BadPayload(f"payload kind {kind} is unknown")
    if kind == KIND_VOUCHERS and len(payload) < HEADER_BYTES + count * RECORD_BYTES:
        raise BadPayload(f"payload cut short: {len(payload)} bytes for {count} records")
    return kind, count, received_ms


def records_head(payload: bytes) -> tuple[int, int]:
    """(count, received_ms) of a voucher payload. Raises BadPayload, also for any other kind."""
    kind, count, received_ms = payload_head(payload)
    if kind != KIND_VOUCHERS:
        raise BadPayload(f"payload kind {kind} holds no records")
    return count, received_ms


def iter_records(payload: bytes) -> Iterator[Record]:
    """The records of a voucher payload, in order. Raises BadPayload."""
    count, _ = records_head(payload)
    for op, static, entry, _, *rest in RECORD.iter_unpack(payload[HEADER_BYTES : HEADER_BYTES + count * RECORD_BYTES]):
        yield Record(op, static, entry, *rest)


def record_at(payload: bytes, index: int) -> Record:
    """One record by its index. Raises BadPayload."""
    count, _ = records_head(payload)
    if not 0 <= index < count:
        raise BadPayload(f"record {index} of {count}")
    op, static, entry, _, *rest = RECORD.unpack_from(payload, HEADER_BYTES + index * RECORD_BYTES)
    return Record(op, static, entry, *rest)


def extras_of(payload: bytes) -> dict[int, Extra]:
    """The extras of a voucher payload, by record index. Raises BadPayload."""
    count, _ = records_head(payload)
    tail = payload[HEADER_BYTES + count * RECORD_BYTES :]
    try:
        extras = _extras_decoder.decode(tail) if tail else {}
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadPayload(f"extras: {error}") from error
    if any(not 0 <= index < count for index in extras):
        raise BadPayload(f"extras of record {max(extras)} of {count}")
    return extras


class Hours(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Open hours in the campaign's time zone: ISO weekdays 1-7, minutes since midnight, half-open."""

    weekdays: tuple[int, ...]
    from_minute: int
    to_minute: int


class Offer(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a campaign promises, to whom, where and when. Rules on it live in gateway.campaign."""

    title: str
    kind: str  # prepaid | discount | gift
    value_minor: int  # minor units of `currency`; a gift may be 0
    currency: str  # ISO 4217, three letters
    starts_ms: int  # redeem window, half-open, UTC milliseconds
    ends_ms: int
    time_zone: str = "Asia/Shanghai"  # IANA name, for `hours`
    hours: tuple[Hours, ...] = ()  # empty: any time inside the window
    stores: tuple[str, ...] = ()  # eligible stores, and/or
    alliance: str | None = None  # every store of this alliance's merchants
    funder: str = ""
    channel: str = ""
    reversal_window_ms: int = 15 * 60_000
    dispute_ms: int = 90 * 86_400_000  # kept in Valkey this long after close, then purge is allowed
    offline: OfflinePolicy | None = None  # None: refuse when offline


class _Event(msgspec.Struct, frozen=True, tag_field="event", kw_only=True):
    pass


class DeploymentInitialised(_Event, frozen=True, kw_only=True, tag="deployment_initialised"):
    deployment_id: str
    partitions: int


class MerchantAdded(_Event, frozen=True, kw_only=True, tag="merchant_added"):
    merchant: str
    title: str


class AllianceDefined(_Event, frozen=True, kw_only=True, tag="alliance_defined"):
    """Defines or replaces the members of a named alliance."""

    alliance: str
    merchants: tuple[str, ...]


class StoreOpened(_Event, frozen=True, kw_only=True, tag="store_opened"):
    store: str
    merchant: str
    title: str


class CampaignCreated(_Event, frozen=True, kw_only=True, tag="campaign_created"):
    campaign: int  # number inside codes and records, 1 .. 2**32-1
    slug: str
    offer: Offer


class CampaignPaused(_Event, frozen=True, kw_only=True, tag="campaign_paused"):
    campaign: int


class CampaignResumed(_Event, frozen=True, kw_only=True, tag="campaign_resumed"):
    campaign: int


class CampaignClosed(_Event, frozen=True, kw_only=True, tag="campaign_closed"):
    campaign: int


class CampaignPurged(_Event, frozen=True, kw_only=True, tag="campaign_purged"):
    """Voucher state of this campaign is no longer kept; every scan of it is refused as closed."""

    campaign: int


class VouchersIssued(_Event, frozen=True, kw_only=True, tag="vouchers_issued"):
    """A serial range [first_serial, first_serial + count) of a campaign now exists."""

    campaign: int
    kind: str  # signed | typed | foreign
    first_serial: int
    count: int
    request_id: str  # the asker's idempotency key; the same key again issues nothing


class TerminalOffered(_Event, frozen=True, kw_only=True, tag="terminal_offered"):
    """An enrolment token (kept hashed) was handed out for a new terminal of a store."""

    terminal: int
    store: str
    label: str
    token_hash: bytes
    expires_ms: int


class TerminalEnrolled(_Event, frozen=True, kw_only=True, tag="terminal_enrolled"):
    terminal: int
    public_key: bytes  # Ed25519, 32 bytes


class TerminalRevoked(_Event, frozen=True, kw_only=True, tag="terminal_revoked"):
    terminal: int


class TerminalLocked(_Event, frozen=True, kw_only=True, tag="terminal_locked"):
    """Too many unknown or forged codes; soft, ends by itself at `until_ms`."""

    terminal: int
    until_ms: int


class TerminalUnlocked(_Event, frozen=True, kw_only=True, tag="terminal_unlocked"):
    terminal: int


class TokenCreated(_Event, frozen=True, kw_only=True, tag="token_created"):
    """A bearer token of a role; only its hash is kept. `scope` is what it may see: merchant, channel, or empty."""

    token_id: str
    token_hash: bytes
    role: str
    scope: str
    label: str


class TokenRevoked(_Event, frozen=True, kw_only=True, tag="token_revoked"):
    token_id: str


class KeyAdded(_Event, frozen=True, kw_only=True, tag="key_added"):
    """A code-signing key id came into use; the key itself is in the key file only."""

    key_id: int


class KeyRetired(_Event, frozen=True, kw_only=True, tag="key_retired"):
    key_id: int


class IdReused(_Event, frozen=True, kw_only=True, tag="id_reused"):
    """One redemption_id took effect on two vouchers; both places are named (partition, seq, index)."""

    redemption_id: bytes
    first: tuple[int, int, int]
    second: tuple[int, int, int]


ControlEvent = (
    DeploymentInitialised
    | MerchantAdded
    | AllianceDefined
    | StoreOpened
    | CampaignCreated
    | CampaignPaused
    | CampaignResumed
    | CampaignClosed
    | CampaignPurged
    | VouchersIssued
    | TerminalOffered
    | TerminalEnrolled
    | TerminalRevoked
    | TerminalLocked
    | TerminalUnlocked
    | TokenCreated
    | TokenRevoked
    | KeyAdded
    | KeyRetired
    | IdReused
    | OfflineConflict
)


class Control(msgspec.Struct, frozen=True, array_like=True):
    """The body of a control payload: who said it, and what."""

    actor: str
    events: tuple[ControlEvent, ...]


_control_decoder = msgspec.msgpack.Decoder(Control)


def encode_control(control: Control, *, at_ms: int) -> bytes:
    """A control payload: the common header (count = number of events), then msgpack."""
    head = HEADER.pack(BATCH_FORMAT, KIND_CONTROL, 0, len(control.events), at_ms)
    return head + _encoder.encode(control)


def decode_control(payload: bytes) -> Control:
    """The body of a control payload. Raises BadPayload."""
    kind, count, _ = payload_head(payload)
    if kind != KIND_CONTROL:
        raise BadPayload(f"payload kind {kind} holds no control events")
    try:
        control = _control_decoder.decode(payload[HEADER_BYTES:])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadPayload(f"control event: {error}") from error
    if len(control.events) != count:
        raise BadPayload(f"header says {count} control events, the body holds {len(control.events)}")
    return control
