"""Administration over HTTP: parties, campaigns, codes, vouchers, terminals, tokens, keys and the log."""

import io
from collections.abc import AsyncIterator
from itertools import pairwise
from pathlib import Path

import msgspec
import pytest
from core_world import KEYS, new_id
from http_world import HttpWorld, http_world

from gateway.codes import KeyRing, typed_code
from gateway.desk import IMPORT_CODES_MAX
from gateway.http_campaigns import CODES_PER_CHUNK

OFFER = {
    "title": "Autumn noodles",
    "kind": "prepaid",
    "value": "12.50 CNY",
    "starts": "2020-11-01",
    "ends": "2099-11-30",
    "stores": ["s1"],
}


@pytest.fixture
async def h(tmp_path: Path, valkey_endpoint: str) -> AsyncIterator[HttpWorld]:
    async with http_world(tmp_path, valkey_endpoint) as made:
        yield made


async def test_parties_are_added_once(h: HttpWorld) -> None:
    for path, body, field in (
        ("/v1/merchants", {"merchant": "m3", "title": "Third"}, "merchant"),
        ("/v1/stores", {"store": "s30", "merchant": "m3", "title": "Thirty"}, "store"),
    ):
        made = await h.post("admin", path, **body)
        assert (made.code, made.body) == (200, body)
        assert body in (await h.get("admin", path)).body
        again = await h.post("admin", path, **body)
        assert (again.code, again.body["field"], again.body["title"]) == (409, field, "Conflict")
        assert "exists already" in again.body["detail"]
    alliance = {"alliance": "south", "merchants": ["m3"]}
    assert (await h.post("admin", "/v1/alliances", **alliance)).body == alliance
    strange = await h.post("admin", "/v1/alliances", alliance="south", merchants=["m3", "m4"])
    assert (strange.code, strange.body["field"]) == (409, "merchants[1]")


async def test_the_life_of_a_campaign(h: HttpWorld) -> None:
    made = await h.post("operator", "/v1/campaigns", slug="autumn", offer=OFFER)
    assert made.code == 200
    assert (made.body["slug"], made.body["state"], made.body["offer"]["value_minor"]) == ("autumn", "open", 1250)
    assert (await h.get("operator", f"/v1/campaigns/{made.body['campaign']}")).body == made.body
    for step, state in (("pause", "paused"), ("resume", "open"), ("close", "closed")):
        assert (await h.post("operator", f"/v1/campaigns/autumn/{step}")).body["state"] == state
    refused = await h.post("operator", "/v1/campaigns/autumn/resume")
    assert (refused.code, refused.body["field"]) == (409, "campaign")
    early = await h.post("operator", "/v1/campaigns/autumn/purge")
    assert early.code == 409
    assert "dispute period" in early.body["detail"]


async def test_a_purged_campaign_keeps_no_vouchers(h: HttpWorld) -> None:
    await h.post("operator", "/v1/campaigns", slug="short", offer=OFFER | {"dispute": "0d", "reversal_window": "0s"})
    (code,) = await h.w.codes(1, "short")
    assert (await h.redeem("till-1", code)).body["verdict"] == "accepted"
    await h.post("operator", "/v1/campaigns/short/close")
    assert [(await h.post("operator", "/v1/campaigns/short/purge")).body["state"] for _ in range(2)] == ["purged"] * 2
    assert (await h.post("operator", "/v1/vouchers/show", code=code)).body["state"] == "purged"
    assert (await h.redeem("till-1", code)).body["verdict"] == "closed"


@pytest.mark.parametrize(
    ("changes", "field", "why"),
    (
        ({"colour": "red"}, "offer.colour", "unknown field"),
        ({"valu": "1 CNY"}, "offer.valu", "did you mean value"),
        ({"value": "12.505 CNY"}, "offer.value", "2 digits"),
        ({"starts": "2099-12-31"}, "offer.ends", ""),
        ({"hours": ["mon-fri 11:00-14:00", "never"]}, "offer.hours[1]", "must be like"),
        ({"stores": ["s1", "nowhere"]}, "offer.stores[1]", "there is no store"),
    ),
)
async def test_a_wrong_offer_names_its_field(h: HttpWorld, changes: dict[str, object], field: str, why: str) -> None:
    reply = await h.post("operator", "/v1/campaigns", slug="autumn", offer=OFFER | changes)
    assert reply.code in (400, 409)
    assert (reply.body["field"], why in reply.body["detail"]) == (field, True)


async def test_issued_codes_are_fetched_and_redeemed(h: HttpWorld) -> None:
    count = CODES_PER_CHUNK + 3
    issue = {"count": count, "request_id": "first"}
    issued = [await h.post("operator", "/v1/campaigns/cake/issues", **issue) for _ in range(2)]
    assert [reply.body for reply in issued] == [{"first_serial": 1, "count": count}] * 2
    reply = await h.get("operator", f"/v1/campaigns/cake/codes?first=1&count={count}")
    assert reply.headers["Content-Type"].startswith("text/plain")
    lines = reply.content.decode().splitlines()
    assert [int(line.partition(",")[0]) for line in lines] == list(range(1, count + 1))
    assert len({line.partition(",")[2] for line in lines}) == count
    assert (await h.redeem("till-1", lines[-1].partition(",")[2])).body["voucher_id"] == f"1-{count}"
    for query, code in (("first=1&count=9999", 404), ("first=504", 404), ("first=x", 400), ("count=0", 400)):
        assert (await h.get("operator", f"/v1/campaigns/cake/codes?{query}")).code == code
    other = await h.post("operator", "/v1/campaigns/cake/issues", count=1, request_id="first")
    assert (other.code, other.body["field"]) == (409, "request_id")
    for count in (0, -1, 2**41):
        assert (await h.post("operator", "/v1/campaigns/cake/issues", count=count, request_id="n")).code == 409


async def test_an_import_says_what_came_of_each_code_and_may_be_repeated(h: HttpWorld) -> None:
    typed, foreign, ours = typed_code(4711), "GROUP BUY 1", (await h.w.codes(1))[0]
    body = {"request_id": "file-1:1", "codes": [typed, ours, foreign, "", foreign]}
    path = "/v1/campaigns/cake/imports"
    first = (await h.post("operator", path, **body)).body
    assert (first["accepted"], first["repeated"]) == (2, 1)
    assert [(row["index"], row["verdict"]) for row in first["rejected"]] == [(1, "unreadable"), (3, "unreadable")]
    assert ours not in msgspec.json.encode(first).decode()
    again = (await h.post("operator", path, **body)).body
    assert (again["accepted"], again["repeated"], again["rejected"]) == (0, 3, first["rejected"])
    elsewhere = await h.post("operator", "/v1/campaigns/red/imports", request_id="file-2:1", codes=[foreign])
    assert elsewhere.body["rejected"][0]["verdict"] == "duplicate"
    redemption_id = new_id().hex()
    replies = [await h.redeem("till-1", typed, redemption_id, typed=True) for _ in range(2)]
    assert replies[0].body["verdict"] == "accepted"
    assert replies[0].content == replies[1].content
    assert (await h.get("till-1", f"/v1/redemptions/{redemption_id}")).content == replies[0].content
    assert (await h.redeem("till-2", foreign)).body["verdict"] == "accepted"
    for codes in ([], ["x"] * (IMPORT_CODES_MAX + 1)):
        assert (await h.post("operator", path, request_id="n", codes=codes)).body["field"] == "codes"


async def test_the_longest_import_fits(h: HttpWorld) -> None:
    codes = [f"{n:04d}" + "c" * 4200 for n in range(IMPORT_CODES_MAX)]
    content = io.BytesIO(msgspec.json.encode({"request_id": "long", "codes": codes}))
    reply = await h.send("operator", "POST", "/v1/campaigns/cake/imports", content)
    assert (reply.code, reply.body["accepted"]) == (200, IMPORT_CODES_MAX)


async def test_the_life_of_one_voucher(h: HttpWorld) -> None:
    code, other = await h.w.codes(2)
    show, void = "/v1/vouchers/show", "/v1/vouchers/void"
    assert (await h.post("operator", show, code=code)).body["state"] == "unused"
    redemption_id = new_id().hex()
    await h.redeem("till-1", code, redemption_id)
    held = (await h.post("auditor", show, voucher_id="1-1")).body
    assert (held["state"], held["holder"]["store"], held["holder"]["terminal"]) == ("redeemed", "s1", 1)
    request = {"reason": "stolen", "request_id": "v1"}
    assert (await h.post("operator", void, code=code, **request)).body["verdict"] == "already_redeemed"
    await h.post("till-1", f"/v1/redemptions/{redemption_id}/reversal", reversal_id=new_id().hex())
    voided = [await h.post("operator", void, voucher_id="1-1", **request) for _ in range(2)]
    assert [reply.body for reply in voided] == [{"voucher_id": "1-1", "verdict": "voided"}] * 2
    assert (await h.redeem("till-2", code)).body["verdict"] == "voided"
    life = (await h.post("operator", show, code=code)).body
    assert (life["state"], [deed["kind"] for deed in life["settled"]]) == ("voided", ["reversed"])
    assert (await h.post("operator", show, code=other)).body["voucher_id"] == "1-2"


@pytest.mark.parametrize(
    ("body", "code", "field"),
    (
        ({}, 400, "voucher_id"),
        ({"voucher_id": "1-1", "code": "x"}, 400, "voucher_id"),
        ({"voucher_id": "1"}, 400, "voucher_id"),
        ({"voucher_id": "1-" + "9" * 20}, 400, "voucher_id"),
        ({"voucher_id": "1-1"}, 404, None),
        ({"voucher_id": "99-1"}, 404, None),
        ({"code": "NO-SUCH"}, 404, "code"),
        ({"code": "T1short"}, 400, "code"),
    ),
)
async def test_a_voucher_that_is_not_there(h: HttpWorld, body: dict[str, str], code: int, field: str | None) -> None:
    for path, more in (("show", {}), ("void", {"reason": "r", "request_id": "r"})):
        reply = await h.post("operator", f"/v1/vouchers/{path}", **body, **more)
        assert (reply.code, reply.body.get("field")) == (code, field)
        assert "T1short" not in reply.content.decode()


async def test_a_terminal_is_offered_and_enrols_once(h: HttpWorld) -> None:
    offered = (await h.post("operator", "/v1/terminals", store="s9", label="till ten")).body
    assert offered["terminal"] == 10
    enrolment = {"token": offered["token"], "public_key": "ab" * 32}
    replies = [await h.post("", "/v1/terminals/enrol", **enrolment) for _ in range(2)]
    assert [reply.body for reply in replies] == [{"terminal": 10, "store": "s9"}] * 2
    thief = await h.post("", "/v1/terminals/enrol", **(enrolment | {"public_key": "cd" * 32}))
    assert (thief.code, thief.body["field"]) == (403, "token")
    row = next(row for row in (await h.get("operator", "/v1/terminals")).body if row["terminal"] == 10)
    assert (row["enrolled"], row["revoked"], row["expires_ms"]) == (True, False, offered["expires_ms"])
    assert (await h.post("operator", "/v1/terminals", store="s77", label="x")).body["field"] == "store"
    for wrong in ("", "ab", "zz" * 32):
        reply = await h.post("", "/v1/terminals/enrol", token=offered["token"], public_key=wrong)
        assert (reply.code, reply.body["field"]) == (400, "public_key")


async def test_a_token_is_shown_once_and_works(h: HttpWorld) -> None:
    made = await h.post("admin", "/v1/tokens", role="merchant", scope="m2", label="Books of N")
    h.tokens["new"] = made.body["token"]
    assert [row["merchant"] for row in (await h.get("new", "/v1/merchants")).body] == ["m2"]
    rows = (await h.get("admin", "/v1/tokens")).body
    assert rows[-1] == {
        "token_id": made.body["token_id"],
        "role": "merchant",
        "scope": "m2",
        "label": "Books of N",
        "revoked": False,
    }
    for changes, field in (({"role": "king"}, "role"), ({"scope": "m77"}, "scope"), ({"label": ""}, "label")):
        body = {"role": "merchant", "scope": "m2", "label": "l"} | changes
        reply = await h.post("admin", "/v1/tokens", **body)
        assert (reply.code, reply.body["field"]) == (409, field)


async def test_keys_rotate_and_retire(h: HttpWorld) -> None:
    (old,) = await h.w.codes(1)
    added = (await h.post("admin", "/v1/keys")).body
    assert added == {"key_id": 2, "active": True, "retired": False}
    await h.post("operator", "/v1/campaigns/cake/issues", count=1, request_id="new")
    line = (await h.get("operator", "/v1/campaigns/cake/codes?first=2")).content.decode().strip()
    new = line.partition(",")[2]
    assert KeyRing(KEYS).parse(new) != h.w.core.ring.parse(new), "signed with the new key"
    for code in (old, new):
        assert (await h.post("till-1", "/v1/redemptions/preview", redemption_id="0" * 32, code=code)).body[
            "verdict"
        ] == "accepted"
    active = await h.post("admin", "/v1/keys/2/retire")
    assert (active.code, active.body["field"]) == (409, "key_id")
    assert (await h.post("admin", "/v1/keys/1/retire")).body["retired"] is True
    assert (await h.post("admin", "/v1/keys/1/retire")).code == 409
    assert (await h.redeem("till-1", old)).body["verdict"] == "unknown_code"
    assert (await h.redeem("till-1", new)).body["verdict"] == "accepted"
    rows = (await h.get("auditor", "/v1/keys")).body
    assert [(row["key_id"], row["active"], row["retired"]) for row in rows] == [(2, True, False), (1, False, True)]


async def test_the_log_is_read_batch_by_batch(h: HttpWorld) -> None:
    (code,) = await h.w.codes(1)
    redemption_id = new_id().hex()
    await h.redeem("till-1", code, redemption_id, merchant_ref="receipt 7")
    await h.post("till-1", f"/v1/redemptions/{redemption_id}/reversal", reversal_id=new_id().hex(), reason="oops")
    lines = [msgspec.json.decode(line) for line in (await h.get("auditor", "/v1/log/0")).content.splitlines()]
    records = [record for line in lines for record in line["records"]]
    assert [(record["op"], record["verdict"]) for record in records] == [
        ("redeem", "accepted"),
        ("reverse", "accepted"),
    ]
    assert records[0]["merchant_ref"] == "receipt 7"
    assert (records[1]["target_id"], records[1]["reason"]) == (redemption_id, "oops")
    assert all(b["prev"] == a["tip"] for a, b in pairwise(lines))
    assert code not in (await h.get("auditor", "/v1/log/0")).content.decode()
    control = (await h.get("auditor", "/v1/log/control?from=2&limit=3")).content.splitlines()
    assert [msgspec.json.decode(line)["seq"] for line in control] == [2, 3, 4]
    assert {msgspec.json.decode(line)["actor"] for line in control} == {"test"}
    for path, wanted in (
        ("/v1/log/1", 404),
        ("/v1/log/x", 404),
        ("/v1/log/0?from=0", 400),
        ("/v1/log/0?limit=-1", 400),
    ):
        assert (await h.get("auditor", path)).code == wanted


async def test_who_did_it_stands_in_the_log(h: HttpWorld) -> None:
    await h.post("operator", "/v1/campaigns/cake/pause")
    head = h.w.directory.control_seq
    line = msgspec.json.decode((await h.get("auditor", f"/v1/log/control?from={head}")).content)
    assert (line["actor"], line["events"]) == ("token operator", [{"event": "campaign_paused", "campaign": 1}])
