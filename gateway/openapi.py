"""The HTTP API as an OpenAPI 3.1 document, made from the types that decode and encode it. Pure.

Source of the format: OpenAPI Specification 3.1.1; its schemas are JSON Schema 2020-12, which is what msgspec writes.
"""

import re
from http import HTTPStatus
from typing import Any

import msgspec

from gateway.api_operations import OPERATIONS, TEXT, Operation, Query
from gateway.http_gate import JSON, PROBLEM_JSON, ProblemBody
from gateway.http_health import Readiness
from gateway.http_vouchers import VoidRequest, VoucherNamed
from gateway.messages import PUBLIC, Answer
from gateway.roles import ROLES

Json = dict[str, Any]

TITLE = "Tillgate"
ABOUT = (
    "Redeems single-use vouchers at store tills, each of them once. Tills that stay connected use the stream instead "
    "(`/v1/asyncapi.json`). Every verdict is HTTP 200 with exactly one reason; errors are problem+json (RFC 9457) and "
    "name the field that is wrong."
)
TAGS = {
    "tills": "What integrators and tools do in the place of a till.",
    "campaigns": "Offers that sets of vouchers belong to.",
    "vouchers": "Issue, import, show and end vouchers.",
    "parties": "Merchants, alliances and stores.",
    "terminals": "Tills' devices.",
    "access": "Bearer tokens, and the keys that sign codes.",
    "log": "The event log, which decides.",
    "health": "For load balancers and supervisors.",
}
REFUSALS = {
    400: "The body, or a number in the query, is wrong; `field` names the place.",
    401: "No bearer token, or one that is unknown or revoked.",
    403: "The token's role may not do this, or not to this object.",
    404: "There is no such object, or it is not yours to see.",
    409: "Well formed, but against what is so already; `field` and `detail` say what.",
    413: "The body is too large.",
    415: "The body's media type is not one that is listed.",
    503: "Nothing is known now: send the same request again after `Retry-After` seconds.",
}
ID_PATTERN = "^([0-9A-Fa-f]{32}|[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12})$"
_LICENSE = {"name": "Apache-2.0", "identifier": "Apache-2.0"}
_TOKEN_TEXT = "A token of `tillgate token create`; each operation says which roles may use it."  # noqa: S105 - a text
PATH_SCHEMAS: dict[str, Json] = {
    "id": {"type": "string", "pattern": ID_PATTERN, "description": "the redemption_id: 32 hex digits, or a UUID"},
    "slug": {"type": "string", "description": "the campaign's slug, or its number"},
    "number": {"type": "integer", "minimum": 1, "maximum": 2**32 - 1, "description": "the terminal's number"},
    "token_id": {"type": "string", "pattern": "^[0-9a-f]+$", "description": "the token's public id"},
    "key_id": {"type": "integer", "minimum": 1, "description": "the key's id"},
    "partition": {"type": "string", "pattern": "^(control|[0-9]+)$", "description": "its number, or `control`"},
}
VERDICT_NAMES = sorted({verdict.name.lower() for verdict in PUBLIC if verdict is not None})


def openapi(version: str) -> Json:
    """The document, as it is served and committed."""
    json_types = [one for op in OPERATIONS for one in (op.takes, op.gives) if one is not None]
    schemas, components = msgspec.json.schema_components(
        [*json_types, ProblemBody], ref_template="#/components/schemas/{name}"
    )
    schema_of = dict(zip(json_types, schemas[:-1], strict=True))
    components["Answer"]["properties"]["verdict"]["enum"] = VERDICT_NAMES
    return {
        "openapi": "3.1.0",
        "info": {"title": TITLE, "version": version, "description": ABOUT, "license": _LICENSE},
        "tags": [{"name": name, "description": text} for name, text in TAGS.items()],
        "paths": _paths(schema_of),
        "components": {
            "schemas": dict(sorted(components.items())),
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer", "description": _TOKEN_TEXT}},
        },
    }


def _paths(schema_of: dict[object, Json]) -> Json:
    paths: Json = {}
    for op in OPERATIONS:
        paths.setdefault(op.path, {})[op.method.lower()] = _operation(op, schema_of)
    return paths


def _operation(op: Operation, schema_of: dict[object, Json]) -> Json:
    told: Json = {
        "operationId": _operation_id(op),
        "tags": [op.tag],
        "summary": op.summary,
        "description": "\n\n".join(filter(None, (op.text, _who(op)))),
        "security": [{"token": []}] if op.actions else [],
        "parameters": [*map(_path_parameter, _names_in(op.path)), *map(_query_parameter, op.queries)],
        "responses": {"200": _success(op, schema_of), **_refusals(op)},
    }
    if op.takes is not None:
        told["requestBody"] = {"required": True, "content": {JSON: {"schema": schema_of[op.takes]}}}
    if op.lines:
        content = {media: {"schema": {"type": "string"}} for media in op.lines}
        told["requestBody"] = {"required": True, "content": content}
    return told


def _who(op: Operation) -> str:
    if not op.actions:
        return "Needs no bearer token."
    roles = [name for name, role in ROLES.items() if not role.actions.isdisjoint(op.actions)]
    return "For the roles " + ", ".join(roles) + "."


def _operation_id(op: Operation) -> str:
    words = re.sub(r"[^a-z0-9]+", "_", op.path.removeprefix("/v1").lower()).strip("_")
    return f"{op.method.lower()}_{words}"


def _names_in(path: str) -> list[str]:
    return re.findall(r"{(\w+)}", path)


def _path_parameter(name: str) -> Json:
    return {"name": name, "in": "path", "required": True, "schema": PATH_SCHEMAS[name]}


def _query_parameter(query: Query) -> Json:
    if query.high == 0:
        schema: Json = {"type": "string"}
    else:
        schema = {"type": "integer", "minimum": query.low, "maximum": query.high, "default": query.default}
    told: Json = {"name": query.name, "in": "query", "description": query.text, "schema": schema}
    return told | {"required": True} if query.required else told


def _success(op: Operation, schema_of: dict[object, Json]) -> Json:
    if op.gives is None:
        text = "one JSON object a line" if op.media != TEXT else "lines of text"
        return {"description": text, "content": {op.media: {"schema": {"type": "string"}}}}
    return {"description": "done", "content": {op.media: {"schema": schema_of[op.gives]}}}


def _refusals(op: Operation) -> Json:
    codes: set[int] = set()
    if op.actions:
        codes |= {401, 403, 503}
    if op.takes is not None or op.lines:
        codes |= {400, 413, 415, 503}
    if "{id}" in op.path or any(query.high for query in op.queries):
        codes.add(400)
    if "{" in op.path or op.takes in (VoucherNamed, VoidRequest):
        codes.add(404)
    if op.changes:
        codes.add(409)
    if op.gives is Readiness:
        codes.add(503)
    return {str(code): _refusal(op, code) for code in sorted(codes)}


def _refusal(op: Operation, code: int) -> Json:
    told: Json = {"description": REFUSALS[code], "content": {PROBLEM_JSON: {"schema": _ref(ProblemBody)}}}
    if code == HTTPStatus.SERVICE_UNAVAILABLE:
        told["headers"] = {"Retry-After": {"description": "seconds", "schema": {"type": "integer"}}}
        if op.gives is Answer or op.gives is Readiness:
            told["content"][JSON] = {"schema": _ref(op.gives)}
    return told


def _ref(one: type) -> Json:
    return {"$ref": f"#/components/schemas/{one.__name__}"}
