"""The API's documents: valid, whole, served, and true of the running gateway."""

import asyncio
import json
import re
import time
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import jsonschema
import msgspec
import pytest
import schemathesis
from cli_world import tillgate
from http_world import HttpWorld, http_world
from hypothesis import HealthCheck, given, settings
from openapi_spec_validator import validate
from openapi_spec_validator.validation.exceptions import OpenAPIValidationError
from schemathesis import GenerationMode, checks

from gateway.api_operations import OPERATIONS
from gateway.asyncapi import FROM_GATEWAY, FROM_TILL, asyncapi
from gateway.messages import FromGateway, FromTill
from gateway.openapi import openapi
from gateway.stream_wire import WIRES

ASYNCAPI_SCHEMA = Path(__file__).parents[1] / "vendored" / "asyncapi-3.0.0.json"  # of the AsyncAPI project, Apache-2.0
EXAMPLES = 12  # for each of 41 operations: some five seconds
NOT_JSON = ("/docs", "/v1/openapi.json", "/v1/asyncapi.json", "/v1/stream")


def served(document: dict[str, object]) -> dict[str, object]:
    return json.loads(msgspec.json.encode(document))  # type: ignore[no-any-return]


@pytest.fixture
async def h(tmp_path: Path, valkey_endpoint: str) -> AsyncIterator[HttpWorld]:
    async with http_world(tmp_path, valkey_endpoint) as made:
        yield made


def test_the_http_document_is_valid() -> None:
    document = served(openapi("1"))
    validate(document)
    ids = [told["operationId"] for path in document["paths"].values() for told in path.values()]  # type: ignore[attr-defined]
    assert len(ids) == len(set(ids)) == len(OPERATIONS)


def test_a_broken_document_is_noticed() -> None:
    document = served(openapi("1"))
    del document["paths"]["/v1/redemptions/{id}"]["get"]["parameters"][0]["in"]  # type: ignore[index]
    with pytest.raises(OpenAPIValidationError):
        validate(document)


def test_the_stream_document_is_valid() -> None:
    validator = jsonschema.Draft7Validator(json.loads(ASYNCAPI_SCHEMA.read_text()))
    document = served(asyncapi("1"))
    assert [error.message for error in validator.iter_errors(document)] == []
    document["operations"]["fromTill"]["action"] = "sends"  # type: ignore[index]
    assert not validator.is_valid(document)


def test_the_stream_document_names_every_message() -> None:
    for rows, union in ((FROM_TILL, FromTill), (FROM_GATEWAY, FromGateway)):
        assert {type(one) for _, one in rows} == set(union.__args__)


@pytest.mark.parametrize("example", [one for _, one in FROM_TILL], ids=lambda one: type(one).__name__)
def test_what_the_document_shows_a_till_sending_is_understood(example: msgspec.Struct) -> None:
    for wire, codec in zip(WIRES.values(), (msgspec.msgpack, msgspec.json), strict=True):
        assert wire.decode(codec.encode(example)) == example


def test_examples_fit_their_schemas() -> None:
    document = served(asyncapi("1"))
    for name, message in document["components"]["messages"].items():  # type: ignore[index]
        schema = {"$ref": f"#/components/schemas/{name}", "components": document["components"]}
        jsonschema.Draft7Validator(schema).validate(message["examples"][0]["payload"])


async def test_every_route_is_in_the_document(h: HttpWorld) -> None:
    mounted = {
        (route.method, route.resource.canonical)
        for route in h.app.router.routes()
        if route.resource is not None and route.method not in ("*", "HEAD")
    }
    public = {(method, path) for method, path in mounted if path not in NOT_JSON and not path.startswith("/console")}
    assert public == {(op.method, op.path) for op in OPERATIONS}


async def test_the_documents_are_served(h: HttpWorld) -> None:
    for path, made in (("/v1/openapi.json", openapi("test")), ("/v1/asyncapi.json", asyncapi("test"))):
        async with h.session.get(path) as answer:
            assert await answer.json() == served(made)
    async with h.session.get("/docs") as answer:
        page = await answer.text()
        assert answer.headers["Content-Security-Policy"].startswith("default-src 'none'")
    assert "<script" not in page
    assert set(re.findall(r'href="#(\w+)"', page)) <= set(re.findall(r'id="(\w+)"', page))


def test_the_documents_are_printed() -> None:
    assert json.loads(tillgate("api", "openapi").out)["openapi"] == "3.1.0"
    assert json.loads(tillgate("api", "asyncapi").out)["asyncapi"] == "3.0.0"
    assert tillgate("api", "html").out.startswith("<!doctype html>")


CHECKS = (
    checks.not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_headers_conformance,
    checks.response_schema_conformance,
)


@pytest.mark.slow
@pytest.mark.timeout(120)
async def test_the_gateway_answers_as_the_document_says(h: HttpWorld) -> None:
    """Generated requests, fitting the schemas and not; what comes back must be in the document, shape and all."""
    schema = schemathesis.openapi.from_dict(served(openapi("test")))
    headers = {"Authorization": f"Bearer {h.tokens['admin']}"}
    answered: Counter[int] = Counter()

    def check_one(operation: schemathesis.APIOperation) -> None:
        @settings(max_examples=EXAMPLES, deadline=None, database=None, suppress_health_check=list(HealthCheck))
        @given(case=operation.as_strategy() | operation.as_strategy(generation_mode=GenerationMode.NEGATIVE))
        def check(case: schemathesis.Case) -> None:
            until_s = time.monotonic() + 10
            while True:
                response = case.call(base_url=f"http://{h.host}:{h.port}", headers=headers)
                if response.status_code != 503 or time.monotonic() > until_s:
                    break  # else it says itself: ask again; a stalled machine has not confirmed its token for a second
            answered[response.status_code] += 1
            case.validate_response(response, checks=CHECKS)

        check()

    for result in schema.get_all_operations():
        await asyncio.to_thread(check_one, result.ok())
    assert {200, 400, 404} <= answered.keys(), answered
    assert answered.total() >= EXAMPLES * len(OPERATIONS) // 4  # some have little to vary
    assert not h.w.core.troubles()
