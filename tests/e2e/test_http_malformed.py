"""Requests of tills that do not fit: a problem that names the place, and nothing else happens."""

from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
from core_world import new_id
from http_world import HttpWorld, http_world

from gateway.http_gate import BODY_BYTES_MAX


@pytest.fixture
async def h(tmp_path: Path, valkey_endpoint: str) -> AsyncIterator[HttpWorld]:
    async with http_world(tmp_path, valkey_endpoint) as made:
        yield made


GOOD = {"redemption_id": "0" * 32, "code": "x"}


@pytest.mark.parametrize(
    ("body", "field"),
    (
        ({"code": "x"}, "redemption_id"),
        ({"redemption_id": "0" * 32}, "code"),
        (GOOD | {"redemption_id": "12 4" * 8}, "redemption_id"),
        (GOOD | {"redemption_id": "０" * 32}, "redemption_id"),
        (GOOD | {"redemption_id": ""}, "redemption_id"),
        (GOOD | {"code": 7}, "code"),
        (GOOD | {"colour": "red"}, "colour"),
        (GOOD | {"scanned_ms": -1}, "scanned_ms"),
        (GOOD | {"scanned_ms": 2**80}, "scanned_ms"),
        (GOOD | {"scanned_ms": 1.5}, "scanned_ms"),
        (GOOD | {"merchant_ref": "r" * 65}, "merchant_ref"),
        (GOOD | {"cashier_ref": "r" * 65}, "cashier_ref"),
        (GOOD | {"typed": "yes"}, "typed"),
        ([1, 2], None),
        (None, None),
    ),
)
async def test_a_malformed_body_names_its_field(h: HttpWorld, body: object, field: str | None) -> None:
    reply = await h.send("till-1", "POST", "/v1/redemptions", msgspec.json.encode(body))
    assert reply.code == 400
    assert reply.headers["Content-Type"] == "application/problem+json"
    assert reply.body["type"] == "about:blank"
    assert reply.body["title"] == "Bad Request"
    assert reply.body["detail"]
    assert reply.body.get("field") == field


async def test_the_place_inside_a_reversal(h: HttpWorld) -> None:
    path, reversal = f"/v1/redemptions/{'0' * 32}/reversal", {"reversal_id": "1" * 32}
    for body, field in (
        (reversal | {"original": GOOD | {"cod": 1}}, "original.cod"),
        (reversal | {"original": GOOD | {"redemption_id": "z"}}, "original.redemption_id"),
        (reversal | {"original": GOOD | {"redemption_id": "2" * 32}}, "original.redemption_id"),
        ({"reversal_id": "0" * 32}, "reversal_id"),
        (reversal | {"reason": "r" * 201}, "reason"),
        (reversal | {"reversed_ms": -5}, "reversed_ms"),
    ):
        reply = await h.post("till-1", path, **body)
        assert (reply.code, reply.body.get("field")) == (400, field)


@pytest.mark.parametrize(
    "content",
    (
        b"",
        b"{",
        b"\xff\xfe",
        b'{"code":"\xff"}',
        b"[" * 10_000,
        b'{"redemption_id":"00000000000000000000000000000000","code":"\\ud800"}',
    ),
)
async def test_what_is_not_json_is_refused(h: HttpWorld, content: bytes) -> None:
    reply = await h.send("till-1", "POST", "/v1/redemptions", content)
    assert (reply.code, reply.headers["Content-Type"]) == (400, "application/problem+json")


async def test_other_requests_that_do_not_fit(h: HttpWorld) -> None:
    content = msgspec.json.encode(GOOD)
    big = msgspec.json.encode(GOOD | {"code": "x" * BODY_BYTES_MAX})
    wrong_type = await h.send("till-1", "POST", "/v1/redemptions", content, **{"Content-Type": "text/plain"})
    too_large = await h.send("till-1", "POST", "/v1/redemptions", big)
    not_gzip = await h.send("till-1", "POST", "/v1/redemptions", content, **{"Content-Encoding": "gzip"})
    no_path = await h.get("till-1", "/v1/nothing")
    no_method = await h.send("till-1", "DELETE", "/v1/redemptions")
    no_id = await h.get("till-1", "/v1/redemptions/xyz")
    absent = await h.get("till-1", f"/v1/redemptions/{new_id().hex()}")
    replies = (wrong_type, too_large, not_gzip, no_path, no_method, no_id, absent)
    assert [reply.code for reply in replies] == [415, 413, 400, 404, 405, 400, 404]
    assert {reply.headers["Content-Type"] for reply in replies} == {"application/problem+json"}
    assert "POST" in no_method.headers["Allow"]


async def test_a_charset_beside_the_media_type_is_fine(h: HttpWorld) -> None:
    (code,) = await h.w.codes(1)
    content = msgspec.json.encode({"redemption_id": new_id().hex(), "code": code})
    header = {"Content-Type": "application/json; charset=utf-8"}
    assert (await h.send("till-1", "POST", "/v1/redemptions", content, **header)).body["verdict"] == "accepted"
