"""What the console's own endpoints answer and what its one event stream carries: the contract with its front end.

    GET  /console                         the page itself; everything it loads lies under /console/static/<hash>/
    GET  /console/api/me                  Me: who asks, and which screens and deeds are theirs
    GET  /console/api/now                 Now, with the last SECONDS_KEPT seconds
    GET  /console/api/stores              [StoreRow]
    GET  /console/api/stores/{store}      StoreLife: its tills, and its hours (?hours=)
    GET  /console/api/campaigns           [CampaignRow]
    GET  /console/api/campaigns/{slug}    CampaignLife: funnel, hours (?hours=), forecast
    POST /console/api/vouchers            {voucher_id | code | redemption_id} -> VoucherLife
    POST /console/api/vouchers/attempts   {voucher_id, before_seq} -> Attempts: refused scans found in the log
    GET  /console/api/log/{partition}/{seq}   Page: one batch of the log
    GET  /console/api/system              System
    GET  /console/api/load                [Load], the last minutes
    GET  /console/api/stream              text/event-stream; ?topics=now,stores,campaigns,load,tail&op=&verdict=&...

All but the page and its files need `Authorization: Bearer tg_...`. What changes something (void, reverse) is asked of
/v1 like by anyone else. Each event of the stream has as its `id` the position up to which the log was counted
(`0:17,1:4,control:9`); a client that comes back with it in `Last-Event-ID` is told the tail from there on, or how much
of it is left out. Events: `hello` {role}, `now` Now, `stores` [StoreRow], `campaigns` [CampaignRow], `load` Load,
`tail` Tail, `lost` Lost, `bye` {why}. Rows are absolute, so a lost frame is made good by the next one.
"""

import msgspec


class Body(msgspec.Struct, frozen=True, omit_defaults=False):
    """A JSON object of the console."""


class Me(Body, frozen=True):
    actor: str
    role: str
    scope: str
    screens: list[str]  # now stores campaigns vouchers events system load
    deeds: list[str]  # void reverse
    version: str
    deployment: str
    live_since_ms: int  # when this gateway began to count seconds


class Second(msgspec.Struct, frozen=True, array_like=True):
    """One second of scans as the log has them; latencies (ms) as this gateway answered, 0 without any."""

    at_s: int
    redeemed: int
    refused: int
    reversed: int
    p50_ms: float
    p99_ms: float


class Share(Body, frozen=True):
    """An objective: the share of good answers there must be, and how much of what may go wrong is left."""

    name: str  # availability | fast
    objective: float
    answers: int  # counted since this gateway started
    bad: int
    left: float | None  # 1: nothing went wrong; 0: used up; below: overspent; None: too few answers to tell


class Now(Body, frozen=True):
    at_ms: int
    ready: bool
    troubles: list[str]  # only for those who may read the log; others are told `ready`
    seconds: list[Second]  # newest last; the last one may still grow
    mix: dict[str, int]  # outcome and reason -> scans of the last minute
    tills: int
    unresolved: int  # answers of the last minute that said: ask again
    shares: list[Share]
    draining: bool
    behind: int  # batches that are in the log and not counted yet


class StoreRow(Body, frozen=True):
    store: str
    title: str
    merchant: str
    tills: int  # connected
    enrolled: int
    last_ms: int  # newest scan, 0: none yet
    per_minute: int  # scans of the last minute
    day: int  # scans of the last 24 hours, by whole hours
    day_refused: int
    locked: int  # tills that are locked now


class TillRow(Body, frozen=True):
    terminal: int
    label: str
    state: str  # offered | enrolled | locked | revoked
    connected: bool
    last_ms: int
    redeemed: int
    refused: int
    reversed: int


class Hour(msgspec.Struct, frozen=True, array_like=True):
    at_ms: int  # its beginning
    redeemed: int
    refused: int
    reversed: int
    voided: int


class StoreLife(Body, frozen=True):
    row: StoreRow
    tills: list[TillRow]
    hours: list[Hour]
    reasons: dict[str, int]  # why scans were refused, in these hours


class CampaignRow(Body, frozen=True):
    campaign: int
    slug: str
    title: str
    state: str  # open | paused | closed | purged | not_yet | over
    starts_ms: int
    ends_ms: int
    value_minor: int
    currency: str
    issued: int | None  # None: not for the asker to know
    redeemed: int  # first effects; those reversed later are still among them
    reversed: int
    voided: int
    refused: int


class Forecast(Body, frozen=True):
    """Where the campaign will end at the pace of its last day, beside an even pace towards everything issued."""

    pace_per_hour: float
    by_end: int
    even_now: int
    sold_out_ms: int | None


class CampaignLife(Body, frozen=True):
    row: CampaignRow
    hours: list[Hour]
    reasons: dict[str, int]
    forecast: Forecast | None  # None: not open, or not for the asker to know
    stores: list[tuple[str, int]]  # redeemed by store, most first


class Event(Body, frozen=True):
    """One record of the log, or one control event (`op` is its name, `verdict` empty)."""

    position: str  # partition:seq:index
    at_ms: int
    op: str
    verdict: str
    campaign: str
    voucher_id: str
    store: str
    terminal: int
    redemption_id: str
    reason: str
    said: str  # control: who, and of what


class VoucherLife(Body, frozen=True):
    voucher_id: str
    campaign: str
    kind: str
    state: str  # unused | redeemed | voided | purged
    issued_by: str  # the request it was issued with
    events: list[Event]  # what took effect, oldest first
    may_void: bool
    reversible_id: str  # redemption to reverse, if the asker may and its window is open; else empty
    reversible_until_ms: int
    head_seq: int
    partition: int


class Attempts(Body, frozen=True):
    """Records naming this voucher, found by looking through the log backwards."""

    events: list[Event]
    from_seq: int  # looked through from here ...
    to_seq: int  # ... up to here
    since_ms: int  # when batch from_seq was made


class Page(Body, frozen=True):
    partition: str
    seq: int
    head_seq: int
    at_ms: int
    tip: str
    prev: str
    events: list[Event]
    left_out: int


class Tail(Body, frozen=True):
    events: list[Event]
    left_out: int  # events that fit the filters (or were not looked at) and are not among these


class Lost(Body, frozen=True):
    """What this viewer was not told: it was away, or too slow to read."""

    frames: int
    events: int  # of the tail, in those frames
    batches: int  # of the log, while it was away


class Load(Body, frozen=True):
    """This gateway's own second, for a load test."""

    at_s: int
    asked: int  # answered, told to ask again, or turned away
    durable: int
    unresolved: int
    shed: int
    in_flight: int
    p50_ms: float
    p99_ms: float
    lag_p99_ms: float
    commit_p99_ms: float
    per_batch: float
    cpu: float  # cores this gateway used


class PartitionRow(Body, frozen=True):
    partition: str
    state: str
    why: str
    seq: int
    indexed: int
    counted: int


class System(Body, frozen=True):
    version: str
    python: str
    pid: int
    started_ms: int
    draining: bool
    troubles: list[str]
    partitions: list[PartitionRow]
    log_bytes: int
    disk_free_bytes: int
    disk_bytes: int
    lag_p99_ms: float
    tills: int
    viewers: int
    memory_bytes: int
    valkey: object  # gateway.sampler.ValkeySeen, or None: it does not answer
    valkey_restarts: int
    config: dict[str, str]
    runbooks: list[str]
    counting: str  # empty, or why the console's counts stand still
