"""What a run's journals are compared with, as plain values: gateway.load_evidence takes them from log and Valkey."""

from typing import NamedTuple

import msgspec

CONTROL = 0xFFFF  # the partition of control events; all others hold vouchers


class Stored(NamedTuple):
    """One batch as the log's storage holds it."""

    partition: int
    seq: int
    prev: bytes
    tip: bytes
    payload: bytes
    verdicts: bytes
    crc: int | None  # None: whoever read it has checked it


class Campaign(msgspec.Struct):
    """What the control events say of one campaign."""

    starts_ms: int
    ends_ms: int  # half-open
    issued: list[tuple[int, int]]  # serials: first, count
    closed: bool = False
    purged: bool = False  # its vouchers are no longer kept in Valkey


class Control(msgspec.Struct):
    """What the control events say."""

    campaigns: dict[int, Campaign]
    stores: dict[int, str]  # of terminals, by number


class Totals(msgspec.Struct, frozen=True):
    """What one gateway has counted: attempts by (store, campaign, op, verdict byte), under "" those of all stores."""

    where: str
    counted: dict[int, int]  # partition to the last batch that is among them
    cells: dict[tuple[str, int, int, int], int]


class Indexed(NamedTuple):
    """One row of a gateway's index of redemption ids: where the id took effect, else where it was first refused."""

    redemption_id: bytes
    partition: int
    seq: int
    within: int  # the batch
    is_refused: bool


class Held(NamedTuple):
    """One field of one hash in Valkey."""

    key: bytes
    field: bytes
    value: bytes


class Answered(msgspec.Struct, frozen=True):
    """What a running gateway says of one id: two answers in a row, None where it knows none."""

    redemption_id: bytes
    first: bytes | None
    second: bytes | None


class Judgement(msgspec.Struct, frozen=True):
    """One invariant."""

    name: str  # L1 ... L10
    says: str  # what must hold
    holds: bool | None  # None: it cannot be told, and `why` says why
    compared: dict[str, int]
    broken: int = 0  # in how many places it does not hold
    counterexample: str = ""  # the first of them
    why: str = ""  # where it holds: what was left out
