"""The tills' HTTP routes over real connections: verdicts, retries, look-ups, reversals, and whatever is malformed."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
from core_world import new_id, offer, until, wall_ms
from http_world import HttpWorld, http_world

from eventstore import events as e
from gateway.codes import typed_code
from gateway.guesses import GUESSES_MAX
from gateway.messages import Answer


@pytest.fixture
async def h(tmp_path: Path, valkey_endpoint: str) -> AsyncIterator[HttpWorld]:
    async with http_world(tmp_path, valkey_endpoint) as made:
        yield made


async def test_a_redemption_is_told_in_full_and_a_retry_hears_the_same_bytes(h: HttpWorld) -> None:
    (code,) = await h.w.codes(1)
    redemption_id = new_id().hex()
    replies = [await h.redeem("till-1", code, redemption_id) for _ in range(3)]
    assert [reply.code for reply in replies] == [200, 200, 200]
    assert len({reply.content for reply in replies}) == 1
    answer = msgspec.json.decode(replies[0].content, type=Answer)
    assert (answer.redemption_id, answer.verdict, answer.retry) == (redemption_id, "accepted", False)
    assert (answer.voucher_id, answer.campaign, answer.value_minor, answer.currency) == ("1-1", "cake", 1000, "CNY")
    assert "10.00 CNY" in answer.text_en
    assert "10.00 CNY" in answer.text_zh
    assert answer.position is not None
    assert replies[0].headers["Content-Type"] == "application/json"
    found = await h.get("till-1", f"/v1/redemptions/{redemption_id}")
    assert found.content == replies[0].content


async def test_dashes_and_case_of_an_id_do_not_matter(h: HttpWorld) -> None:
    (code,) = await h.w.codes(1)
    plain = new_id().hex()
    dashed = f"{plain[:8]}-{plain[8:12]}-{plain[12:16]}-{plain[16:20]}-{plain[20:]}".upper()
    first, again = await h.redeem("till-1", code, dashed), await h.redeem("till-1", code, plain)
    assert first.content == again.content
    assert first.body["redemption_id"] == plain


async def test_two_sends_at_once_are_one_redemption(h: HttpWorld) -> None:
    (code,) = await h.w.codes(1)
    redemption_id = new_id().hex()
    replies = await asyncio.gather(*(h.redeem("integrator-1", code, redemption_id, terminal=2) for _ in range(8)))
    assert {reply.content for reply in replies} == {replies[0].content}
    assert replies[0].body["verdict"] == "accepted"


async def test_the_loser_is_told_where_and_when(h: HttpWorld) -> None:
    (code,) = await h.w.codes(1)
    won = await h.redeem("till-1", code)
    lost_id = new_id().hex()
    lost = await h.redeem("till-2", code, lost_id)
    assert lost.code == 200
    assert lost.body["verdict"] == "already_redeemed"
    assert lost.body["winner"] == {"store": "s1", "terminal": "*01", "at_ms": won.body["at_ms"]}
    assert "s1" in lost.body["text_en"]
    found = await h.get("till-2", f"/v1/redemptions/{lost_id}")
    assert found.content == lost.content


async def test_who_was_first_is_told_only_where_the_campaign_is_valid(h: HttpWorld) -> None:
    (signed,) = await h.w.codes(1)
    await h.w.core.desk.import_codes("op", "cake", ["GROUP-BUY-0001"], "i1")
    for code in (signed, "GROUP-BUY-0001"):
        assert (await h.redeem("till-1", code)).body["verdict"] == "accepted"
        for path in ("/v1/redemptions", "/v1/redemptions/preview"):
            told = await h.post("till-2", path, redemption_id=new_id().hex(), code=code)
            assert told.body["winner"]["store"] == "s1"
            lost_id = new_id().hex()
            hidden = await h.post("till-9", path, redemption_id=lost_id, code=code)
            assert hidden.body["verdict"] == "already_redeemed"
            assert not hidden.body.keys() & {"winner", "campaign", "voucher_id"}
            assert "s1" not in hidden.body["text_en"]
            if path == "/v1/redemptions":
                assert (await h.get("till-9", f"{path}/{lost_id}")).content == hidden.content


async def test_a_head_request_gets_no_body_and_keeps_the_connection(h: HttpWorld) -> None:
    (code,) = await h.w.codes(1)
    redemption_id = new_id().hex()
    await h.redeem("till-1", code, redemption_id)
    ask = f" /v1/redemptions/{redemption_id} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {h.tokens['till-1']}\r\n\r\n"
    reader, writer = await asyncio.open_connection(h.host, h.port)
    async with asyncio.timeout(10):
        writer.write(f"HEAD{ask}".encode())
        head = await reader.readuntil(b"\r\n\r\n")
        writer.write(f"GET{ask}".encode())
        again = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 ")
        assert again.startswith(b"HTTP/1.1 200 "), "what follows a HEAD's answer is the next answer"
        assert b"accepted" in await reader.readuntil(b"}")
        writer.close()
        await writer.wait_closed()


async def test_an_id_used_for_something_else_is_reused(h: HttpWorld) -> None:
    one, two = await h.w.codes(2)
    redemption_id = new_id().hex()
    assert (await h.redeem("till-1", one, redemption_id)).body["verdict"] == "accepted"
    for reply in (
        await h.redeem("till-1", two, redemption_id),
        await h.redeem("till-2", one, redemption_id),
        await h.redeem("till-1", one, redemption_id, merchant_ref="receipt 7"),
    ):
        assert (reply.code, reply.body["verdict"]) == (200, "id_reused")
        assert "voucher_id" not in reply.body


async def test_unknown_forged_and_never_issued_codes_look_alike(h: HttpWorld) -> None:
    (code,) = await h.w.codes(1)
    never_issued = next(h.w.core.ring.mint(1, 1, 900_000, 1))
    forged = code[:-1] + ("0" if code[-1] != "0" else "1")
    strange_campaign = next(h.w.core.ring.mint(1, 77, 1, 1))
    bodies = []
    for wrong in (typed_code(123456789012345), "GROUP-BUY-0001", never_issued, forged, strange_campaign):
        for path in ("/v1/redemptions", "/v1/redemptions/preview"):
            reply = await h.post("till-1", path, redemption_id=new_id().hex(), code=wrong)
            assert reply.code == 200
            assert wrong not in reply.content.decode()
            bodies.append({key: value for key, value in reply.body.items() if key in ("verdict", "text_en", "text_zh")})
            extra = reply.body.keys() - {"redemption_id", "verdict", "text_en", "text_zh", "at_ms", "position"}
            assert not extra
    assert all(body == bodies[0] for body in bodies)
    assert bodies[0]["verdict"] == "unknown_code"


async def test_an_unreadable_code_is_told_its_place_and_not_quoted(h: HttpWorld) -> None:
    reply = await h.redeem("till-1", "T1BAD-CODE")
    assert (reply.code, reply.body["verdict"]) == (200, "unreadable")
    assert "character" in reply.body["note"]
    assert "BAD-CODE" not in reply.content.decode()


async def test_refusals_that_name_a_moment(h: HttpWorld) -> None:
    now_ms = wall_ms()
    later, gone = offer(starts_ms=now_ms + 3_600_000), offer(starts_ms=now_ms - 7200_000, ends_ms=now_ms - 3_600_000)
    await h.w.write(
        e.CampaignCreated(campaign=11, slug="later", offer=later),
        e.CampaignCreated(campaign=12, slug="gone", offer=gone),
    )
    for slug, verdict in (("later", "not_yet_valid"), ("gone", "expired")):
        (code,) = await h.w.codes(1, slug, slug)
        reply = await h.redeem("till-1", code)
        assert reply.body["verdict"] == verdict
        assert "UTC+8" in reply.body["note"]
        assert reply.body["note"] in reply.body["text_en"]


async def test_a_voucher_of_other_stores_says_nothing_of_itself(h: HttpWorld) -> None:
    (code,) = await h.w.codes(1, "blue")
    reply = await h.redeem("till-1", code)
    assert reply.body["verdict"] == "not_eligible"
    assert not reply.body.keys() & {"campaign", "voucher_id", "value_minor", "note"}
    assert (await h.redeem("till-9", code)).body["campaign"] == "blue"


async def test_a_pause_binds_at_once(h: HttpWorld) -> None:
    (code,) = await h.w.codes(1)
    assert (await h.post("operator", "/v1/campaigns/cake/pause")).code == 200
    assert (await h.redeem("till-1", code)).body["verdict"] == "paused"
    assert (await h.post("operator", "/v1/campaigns/cake/resume")).code == 200
    assert (await h.redeem("till-1", code)).body["verdict"] == "accepted"


async def test_preview_changes_nothing(h: HttpWorld) -> None:
    (code,) = await h.w.codes(1)
    body = {"redemption_id": new_id().hex(), "code": code}
    before = len(h.w.seen.batches)
    preview = await h.post("till-1", "/v1/redemptions/preview", **body)
    assert (preview.body["verdict"], preview.body["campaign"]) == ("accepted", "cake")
    assert "position" not in preview.body
    assert len(h.w.seen.batches) == before
    assert (await h.get("till-1", f"/v1/redemptions/{body['redemption_id']}")).code == 404
    assert (await h.redeem("till-1", code)).body["verdict"] == "accepted"
    told = await h.post("till-2", "/v1/redemptions/preview", **body)
    assert (told.body["verdict"], told.body["winner"]["store"]) == ("already_redeemed", "s1")


# --- reversals ---


async def reverse(h: HttpWorld, who: str, redemption_id: str, **more: object) -> dict[str, object]:
    reply = await h.post(who, f"/v1/redemptions/{redemption_id}/reversal", **({"reversal_id": new_id().hex()} | more))
    assert reply.code == 200, reply.content
    body: dict[str, object] = reply.body
    return body


async def test_a_reversal_and_all_that_is_told_after_it(h: HttpWorld) -> None:
    (code,) = await h.w.codes(1)
    redemption_id, reversal_id = new_id().hex(), new_id().hex()
    await h.redeem("till-1", code, redemption_id)
    undone = await reverse(h, "till-1", redemption_id, reversal_id=reversal_id, reason="wrong cake")
    assert (undone["redemption_id"], undone["verdict"]) == (redemption_id, "reversed")
    assert undone == await reverse(h, "till-1", redemption_id, reversal_id=reversal_id, reason="wrong cake")
    late = [await h.redeem("till-1", code, redemption_id) for _ in range(2)]
    found = await h.get("till-1", f"/v1/redemptions/{redemption_id}")
    assert late[0].body["verdict"] == "reversed"
    assert late[0].content == late[1].content == found.content
    assert found.body["at_ms"] == undone["at_ms"]
    assert (await h.redeem("till-2", code)).body["verdict"] == "accepted"
    assert (await h.get("till-1", f"/v1/redemptions/{redemption_id}")).content == found.content


async def test_a_reversal_may_overtake_its_redemption(h: HttpWorld) -> None:
    (code,) = await h.w.codes(1)
    redemption_id, reversal_id = new_id().hex(), new_id().hex()
    original = {"redemption_id": redemption_id, "code": code}
    early = await reverse(h, "till-1", redemption_id, reversal_id=reversal_id, original=original)
    assert early["verdict"] == "reversed"
    assert early == await reverse(h, "till-1", redemption_id, reversal_id=reversal_id, original=original)
    late = await h.redeem("till-1", code, redemption_id)
    assert late.body["verdict"] == "reversed"
    assert (await h.get("till-1", f"/v1/redemptions/{redemption_id}")).content == late.content
    assert (await h.redeem("till-1", code)).body["verdict"] == "accepted"


async def test_who_may_reverse(h: HttpWorld) -> None:
    (code,) = await h.w.codes(1)
    redemption_id = new_id().hex()
    await h.redeem("till-1", code, redemption_id)
    assert (await reverse(h, "till-2", redemption_id))["verdict"] == "not_yours"
    assert (await reverse(h, "integrator-1", redemption_id, terminal=2))["verdict"] == "not_yours"
    assert (await reverse(h, "supervisor-2", redemption_id))["verdict"] == "not_yours"
    assert (await reverse(h, "till-1", new_id().hex()))["verdict"] == "not_found"
    assert (await h.get("till-1", f"/v1/redemptions/{redemption_id}")).body["verdict"] == "accepted"
    assert (await reverse(h, "supervisor-1", redemption_id))["verdict"] == "reversed"


# --- doors ---


async def test_twenty_wrong_codes_lock_the_till_until_an_operator_unlocks_it(h: HttpWorld) -> None:
    (code,) = await h.w.codes(1)
    for n in range(GUESSES_MAX):
        assert (await h.redeem("till-1", f"NO-SUCH-{n}")).body["verdict"] == "unknown_code"
    await until(lambda: h.w.directory.terminals[1].locked_until_ms)
    locked = await h.redeem("till-1", code)
    assert locked.body["verdict"] == "terminal_locked"
    assert "UTC" in locked.body["note"]
    assert (await h.redeem("till-2", code)).body["verdict"] == "accepted"
    assert (await h.post("operator", "/v1/terminals/1/unlock")).body["locked_until_ms"] == 0
    assert (await h.redeem("till-1", code)).body["verdict"] == "already_redeemed"


async def test_when_nothing_is_known_the_till_is_asked_to_come_again(h: HttpWorld) -> None:
    (code,) = await h.w.codes(1)
    redemption_id = new_id().hex()
    h.w.core.lanes[0].recover("a test")
    reply = await h.redeem("till-1", code, redemption_id)
    assert (reply.code, reply.headers["Retry-After"]) == (503, "1")
    assert (reply.body["verdict"], reply.body["retry"]) == ("unresolved", True)
    await h.w.ready()
    assert (await h.redeem("till-1", code, redemption_id)).body["verdict"] == "accepted"


async def raw(h: HttpWorld, *requests: bytes) -> bytes:
    """What comes back on one connection for requests sent at once, until the gateway closes it."""
    reader, writer = await asyncio.open_connection(h.host, h.port)
    writer.write(b"".join(requests))
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    return answer


def raw_request(h: HttpWorld, code: str, version: str, *headers: str) -> bytes:
    content = msgspec.json.encode({"redemption_id": new_id().hex(), "code": code})
    lines = (
        f"POST /v1/redemptions HTTP/{version}",
        "Host: gateway",
        f"Authorization: Bearer {h.tokens['till-1']}",
        "Content-Type: application/json",
        f"Content-Length: {len(content)}",
        *headers,
    )
    return "\r\n".join((*lines, "", "")).encode() + content


async def test_answers_on_one_connection_come_whole_and_in_order(h: HttpWorld) -> None:
    codes = await h.w.codes(4)
    last = raw_request(h, codes[3], "1.1", "Connection: close")
    answer = (await raw(h, *(raw_request(h, code, "1.1") for code in codes[:3]), last)).decode()
    assert [part[:6] for part in answer.split("HTTP/1.1 ")[1:]] == ["200 OK"] * 4
    assert answer.count("Date: ") == answer.count("Content-Type: application/json") == 4
    assert [f"1-{n}" in part for n, part in enumerate(answer.split('"voucher_id":"'))] == [
        False,
        True,
        True,
        True,
        True,
    ]
    bodies = [part.partition("\r\n\r\n") for part in answer.split("HTTP/1.1 ")[1:]]
    for head, _, body in bodies:
        length = next(line for line in head.splitlines() if line.startswith("Content-Length: "))
        assert int(length.partition(" ")[2]) == len(body.encode())


async def test_an_old_client_is_answered_and_let_go(h: HttpWorld) -> None:
    (code,) = await h.w.codes(1)
    answer = (await raw(h, raw_request(h, code, "1.0"))).decode()
    assert answer.startswith("HTTP/1.0 200 OK")
    assert '"verdict":"accepted"' in answer


async def test_health(h: HttpWorld) -> None:
    assert (await h.get("", "/livez")).body == {"alive": True}
    assert (await h.get("", "/readyz?verbose")).body == {"ready": True, "troubles": []}
    h.w.core.lanes[0].recover("a test")
    trouble = await h.get("", "/readyz?verbose")
    assert trouble.code == 503
    assert "a test" in trouble.body["troubles"][0]
