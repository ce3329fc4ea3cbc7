"""Who may do what over HTTP: every role at every route, and what every owner must not see of another."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
from core_world import KEYS, new_id
from http_world import ROLES, HttpWorld, http_world

from eventstore import events as e
from gateway.auth import ENROLMENT_PREFIX, Auth, token_of

TILLS = {"till-1", "till-2", "till-9"}
INTEGRATORS = {"integrator-1", "integrator-2"}
SUPERVISORS = {"supervisor-1", "supervisor-2"}
MERCHANTS = {"merchant-1", "merchant-2"}
CHANNELS = {"channel-red", "channel-blue"}
OFFICE = {"operator", "admin"}
READERS = {"operator", "admin", "auditor"}

NOWHERE = f"/v1/redemptions/{'0' * 32}"
ROUTES = {  # who gets past the door; bodies and names are such that nothing happens behind it
    "POST /v1/redemptions": TILLS | INTEGRATORS,
    "POST /v1/redemptions/preview": TILLS | INTEGRATORS | SUPERVISORS,
    f"GET {NOWHERE}": TILLS | INTEGRATORS | SUPERVISORS | MERCHANTS | READERS,
    f"POST {NOWHERE}/reversal": TILLS | INTEGRATORS | SUPERVISORS | {"admin"},
    "GET /v1/merchants": MERCHANTS | READERS,
    "POST /v1/merchants": {"admin"},
    "GET /v1/alliances": MERCHANTS | READERS,
    "POST /v1/alliances": {"admin"},
    "GET /v1/stores": MERCHANTS | READERS,
    "POST /v1/stores": {"admin"},
    "GET /v1/campaigns": MERCHANTS | CHANNELS | READERS,
    "POST /v1/campaigns": OFFICE,
    "GET /v1/campaigns/nowhere": MERCHANTS | CHANNELS | READERS,
    "POST /v1/campaigns/nowhere/pause": OFFICE,
    "POST /v1/campaigns/nowhere/resume": OFFICE,
    "POST /v1/campaigns/nowhere/close": OFFICE,
    "POST /v1/campaigns/nowhere/purge": OFFICE,
    "POST /v1/campaigns/nowhere/issues": OFFICE,
    "GET /v1/campaigns/nowhere/codes": OFFICE,
    "POST /v1/campaigns/nowhere/imports": OFFICE,
    "POST /v1/campaigns/nowhere/imports/lines": OFFICE,
    "POST /v1/vouchers/show": READERS,
    "POST /v1/vouchers/void": OFFICE,
    "GET /v1/terminals": TILLS | INTEGRATORS | SUPERVISORS | MERCHANTS | READERS,
    "POST /v1/terminals": OFFICE,
    "POST /v1/terminals/777/revoke": OFFICE,
    "POST /v1/terminals/777/unlock": OFFICE,
    "GET /v1/exposure": READERS,
    "GET /v1/tokens": {"admin", "auditor"},
    "POST /v1/tokens": {"admin"},
    "POST /v1/tokens/nobody/revoke": {"admin"},
    "GET /v1/keys": {"admin", "auditor"},
    "POST /v1/keys/77/retire": {"admin"},
    "GET /v1/log/0": {"admin", "auditor"},
    "GET /v1/log/control": {"admin", "auditor"},
}


@pytest.fixture
async def h(tmp_path: Path, valkey_endpoint: str) -> AsyncIterator[HttpWorld]:
    async with http_world(tmp_path, valkey_endpoint) as made:
        yield made


async def test_every_role_at_every_route(h: HttpWorld) -> None:
    wrong = []
    for route, allowed in ROUTES.items():
        method, _, path = route.partition(" ")
        content = b"{}" if method == "POST" else None
        codes = {who: (await h.send(who, method, path, content)).code for who in ("", *ROLES)}
        if codes.pop("") != 401:
            wrong.append(f"{route}: lets in whoever has no token")
        for who, code in codes.items():
            if (code == 403) is (who in allowed) or code not in (200, 400, 403, 404):
                wrong.append(f"{route}: {who} got {code}")
    assert not wrong, "\n".join(wrong)


def test_the_table_names_every_route_that_needs_a_token(h: HttpWorld) -> None:
    served = {
        f"{route.method} {route.resource.canonical}"
        for route in h.app.router.routes()
        if route.method not in ("HEAD", "*") and route.resource is not None
    }
    names = {"slug": "nowhere", "number": "777", "id": "0" * 32, "token_id": "nobody", "key_id": "77", "partition": "0"}
    in_table = {template.format(**names) for template in served}
    open_to_all = {"GET /livez", "GET /readyz", "POST /v1/terminals/enrol"}
    open_to_all |= {"GET /docs", "GET /v1/openapi.json", "GET /v1/asyncapi.json"}
    only_admin_and_changes = {"POST /v1/keys"}
    assert in_table - open_to_all - only_admin_and_changes == ROUTES.keys() - {"GET /v1/log/control"}


@pytest.mark.parametrize("header", ("", "Bearer", "Bearer tg_short", "Basic dGc6eA==", "Bearer " + "x" * 4000))
async def test_what_is_no_token(h: HttpWorld, header: str) -> None:
    reply = await h.send("", "GET", "/v1/terminals", Authorization=header)
    assert (reply.code, reply.headers["WWW-Authenticate"]) == (401, 'Bearer realm="tillgate"')
    assert reply.headers["Content-Type"] == "application/problem+json"


async def test_a_revoked_token_and_a_revoked_terminal_are_let_in_no_more(h: HttpWorld) -> None:
    (code,) = await h.w.codes(1)
    assert (await h.redeem("till-1", code)).code == 200
    assert (await h.redeem("integrator-1", code, terminal=2)).code == 200
    assert (await h.post("admin", "/v1/terminals/1/revoke")).body["revoked"] is True
    assert (await h.redeem("till-1", code)).code == 401
    assert (await h.post("admin", "/v1/terminals/2/revoke")).code == 200
    revoked = await h.redeem("integrator-1", code, terminal=2)
    assert (revoked.code, revoked.body["field"]) == (403, "terminal")
    assert (await h.post("admin", "/v1/tokens/integrator-1/revoke")).body["revoked"] is True
    assert (await h.redeem("integrator-1", code, terminal=3)).code == 401
    again = await h.post("admin", "/v1/tokens/integrator-1/revoke")
    assert (again.code, again.body["field"]) == (409, "token_id")


@pytest.mark.parametrize(
    ("path", "body"),
    (
        ("/v1/redemptions", {"redemption_id": "0" * 32, "code": "x", "terminal": 1}),
        ("/v1/redemptions/preview", {"redemption_id": "0" * 32, "code": "x", "terminal": 1}),
        (f"{NOWHERE}/reversal", {"reversal_id": "1" * 32, "terminal": 1}),
        ("/v1/tokens", {"role": "admin", "label": "another one"}),
        ("/v1/campaigns/cake/issues", {"count": 1, "request_id": "late"}),
    ),
)
async def test_a_token_revoked_while_its_body_was_on_its_way_is_good_for_nothing(
    h: HttpWorld, path: str, body: dict[str, object]
) -> None:
    who = "integrator-1" if path.startswith("/v1/red") else "admin"
    content = msgspec.json.encode(body)
    half_sent, revoked = asyncio.Event(), asyncio.Event()

    async def slowly() -> AsyncIterator[bytes]:
        yield content[:5]
        half_sent.set()
        await revoked.wait()
        yield content[5:]

    await h.redeem("integrator-1", "x", terminal=1)  # what it may do is remembered from here on
    sending = asyncio.create_task(h.send(who, "POST", path, slowly()))
    await half_sent.wait()
    await h.w.write(e.TokenRevoked(token_id=who))
    revoked.set()
    assert (await sending).code == 401


# --- objects ---


async def test_a_redemption_is_made_at_ones_own_terminals_only(h: HttpWorld) -> None:
    (code,) = await h.w.codes(1)
    strange = [await h.redeem("integrator-1", code, terminal=n) for n in (9, 77, 2**70, -1)]
    strange += [await h.redeem("till-1", code, terminal=n) for n in (2, 9, 77)]
    assert {(reply.code, reply.body["field"]) for reply in strange} == {(403, "terminal")}
    assert {reply.body["detail"].replace(" 77 ", " 9 ") for reply in strange} >= {"terminal 9 is none of yours"}
    nameless = await h.redeem("integrator-1", code)
    assert (nameless.code, nameless.body["field"]) == (400, "terminal")
    for who in ("supervisor-2", "integrator-2"):
        body = {"redemption_id": new_id().hex(), "code": code, "terminal": 1}
        assert (await h.post(who, "/v1/redemptions/preview", **body)).code == 403
        body = {"reversal_id": new_id().hex(), "terminal": 1}
        assert (await h.post(who, f"{NOWHERE}/reversal", **body)).code == 403
    assert (await h.redeem("till-1", code, terminal=1)).body["verdict"] == "accepted"


async def test_a_redemption_is_told_to_its_own_side_only(h: HttpWorld) -> None:
    (code,) = await h.w.codes(1, "shared")
    redemption_id = new_id().hex()
    await h.redeem("till-1", code, redemption_id)
    path = f"/v1/redemptions/{redemption_id}"
    see = {"till-1", "integrator-1", "supervisor-1", "merchant-1", "operator", "auditor", "admin"}
    replies = {who: await h.get(who, path) for who in ROLES.keys() - CHANNELS}
    assert {who for who, reply in replies.items() if reply.code == 200} == see
    assert {reply.code for who, reply in replies.items() if who not in see} == {404}
    absent = await h.get("merchant-2", f"/v1/redemptions/{'a' * 32}")
    assert replies["merchant-2"].content.replace(redemption_id.encode(), b"a" * 32) == absent.content


async def test_ids_that_are_no_redemption_are_told_to_nobody(h: HttpWorld) -> None:
    (code,) = await h.w.codes(1)
    redemption_id, reversal_id = new_id().hex(), new_id().hex()
    await h.redeem("till-1", code, redemption_id)
    await h.post("till-1", f"/v1/redemptions/{redemption_id}/reversal", reversal_id=reversal_id)
    assert (await h.get("admin", f"/v1/redemptions/{reversal_id}")).code == 404


async def _names(h: HttpWorld, who: str, path: str, field: str) -> list[object]:
    return [row[field] for row in (await h.get(who, path)).body]


async def test_every_list_shows_only_what_is_ones_own(h: HttpWorld) -> None:
    assert await _names(h, "merchant-1", "/v1/merchants", "merchant") == ["m1"]
    assert await _names(h, "merchant-2", "/v1/stores", "store") == ["s9"]
    assert (await h.get("merchant-2", "/v1/alliances")).body == [{"alliance": "both", "merchants": ["m2"]}]
    assert (await h.get("operator", "/v1/alliances")).body == [{"alliance": "both", "merchants": ["m1", "m2"]}]
    for who in ("integrator-1", "supervisor-1", "merchant-1"):
        assert await _names(h, who, "/v1/terminals", "terminal") == [1, 2, 3]
    for who in ("integrator-2", "supervisor-2", "merchant-2", "till-9"):
        assert await _names(h, who, "/v1/terminals", "terminal") == [9]
    assert await _names(h, "till-1", "/v1/terminals", "terminal") == [1]
    assert await _names(h, "auditor", "/v1/terminals", "terminal") == [1, 2, 3, 9]


async def test_a_campaign_is_seen_by_its_merchants_and_its_channel(h: HttpWorld) -> None:
    await h.w.write(
        e.AllianceDefined(alliance="only-2", merchants=("m2",)),
        e.CampaignCreated(
            campaign=5, slug="club", offer=msgspec.structs.replace(_offer(h), alliance="only-2", stores=())
        ),
    )
    seen = {who: await _names(h, who, "/v1/campaigns", "slug") for who in sorted(MERCHANTS | CHANNELS | READERS)}
    everything = ["cake", "red", "blue", "shared", "club"]
    assert seen == {
        "admin": everything,
        "auditor": everything,
        "operator": everything,
        "merchant-1": ["cake", "red", "shared"],
        "merchant-2": ["blue", "shared", "club"],
        "channel-red": ["red"],
        "channel-blue": ["blue"],
    }
    for who, slugs in seen.items():
        for slug in everything:
            reply = await h.get(who, f"/v1/campaigns/{slug}")
            assert reply.code == (200 if slug in slugs else 404), (who, slug)
    hidden, absent = await h.get("merchant-2", "/v1/campaigns/red"), await h.get("merchant-2", "/v1/campaigns/rot")
    assert hidden.body["detail"].replace("red", "rot") == absent.body["detail"]


async def test_a_merchant_does_not_see_the_other_stores_of_a_shared_campaign(h: HttpWorld) -> None:
    await h.w.codes(7, "shared")
    mine = (await h.get("merchant-1", "/v1/campaigns/shared")).body
    assert (mine["offer"]["stores"], mine["issued"]) == (["s1"], {})
    all_of_it = (await h.get("operator", "/v1/campaigns/shared")).body
    assert (all_of_it["offer"]["stores"], all_of_it["issued"]["signed"]) == (["s1", "s9"], 7)


def _offer(h: HttpWorld) -> e.Offer:
    return h.w.directory.campaigns[1].offer


# --- secrets ---


async def test_no_list_holds_a_secret_or_a_hash_of_one(h: HttpWorld) -> None:
    auth = Auth(KEYS.pepper, h.w.directory)
    secrets = [KEYS.pepper, *KEYS.keys.values(), *(token.encode() for token in h.tokens.values())]
    secrets += [auth.token_hash(token) or b"" for token in h.tokens.values()]
    for path in ("/v1/tokens", "/v1/terminals", "/v1/keys", "/v1/campaigns", "/v1/stores"):
        content = (await h.get("admin", path)).content
        for secret in secrets:
            assert secret not in content
            assert secret.hex().encode() not in content


async def test_an_enrolment_token_is_no_bearer_token(h: HttpWorld) -> None:
    token = (await h.post("operator", "/v1/terminals", store="s1", label="new")).body["token"]
    assert (await h.send("", "GET", "/v1/terminals", Authorization=f"Bearer {token}")).code == 401
    unknown = token_of(ENROLMENT_PREFIX, b"?" * 32)
    for wrong in (unknown, h.tokens["till-1"], ""):
        reply = await h.post("", "/v1/terminals/enrol", token=wrong, public_key="ab" * 32)
        assert (reply.code, reply.body["field"]) == (403, "token")
