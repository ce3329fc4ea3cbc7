"""The codec of payloads. The golden files hold format 1 for ever: a changed byte is a new format, never an edit."""

import contextlib
from pathlib import Path
from typing import get_args

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventstore import events as e
from eventstore.log import CONTROL, Batch, batch_crc
from eventstore.offline_events import Acceptance, OfflineConflict

GOLDEN = Path(__file__).parent.parent / "golden"
AT_MS = 1_700_000_000_000
ID, CLAIM = bytes(range(16)), bytes(range(16, 32))
ACCEPTED = Acceptance(AT_MS - 5000, AT_MS - 65_000, ("beyond_count",))
FACTS = {0: e.Extra(offline=Acceptance(AT_MS - 5000, AT_MS - 65_000)), 1: e.Extra("R-17", offline=ACCEPTED)}
EXTRAS = {0: e.Extra("R-17", "Anna"), 2: e.Extra(target_id=ID, reason="wrong item scanned")}


def golden(name: str) -> bytes:
    return bytes.fromhex((GOLDEN / f"{name}.hex").read_text())


def packed(op: int, static: int = 0) -> bytes:
    return e.RECORD.pack(op, static, 1, 0, 7, 300, ID, CLAIM, 12, AT_MS - 5, 99)


OFFER = e.Offer(title="50 元", kind="prepaid", value_minor=5000, currency="CNY", starts_ms=1, ends_ms=2)
FULL_OFFER = e.Offer(
    title="Tea",
    kind="discount",
    value_minor=1,
    currency="EUR",
    starts_ms=AT_MS,
    ends_ms=AT_MS + 1,
    time_zone="Europe/Paris",
    hours=(e.Hours((1, 7), 540, 1080),),
    stores=("s-1", "s-2"),
    alliance="old-town",
    funder="bank",
    channel="app",
    reversal_window_ms=1,
    dispute_ms=2,
    offline=e.OfflinePolicy(3, 4, 5),
)
CONTROL_EVENTS: tuple[e.ControlEvent, ...] = (
    e.DeploymentInitialised(deployment_id="d-1", partitions=1),
    e.MerchantAdded(merchant="tea", title="Tea House"),
    e.AllianceDefined(alliance="old-town", merchants=("tea", "books")),
    e.StoreOpened(store="s-1", merchant="tea", title="Main Street"),
    e.CampaignCreated(campaign=7, slug="spring", offer=OFFER),
    e.CampaignCreated(campaign=8, slug="autumn", offer=FULL_OFFER),
    e.CampaignPaused(campaign=7),
    e.CampaignResumed(campaign=7),
    e.CampaignClosed(campaign=7),
    e.CampaignPurged(campaign=7),
    e.VouchersIssued(campaign=7, kind="signed", first_serial=1, count=1 << 33, request_id="r-1"),
    e.TerminalOffered(terminal=12, store="s-1", label="till 1", token_hash=ID, expires_ms=AT_MS),
    e.TerminalEnrolled(terminal=12, public_key=bytes(range(32))),
    e.TerminalRevoked(terminal=12),
    e.TerminalLocked(terminal=12, until_ms=AT_MS),
    e.TerminalUnlocked(terminal=12),
    e.TokenCreated(token_id="t-1", token_hash=ID, role="merchant", scope="tea", label="back office"),
    e.TokenRevoked(token_id="t-1"),
    e.KeyAdded(key_id=1),
    e.KeyRetired(key_id=1),
    e.IdReused(redemption_id=ID, first=(0, 1, 2), second=(3, 4, 5)),
    OfflineConflict(
        campaign=7,
        serial=300,
        redemption_id=ID,
        place=(0, 12, 3),
        terminal=12,
        store="s1",
        accepted_ms=AT_MS - 5,
        first_kind="redeemed",
        first_terminal=9,
        first_store="s2",
        first_ms=AT_MS - 9,
        first_seq=11,
    ),
)
PAYLOADS = {
    "vouchers_1_redeem": e.encode_records([packed(e.REDEEM)], {}, received_ms=AT_MS),
    "vouchers_1_reverse": e.encode_records([packed(e.REVERSE)], {}, received_ms=AT_MS),
    "vouchers_1_void": e.encode_records([packed(e.VOID)], {}, received_ms=AT_MS),
    "vouchers_1_import": e.encode_records([packed(e.IMPORT)], {}, received_ms=AT_MS),
    "vouchers_1_refused": e.encode_records([packed(e.REDEEM, 34)], {}, received_ms=AT_MS),
    "vouchers_1_extras": e.encode_records([packed(e.REDEEM)] * 3, EXTRAS, received_ms=AT_MS),
    "vouchers_1_facts": e.encode_records([packed(e.REDEEM, e.CONFLICT)] * 2, FACTS, received_ms=AT_MS),
    "vouchers_1_empty": e.encode_records([], {}, received_ms=AT_MS),
}
CONTROL_PAYLOADS = {
    f"control_1_{number:02d}_{msgspec.inspect.type_info(type(event)).tag}": event  # type: ignore[attr-defined]
    for number, event in enumerate(CONTROL_EVENTS)
}


@pytest.mark.parametrize("name", PAYLOADS)
def test_voucher_payloads_never_change(name: str) -> None:
    assert PAYLOADS[name] == golden(name)


@pytest.mark.parametrize("name", CONTROL_PAYLOADS)
def test_control_payloads_never_change(name: str) -> None:
    control = e.Control("ann", (CONTROL_PAYLOADS[name],))
    assert e.encode_control(control, at_ms=AT_MS) == golden(name)
    assert e.decode_control(golden(name)) == control


def test_every_control_event_has_a_golden_file() -> None:
    assert {type(event) for event in CONTROL_EVENTS} == set(get_args(e.ControlEvent))
    held = {path.stem for kind in ("vouchers", "control") for path in GOLDEN.glob(f"{kind}_1_*.hex")}
    assert held == {*PAYLOADS, *CONTROL_PAYLOADS}


def test_the_checksum_never_changes() -> None:
    batch = Batch(CONTROL, 3, ID, CLAIM, golden("vouchers_1_extras"), bytes((0, 21, 1)))
    assert batch_crc(batch) == int(golden("batch_crc").hex(), 16)


@pytest.mark.parametrize("field", ("partition", "seq", "prev", "tip", "payload", "verdicts"))
def test_the_checksum_covers_every_field(field: str) -> None:
    batch = Batch(1, 3, ID, CLAIM, b"payload", b"\0")
    others = {"partition": 2, "seq": 4, "prev": CLAIM, "tip": ID, "payload": b"paylpad", "verdicts": b"\1"}
    assert batch_crc(msgspec.structs.replace(batch, **{field: others[field]})) != batch_crc(batch)


def test_records_are_read_as_they_were_packed() -> None:
    payload = golden("vouchers_1_extras")
    record = e.Record(e.REDEEM, 0, 1, 7, 300, ID, CLAIM, 12, AT_MS - 5, 99)
    assert list(e.iter_records(payload)) == [record] * 3
    assert e.record_at(payload, 2) == record
    assert e.extras_of(payload) == EXTRAS
    assert e.extras_of(golden("vouchers_1_redeem")) == {}
    assert e.payload_head(payload) == (e.KIND_VOUCHERS, 3, AT_MS)
    assert e.records_head(payload) == (3, AT_MS)


REDEEMS = golden("vouchers_1_extras")
EVENTS = golden("control_1_00_deployment_initialised")
BAD = {
    "nothing": b"",
    "half a header": REDEEMS[:15],
    "another format": b"\2" + REDEEMS[1:],
    "unknown kind": REDEEMS[:1] + b"\3" + REDEEMS[2:],
    "half a record": REDEEMS[:100],
    "more records said": REDEEMS[:7] + b"\xff" + REDEEMS[8:],
    "events for records": EVENTS,
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_voucher_payload_says_so(name: str) -> None:
    readers = (lambda bad: list(e.iter_records(bad)), lambda bad: e.record_at(bad, 0), e.extras_of, e.records_head)
    for reader in readers:
        with pytest.raises(e.BadPayload):
            reader(BAD[name])


@pytest.mark.parametrize("index", (-1, 3))
def test_there_is_no_such_record(index: int) -> None:
    with pytest.raises(e.BadPayload, match="of 3"):
        e.record_at(REDEEMS, index)


@pytest.mark.parametrize(
    "tail",
    (
        *(b"\xc1", b"\x81\x00", b"\x81\x03\x90", b"\x81\xff\x90"),
        b"\x81\x00\x91\xa1\xff",  # a text that is not UTF-8
        b"\x81\x00\x96\xc0\xc0\xc0\xc0\xc0" + b"\x91" * 100_000,  # too deep, where a later version might have a field
    ),
)
def test_bad_extras_say_so(tail: bytes) -> None:
    with pytest.raises(e.BadPayload, match="extras"):
        e.extras_of(golden("vouchers_1_redeem") + tail)


@pytest.mark.parametrize(
    "bad",
    (
        REDEEMS,
        EVENTS[:-1],
        EVENTS + b"\0",
        EVENTS[:7] + b"\2" + EVENTS[8:],
        EVENTS[:16] + b"\x92\xa1a\x91\x81\xa5event\xa5bogus",
        EVENTS[:16] + b"\x92\xa1\xff\x90",
        EVENTS[:16] + b"\x92\xa1a\x91\x83\xa5event\xaakey_retire" + b"\x91" * 100_000,
    ),
)
def test_a_bad_control_payload_says_so(bad: bytes) -> None:
    with pytest.raises(e.BadPayload):
        e.decode_control(bad)


def test_a_later_field_of_a_control_event_is_ignored() -> None:
    later = msgspec.msgpack.encode(["ann", [{"event": "key_added", "key_id": 1, "colour": "red"}]])
    assert e.decode_control(EVENTS[:16] + later).events == (e.KeyAdded(key_id=1),)


@given(st.binary(max_size=200) | st.tuples(st.sampled_from([REDEEMS, EVENTS]), st.binary(max_size=40)).map(b"".join))
def test_any_bytes_are_read_or_refused(payload: bytes) -> None:
    for reader in (e.decode_control, e.extras_of, lambda some: list(e.iter_records(some))):
        with contextlib.suppress(e.BadPayload):
            reader(payload)
