"""A whole file of codes in one request: what came of each line, again after any failure, and tills served meanwhile."""

import asyncio
import io
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlencode

import msgspec
import pytest
from core_world import until
from http_world import HttpWorld, Reply, http_world

from eventstore.events import IMPORT, VouchersIssued, decode_control
from eventstore.log import CONTROL
from gateway import http_imports
from gateway.codes import typed_code
from gateway.import_lines import CSV, NDJSON, PLAIN
from gateway.imports import CHUNK_CODES


@pytest.fixture
async def h(tmp_path: Path, valkey_endpoint: str) -> AsyncIterator[HttpWorld]:
    async with http_world(tmp_path, valkey_endpoint) as made:
        yield made


async def send(h: HttpWorld, body: object, media: str = NDJSON, slug: str = "cake", **query: str) -> Reply:
    path = f"/v1/campaigns/{slug}/imports/lines?{urlencode({'request_id': 'file-1'} | query)}"
    content = io.BytesIO(body) if isinstance(body, bytes) else body
    return await h.send("operator", "POST", path, content, **{"Content-Type": media})


def lines_of(codes: list[str]) -> bytes:
    return msgspec.json.Encoder().encode_lines(codes)


async def events_issued(h: HttpWorld) -> list[VouchersIssued]:
    batches = await h.w.core.log.read(CONTROL, 1, 500)
    events = [event for batch in batches for event in decode_control(batch.payload).events]
    return [event for event in events if isinstance(event, VouchersIssued)]


async def test_each_line_is_counted_and_what_is_not_taken_is_told_by_its_line(h: HttpWorld) -> None:
    typed, ours = typed_code(7), (await h.w.codes(1))[0]
    body = lines_of(["GROUP-1", ours, typed, " GROUP-1 "]) + b'\n{"code": "GROUP-2"}\nGROUP-3\n'
    first = await send(h, body)
    assert first.code == 200
    assert {name: first.body[name] for name in ("lines", "accepted", "repeated", "rejected")} == {
        "lines": 7,
        "accepted": 3,
        "repeated": 1,
        "rejected": 2,
    }
    assert [(row["line"], row["verdict"]) for row in first.body["rejections"]] == [(2, "unreadable"), (7, "unreadable")]
    assert all(text not in first.content.decode() for text in (ours, "GROUP-3", typed))
    assert (await h.redeem("till-1", "GROUP-2")).body["verdict"] == "accepted"
    assert (await h.redeem("till-2", typed, typed=True)).body["verdict"] == "accepted"
    issued = await events_issued(h)
    again = await send(h, body)
    assert (again.body["accepted"], again.body["repeated"]) == (0, 4)
    assert await events_issued(h) == issued
    other = await send(h, b"GROUP-2\n", PLAIN, "red")
    assert other.body["rejections"][0] == {
        "line": 1,
        "verdict": "duplicate",
        "reason": "this code already belongs to another campaign",
    }


async def test_csv_names_its_column(h: HttpWorld) -> None:
    body = b'no,Coupon\n1,CSV-1\n2,"CSV-2"\n3,\n'
    reply = await send(h, body, CSV, column="coupon")
    assert (reply.body["accepted"], [row["line"] for row in reply.body["rejections"]]) == (2, [4])
    wrong = await send(h, body, CSV)
    assert (wrong.code, wrong.body["field"]) == (400, "column")


async def test_what_does_not_fit_is_refused_before_anything_is_registered(h: HttpWorld) -> None:
    issued = await events_issued(h)
    for media, query, code, field in (
        ("application/json", {}, 415, None),
        (PLAIN, {"request_id": ""}, 400, "request_id"),
        (PLAIN, {"request_id": "x" * 65}, 400, "request_id"),
        (CSV, {"column": ""}, 400, "column"),
    ):
        reply = await send(h, b"A-1\n", media, **query)
        assert (reply.code, reply.body.get("field")) == (code, field)
    assert (await send(h, b"A-1\n", slug="nowhere")).code == 404
    assert (await h.send("till-1", "POST", "/v1/campaigns/cake/imports/lines?request_id=x", b"A-1\n")).code == 403
    assert await events_issued(h) == issued


async def test_a_body_over_the_limit_is_refused_and_its_rejected_lines_are_counted_beyond_those_told(
    h: HttpWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_imports, "BODY_BYTES_MAX", 20_000)
    assert (await send(h, b"x" * 30_000, PLAIN)).code == 413
    monkeypatch.setattr(http_imports, "REJECTIONS_TOLD_MAX", 5)
    reply = await send(h, b"T1-not-ours\n" * 40 + b"GOOD-1\n", PLAIN)
    assert (reply.body["rejected"], reply.body["accepted"]) == (40, 1)
    assert [row["line"] for row in reply.body["rejections"]] == [1, 2, 3, 4, 5]


async def test_a_file_of_several_chunks_is_one_event_each_and_tills_are_answered_meanwhile(h: HttpWorld) -> None:
    count = 2 * CHUNK_CODES + 500
    codes = [f"BULK-{number:06d}" for number in range(count)]
    scans = iter(await h.w.codes(1000))
    before = len(await events_issued(h))
    upload = asyncio.create_task(send(h, lines_of(codes)))
    batches = h.w.seen.batches
    await until(lambda: any(batch.payload[16] == IMPORT for batch in batches))
    verdicts = []
    while not upload.done():
        verdicts.append((await h.redeem("till-1", next(scans))).body["verdict"])
    assert len(verdicts) > 3, "scans waited for the whole import"
    assert set(verdicts) == {"accepted"}
    reply = await upload
    assert (reply.body["lines"], reply.body["accepted"]) == (count, count)
    fresh = (await events_issued(h))[before:]
    assert [event.count for event in fresh if event.kind == "foreign"] == [CHUNK_CODES, CHUNK_CODES, 500]


async def test_an_import_that_a_recovery_broke_goes_on_and_takes_no_serial_twice(h: HttpWorld) -> None:
    count = CHUNK_CODES + 2000
    body = lines_of([f"BROKEN-{number:06d}" for number in range(count)])
    upload = asyncio.create_task(send(h, body))
    batches = h.w.seen.batches
    await until(lambda: any(batch.payload[16] == IMPORT for batch in batches))
    h.w.core.lanes[0].recover("the test says so")
    broken = await upload
    assert (broken.code, broken.headers["Retry-After"]) == (503, "1")
    await h.w.ready()
    whole = await send(h, body)
    assert whole.code == 200
    assert whole.body["repeated"] > 0
    assert whole.body["accepted"] > 0
    assert whole.body["accepted"] + whole.body["repeated"] == count
    campaign = h.w.directory.campaign("cake")
    assert campaign is not None
    assert sum(campaign.foreign.ends) - sum(campaign.foreign.starts) == count
    assert (await h.redeem("till-1", f"BROKEN-{count - 1:06d}")).body["verdict"] == "accepted"


async def test_an_upload_that_breaks_off_leaves_the_gateway_well(h: HttpWorld) -> None:
    async def broken_off() -> AsyncIterator[bytes]:
        yield lines_of([f"CUT-{number:06d}" for number in range(CHUNK_CODES + 10)])
        raise ConnectionResetError

    with pytest.raises(Exception, match=r".*"):
        await send(h, broken_off())
    reply = await send(h, lines_of(["CUT-000000"]), request_id="other")
    assert reply.code == 200
    assert not h.w.core.troubles()
