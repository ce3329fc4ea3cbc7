"""The stream that tills keep open, as an AsyncAPI 3.0 document, made from the types that are on the wire. Pure.

Source of the format: AsyncAPI Specification 3.0.0, whose schemas are JSON Schema draft 07; msgspec writes 2020-12, and
the one difference that matters to arrays of fixed places is translated. Binary fields are base64 in `tillgate.v1.json`,
and plain bytes in `tillgate.v1` (msgpack).
"""

from typing import Any

import msgspec

from gateway import messages as m

Json = dict[str, Any]

ABOUT = (
    "One WebSocket for each till. The subprotocol `tillgate.v1` sends msgpack arrays in binary frames, "
    "`tillgate.v1.json` the same arrays as JSON in text frames. A till says `hello`, signs the `challenge`, is told "
    "`welcome`, and then sends `redeem` and `reverse` messages; each gets one `verdicts` message with its `ref`, in no "
    "particular order. Code 255 (unresolved) means that nothing is known: send the same with the same id again."
)
_LICENSE = {"name": "Apache-2.0"}
_ID, _OTHER_ID, _NONCE = bytes(range(16)), bytes(range(16, 32)), bytes(32)
_SCAN = m.Redeem(_ID, "T100V10G0000A0B1C2D3E4F5G6H7I8J9", 1_763_700_000_000)
_UNDO = m.Reverse(_OTHER_ID, _ID, 1_763_700_060_000, _SCAN, "wrong article")
_FACT = m.Fact(_SCAN, 1_763_700_000_000, 1_763_699_400_000)
_OPENS = [(1_763_600_000_000, 1_763_800_000_000)]
_OFFER = m.OfflineOffer(12, "Noodle soup, 18.00 CNY", 1800, "CNY", _OPENS, [(1, 5001)], 20, 36_000, 120)
_GRANT = m.Grant(1_763_700_000_000, 1_763_710_000_000, {1: _NONCE}, [_OFFER])
_WINNER = m.Winner("noodle-bar-1", "..07", 1_763_699_000_000)
_ANSWERS = m.Verdicts(1, bytes([0, 21]), 1_763_700_000_005, [m.Place(0, 42, 0, 2)], {1: m.Detail(_WINNER)})
FROM_TILL: tuple[tuple[str, msgspec.Struct], ...] = (
    ("Who is calling, first of all.", m.Hello(7, "tillgate-terminal 0.1.0")),
    ("The device's Ed25519 signature over `tillgate-hello-1\\n` and the nonce.", m.Proof(bytes(64))),
    (f"1 to {m.SCANS_PER_MESSAGE_MAX} scans.", m.RedeemMany(1, [_SCAN])),
    ("Redemptions to undo.", m.ReverseMany(2, [_UNDO])),
    ("Vouchers that were accepted without a connection, under the grant.", m.FactMany(3, [_FACT])),
)
FROM_GATEWAY: tuple[tuple[str, msgspec.Struct], ...] = (
    ("Random bytes to sign.", m.Challenge(_NONCE)),
    ("The terminal is known and let in.", m.Welcome("noodle-bar-1", 1_763_700_000_000, "zh")),
    ("The answers to one message, in its order.", _ANSWERS),
    ("What this till may accept without a connection, if its hello asked for it.", _GRANT),
    ("This gateway is about to leave: connect again, to another one if there is one.", m.Drain(5000)),
    ("Something a person should know; before a close it says why.", m.Notice("not_welcome", "terminal 7 was revoked")),
)


def asyncapi(version: str) -> Json:
    """The document, as it is served and committed."""
    rows = (*FROM_TILL, *FROM_GATEWAY)
    schemas, components = msgspec.json.schema_components(
        [type(example) for _, example in rows], ref_template="#/components/schemas/{name}"
    )
    assert all("$ref" in schema for schema in schemas), "each is a reference to its component"
    messages = {_name(one): _ref("messages", one) for _, one in rows}
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Tillgate stream",
            "version": version,
            "description": ABOUT,
            "license": _LICENSE,
        },
        "defaultContentType": "application/msgpack",
        "servers": {"gateway": {"host": "gateway.example", "protocol": "wss"}},
        "channels": {"stream": {"address": "/v1/stream", "messages": messages}},
        "operations": {
            "fromTill": _operation("receive", FROM_TILL),
            "fromGateway": _operation("send", FROM_GATEWAY),
        },
        "components": {
            "messages": {_name(one): _message(text, one) for text, one in rows},
            "schemas": {name: _draft_07(schema) for name, schema in sorted(components.items())},
        },
    }


def _operation(action: str, rows: tuple[tuple[str, msgspec.Struct], ...]) -> Json:
    messages = [{"$ref": f"#/channels/stream/messages/{_name(one)}"} for _, one in rows]
    return {"action": action, "channel": {"$ref": "#/channels/stream"}, "messages": messages}


def _message(text: str, example: msgspec.Struct) -> Json:
    return {
        "name": _name(example),
        "summary": text,
        "payload": _ref("schemas", example),
        "examples": [{"payload": msgspec.to_builtins(example)}],
    }


def _name(example: msgspec.Struct) -> str:
    return type(example).__name__


def _ref(kind: str, example: msgspec.Struct) -> Json:
    return {"$ref": f"#/components/{kind}/{_name(example)}"}


def _draft_07(schema: Any) -> Any:
    """`prefixItems` of 2020-12 is called `items` in draft 07, and what comes after them `additionalItems`."""
    if isinstance(schema, list):
        return [_draft_07(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    told = {name: _draft_07(one) for name, one in schema.items()}
    if "prefixItems" in told:
        rest = told.pop("items", None)
        told["items"] = told.pop("prefixItems")
        if rest is not None:
            told["additionalItems"] = rest
    return told
