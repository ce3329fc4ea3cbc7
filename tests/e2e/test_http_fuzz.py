"""Whatever JSON comes in over HTTP, what goes out is an answer or a problem, never a server error."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
from http_world import HttpWorld, Reply, http_world
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

EXAMPLES = 60  # each is several requests; the whole stays below five seconds
FINE = {200, 400, 403, 404, 409, 413, 415, 503}

texts = st.text(max_size=40) | st.sampled_from(["", "0" * 32, "T1" + "0" * 32, "1-1", "s1", "cake", "\x1d", "１２３"])
numbers = st.integers() | st.sampled_from([0, 1, 9, 2**31, 2**63, 2**64, -1])
values = st.recursive(
    st.none() | st.booleans() | numbers | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inside: st.lists(inside, max_size=3) | st.dictionaries(texts, inside, max_size=3),
    max_leaves=6,
)
ids = st.binary(min_size=16, max_size=16).map(bytes.hex)
redemptions = st.fixed_dictionaries(
    {"redemption_id": ids | texts, "code": texts},
    optional={"terminal": numbers, "scanned_ms": numbers, "typed": st.booleans(), "merchant_ref": texts},
)
bodies = {
    "/v1/redemptions": redemptions | values,
    "/v1/redemptions/preview": redemptions | values,
    "/v1/redemptions/{id}/reversal": values
    | st.fixed_dictionaries(
        {"reversal_id": ids | texts},
        optional={"terminal": numbers, "reversed_ms": numbers, "reason": texts, "original": redemptions},
    ),
    "/v1/merchants": values | st.fixed_dictionaries({"merchant": texts, "title": texts}),
    "/v1/alliances": values | st.fixed_dictionaries({"alliance": texts, "merchants": st.lists(texts, max_size=3)}),
    "/v1/stores": values | st.fixed_dictionaries({"store": texts, "merchant": texts, "title": texts}),
    "/v1/campaigns": values
    | st.fixed_dictionaries({"slug": texts, "offer": st.dictionaries(st.sampled_from(["title", "value"]), values)}),
    "/v1/campaigns/cake/issues": values | st.fixed_dictionaries({"count": st.integers(-2, 9), "request_id": texts}),
    "/v1/campaigns/cake/imports": values
    | st.fixed_dictionaries({"request_id": texts, "codes": st.lists(texts, max_size=5)}),
    "/v1/vouchers/show": values | st.fixed_dictionaries({"code": texts}) | st.fixed_dictionaries({"voucher_id": texts}),
    "/v1/vouchers/void": values | st.fixed_dictionaries({"voucher_id": texts, "reason": texts, "request_id": texts}),
    "/v1/terminals": values | st.fixed_dictionaries({"store": texts, "label": texts}),
    "/v1/terminals/enrol": values | st.fixed_dictionaries({"token": texts, "public_key": ids}),
    "/v1/tokens": values | st.fixed_dictionaries({"role": texts, "scope": texts, "label": texts}),
}
requests = st.sampled_from(sorted(bodies)).flatmap(lambda path: st.tuples(st.just(path), bodies[path]))
path_parts = st.text(alphabet=st.characters(codec="utf-8", exclude_characters="/?#\\"), min_size=1, max_size=40)


@pytest.fixture
async def h(tmp_path: Path, valkey_endpoint: str) -> AsyncIterator[HttpWorld]:
    async with http_world(tmp_path, valkey_endpoint) as made:
        yield made


def is_fine(reply: Reply) -> bool:
    problem = reply.headers["Content-Type"] == "application/problem+json"
    if reply.code not in FINE or (reply.code in range(400, 500)) is not problem:
        return False
    return not problem or (reply.body.keys() >= {"type", "title", "detail"} and bool(reply.body["detail"]))


async def _on_a_thread(h: HttpWorld, check: object) -> None:
    """hypothesis drives from a thread of its own, requests run on the test's loop."""
    await asyncio.to_thread(check)  # type: ignore[arg-type]
    assert not h.w.core.troubles()


async def test_any_body_gets_an_answer_or_a_problem(h: HttpWorld) -> None:
    loop = asyncio.get_running_loop()

    @settings(max_examples=EXAMPLES * 5, suppress_health_check=list(HealthCheck))
    @given(request=requests, who=st.sampled_from(["admin", "till-1", "integrator-1"]), identity=ids | path_parts)
    def check(request: tuple[str, object], who: str, identity: str) -> None:
        path, body = request
        path = path.replace("{id}", identity.strip(".") or "x")
        sent = h.send(who, "POST", path, msgspec.json.encode(body))
        assert is_fine(asyncio.run_coroutine_threadsafe(sent, loop).result(20))

    await _on_a_thread(h, check)


async def test_any_path_and_query_gets_an_answer_or_a_problem(h: HttpWorld) -> None:
    loop = asyncio.get_running_loop()
    templates = ("/v1/redemptions/{}", "/v1/campaigns/{}", "/v1/log/{}", "/v1/terminals/{}/revoke", "/v1/{}")
    queried = ("/v1/log/0?from={}", "/v1/log/control?limit={}", "/v1/campaigns/cake/codes?first={}&count={}")

    @settings(max_examples=EXAMPLES, suppress_health_check=list(HealthCheck))
    @given(part=path_parts, template=st.sampled_from(templates + queried))
    def check(part: str, template: str) -> None:
        method = "POST" if template.endswith("revoke") else "GET"
        path = template.replace("{}", part.strip(".") or "x")
        assert is_fine(asyncio.run_coroutine_threadsafe(h.send("admin", method, path), loop).result(20))

    await _on_a_thread(h, check)


async def test_any_bytes_as_a_body_get_a_problem(h: HttpWorld) -> None:
    loop = asyncio.get_running_loop()

    @settings(max_examples=EXAMPLES, suppress_health_check=list(HealthCheck))
    @given(content=st.binary(max_size=200), path=st.sampled_from(sorted(bodies)))
    def check(content: bytes, path: str) -> None:
        sent = h.send("admin", "POST", path.replace("{id}", "0" * 32), content)
        reply = asyncio.run_coroutine_threadsafe(sent, loop).result(20)
        assert reply.code in (400, 403)
        assert is_fine(reply)

    await _on_a_thread(h, check)
