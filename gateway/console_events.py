"""Records of the log as the console shows them: whole for a page, filtered and sampled for the live tail. Pure."""

import struct
from collections.abc import Iterator, Mapping, Sequence

import msgspec

from eventstore import events as e
from eventstore.events import (
    ControlEvent,
    Extra,
    Record,
    decode_control,
    extras_of,
    iter_records,
    payload_head,
    record_at,
)
from eventstore.log import CONTROL, Batch
from eventstore.outcomes import Scan, counted
from eventstore.vouchers import records_view
from gateway.console_bodies import Event, Tail
from gateway.console_scope import View
from gateway.messages import PUBLIC, Verdict

TAIL_EVENTS_MAX = 12  # a tick: with four ticks a second more than anyone can read
LOOKED_AT_MAX = 4096  # records a tick looks at for one set of filters: 3 ms; the rest is counted as left out
OPS = {e.REDEEM: "redeem", e.REVERSE: "reverse", e.VOID: "void", e.IMPORT: "import"}
NOT_REFUSED = ("accepted", "tombstoned", "repeated")
_CELL = struct.Struct(">B3xI40xI12x")  # op, campaign, terminal: see events.RECORD
_HIDDEN = ("token_hash", "public_key", "offer", "redemption_id", "first", "second")


class Filters(msgspec.Struct, frozen=True):
    """What a viewer wants of the tail; empty: anything."""

    op: str = ""  # redeem | reverse | void | import | control
    verdict: str = ""  # its name, or `refused` for all refusals
    store: str = ""
    campaign: str = ""


def is_control(filters: Filters) -> bool:
    """Whether control events fit."""
    return filters.op in ("", "control") and not (filters.verdict or filters.store or filters.campaign)


def event_of(view: View, batch: Batch, index: int, record: Record, at_ms: int, extra: Extra) -> Event:
    """One record. A view that may not read the log is told public reasons only."""
    directory, verdict = view.directory, told_as(view, batch.verdicts[index])
    campaign, terminal = directory.campaigns.get(record.campaign), directory.terminals.get(record.terminal)
    return Event(
        position=f"{batch.partition}:{batch.seq}:{index}",
        at_ms=at_ms,
        op=OPS.get(record.op, str(record.op)),
        verdict=verdict,
        campaign=campaign.slug if campaign else "",
        voucher_id=f"{record.campaign}-{record.serial}" if record.campaign else "",
        store=terminal.store if terminal else "",
        terminal=record.terminal,
        redemption_id=record.redemption_id.hex() if record.op in (e.REDEEM, e.REVERSE) else "",
        reason=extra.reason or _offline_reason(extra),
        said=extra.cashier_ref or "" if record.op == e.VOID else "",
    )


def _offline_reason(extra: Extra) -> str:
    """That a redemption was accepted at its till without a connection, and what of the campaign's rules it broke."""
    if extra.offline is None:
        return ""
    return "accepted offline" + "".join(f", {breach}" for breach in extra.offline.breaches)


def events_of(view: View, batch: Batch) -> Iterator[Event]:
    """Every event of a batch that the view sees. Raises BadPayload."""
    if batch.partition == CONTROL:
        yield from control_events(batch)
        return
    _, _, at_ms = payload_head(batch.payload)
    extras = extras_of(batch.payload)
    for index, record in enumerate(iter_records(batch.payload)):
        event = event_of(view, batch, index, record, at_ms, extras.get(index, Extra()))
        if view.sees_cell(event.store, record.campaign):
            yield event


def control_events(batch: Batch) -> Iterator[Event]:
    """The events of a control batch: their names, who, and what they are about; no hash, no key. Raises BadPayload."""
    _, _, at_ms = payload_head(batch.payload)
    control = decode_control(batch.payload)
    for index, event in enumerate(control.events):
        yield Event(
            position=f"control:{batch.seq}:{index}",
            at_ms=at_ms,
            op=str(event.__struct_config__.tag),
            verdict="",
            campaign="",
            voucher_id="",
            store="",
            terminal=0,
            redemption_id="",
            reason="",
            said=f"{control.actor}: {_about(event)}",
        )


def _about(event: ControlEvent) -> str:
    fields: Mapping[str, object] = msgspec.structs.asdict(event)
    said = [f"{name} {_shown(value)}" for name, value in fields.items() if name not in _HIDDEN]
    if isinstance(event, e.CampaignCreated):
        said.append(f"title {event.offer.title}")
    return ", ".join(said)


def _shown(value: object) -> str:
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def told_as(view: View, byte: int) -> str:
    """A verdict's name; for those who may not read the log, the public one."""
    verdict = Verdict(byte) if view.reads_log or byte < e.EFFECTS_END else PUBLIC[byte]
    return verdict.name.lower() if verdict is not None else str(byte)


def tail_of(view: View, filters: Filters, batches: Sequence[Batch]) -> Tail:
    """The newest events that fit, and how many are left out. Records beyond LOOKED_AT_MAX are left out unseen.

    Raises BadPayload.
    """
    shown: list[Event] = []
    left_out = looked_at = 0
    fits: dict[Scan, bool] = {}  # records of one till and campaign with one outcome are judged once
    for batch in reversed(batches):
        _, count, at_ms = payload_head(batch.payload)
        room = TAIL_EVENTS_MAX - len(shown)
        if batch.partition == CONTROL:
            told = list(control_events(batch)) if view.reads_log and is_control(filters) else []
            shown, left_out = told[-room:] * bool(room) + shown, left_out + max(0, len(told) - room)
        elif looked_at + count > LOOKED_AT_MAX and looked_at:
            left_out += count
        else:
            looked_at += count
            fitting = _fitting(view, filters, batch, count, fits)
            left_out += max(0, len(fitting) - room)
            chosen = fitting[-room:] if room else []
            extras = extras_of(batch.payload) if chosen else {}
            records = [(index, record_at(batch.payload, index)) for index in chosen]
            told = [event_of(view, batch, at, record, at_ms, extras.get(at, Extra())) for at, record in records]
            shown = told + shown
    return Tail(sorted(shown, key=lambda event: event.at_ms), left_out)


def _fitting(view: View, filters: Filters, batch: Batch, count: int, fits: dict[Scan, bool]) -> Sequence[int]:
    if view.sees_all and filters == Filters():
        return range(count)
    for key in counted(batch, count).keys() - fits.keys():
        fits[key] = _fits(view, filters, key)
    rows = zip(_CELL.iter_unpack(records_view(batch.payload, count)), batch.verdicts, strict=True)
    return [index for index, (cell, byte) in enumerate(rows) if fits[(*cell, byte)]]


def _fits(view: View, filters: Filters, key: Scan) -> bool:
    op, number, terminal, byte = key
    directory = view.directory
    till, campaign = directory.terminals.get(terminal), directory.campaigns.get(number)
    store, slug, verdict = till.store if till else "", campaign.slug if campaign else "", told_as(view, byte)
    return (
        view.sees_cell(store, number)
        and filters.op in ("", OPS.get(op))
        and filters.store in ("", store)
        and filters.campaign in ("", slug)
        and (filters.verdict in ("", verdict) or (filters.verdict == "refused" and verdict not in NOT_REFUSED))
    )
