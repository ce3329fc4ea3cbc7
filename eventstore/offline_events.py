"""What offline acceptance adds to the log: a campaign's policy, what a fact says of itself, and a conflict."""

import msgspec


class OfflinePolicy(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How much one terminal may accept without the gateway; any cap at 0 means none."""

    count_max: int
    value_minor_max: int
    minutes_max: int


class Acceptance(msgspec.Struct, frozen=True, array_like=True):
    """What a fact says of itself, and what of its campaign's offline policy it broke (words of gateway.offline_rules).

    A fact that broke something is logged and holds its voucher like any other; who pays for it is another question.
    """

    accepted_ms: int  # by the till, in the gateway's time as far as it could tell
    contact_ms: int  # when the till last heard of a gateway
    breaches: tuple[str, ...] = ()


class OfflineConflict(msgspec.Struct, frozen=True, tag_field="event", kw_only=True, tag="offline_conflict"):
    """A till accepted a voucher offline that somebody else holds: both scans, for the people who settle it."""

    campaign: int
    serial: int
    redemption_id: bytes  # of the acceptance that lost
    place: tuple[int, int, int]  # of its record: partition, seq, index
    terminal: int
    store: str
    accepted_ms: int  # by the till's clock
    first_kind: str  # redeemed | voided
    first_terminal: int  # 0: an operator
    first_store: str
    first_ms: int  # when its batch was made
    first_seq: int
