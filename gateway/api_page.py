"""The API's document as one page for people: no script, nothing from elsewhere. Pure."""

import base64
import hashlib
from html import escape
from typing import Any

Json = dict[str, Any]

STYLE = """
:root{color-scheme:light dark;--ink:#16202a;--soft:#5b6b7a;--line:#d9e0e6;--paper:#fff;--block:#f4f6f8;--go:#0b6b4f}
@media(prefers-color-scheme:dark){:root{--ink:#e6edf3;--soft:#9fb0bf;--line:#2b3742;--paper:#0f161c;--block:#18222b;
--go:#5fd3a8}}
*{box-sizing:border-box}
body{margin:0 auto;max-width:60rem;padding:1.5rem 1rem 4rem;font:16px/1.55 system-ui,sans-serif;color:var(--ink);
background:var(--paper)}
h1{margin:.2em 0}h2{margin:2.2em 0 .4em;border-bottom:1px solid var(--line)}p{margin:.4em 0}
nav a{margin-right:1rem}a{color:var(--go)}
details{border:1px solid var(--line);border-radius:.5rem;margin:.5rem 0;padding:.5rem .8rem}
summary{cursor:pointer;overflow-wrap:anywhere}summary b{display:inline-block;min-width:3.4rem;color:var(--go)}
summary span{color:var(--soft)}code,pre{font:14px/1.5 ui-monospace,monospace}
pre{background:var(--block);padding:.7rem;border-radius:.4rem;overflow-x:auto}
table{border-collapse:collapse;width:100%;margin:.5rem 0}td,th{border-top:1px solid var(--line);padding:.3rem .6rem;
text-align:left;vertical-align:top;overflow-wrap:anywhere}
"""
STYLE_HASH = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
CSP = (
    f"default-src 'none'; style-src 'sha256-{STYLE_HASH}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def api_page(document: Json) -> str:
    """HTML of an OpenAPI document of ours."""
    about = document["info"]
    groups = "".join(_group(document, tag) for tag in document["tags"])
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" '
        f'content="width=device-width,initial-scale=1"><title>{escape(about["title"])} API</title>'
        f"<style>{STYLE}</style></head><body><h1>{escape(about['title'])} API</h1>"
        f"<p>Version {escape(about['version'])}. {_text(about['description'])}</p>"
        '<nav><a href="/v1/openapi.json">OpenAPI 3.1</a><a href="/v1/asyncapi.json">AsyncAPI 3.0 (the stream)</a></nav>'
        f"{groups}<h2>Types</h2>{_types(document['components']['schemas'])}</body></html>"
    )


def _group(document: Json, tag: Json) -> str:
    rows = [(method, path, told) for path, methods in document["paths"].items() for method, told in methods.items()]
    shown = "".join(_operation(method, path, told) for method, path, told in rows if tag["name"] in told["tags"])
    return f"<h2>{escape(tag['name'].capitalize())}</h2><p>{_text(tag['description'])}</p>{shown}"


def _operation(method: str, path: str, told: Json) -> str:
    parameters = "".join(
        f"<tr><td><code>{escape(one['name'])}</code></td><td>{escape(_shape(one['schema']))}</td>"
        f"<td>{_text(one.get('description') or one['schema'].get('description', ''))}</td></tr>"
        for one in told["parameters"]
    )
    body = told.get("requestBody")
    takes = f"<p>Takes {_content(body)}.</p>" if body else ""
    answers = "".join(
        f"<tr><td>{code}</td><td>{_text(answer['description'])}</td><td>{_content(answer)}</td></tr>"
        for code, answer in told["responses"].items()
    )
    return (
        f'<details id="{told["operationId"]}"><summary><b>{method.upper()}</b> <code>{escape(path)}</code> '
        f"<span>{escape(told['summary'])}</span></summary><p>{_text(told['description'])}</p>"
        + (f"<table>{parameters}</table>" if parameters else "")
        + f"{takes}<table>{answers}</table></details>"
    )


def _content(told: Json) -> str:
    return ", ".join(_linked(one["schema"]) for one in told["content"].values())


def _linked(schema: Json) -> str:
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f'<a href="#{name}"><code>{name}</code></a>'
    if schema.get("type") == "array" and "items" in schema:
        return f"a list of {_linked(schema['items'])}"
    return escape(_shape(schema))


def _types(schemas: Json) -> str:
    return "".join(
        f'<details id="{name}"><summary><code>{name}</code> <span>{escape(schema.get("description", ""))}</span>'
        f"</summary><table>{_fields(schema)}</table></details>"
        for name, schema in schemas.items()
    )


def _fields(schema: Json) -> str:
    return "".join(_field(schema, name, told) for name, told in schema.get("properties", {}).items())


def _field(schema: Json, name: str, told: Json) -> str:
    needed = "" if name in schema.get("required", ()) else "optional"
    return f"<tr><td><code>{escape(name)}</code></td><td>{_linked(told)}</td><td>{needed}</td></tr>"


def _shape(schema: Json) -> str:
    """A schema in a few words."""
    if "enum" in schema:
        return "one of " + ", ".join(map(str, schema["enum"]))
    if "anyOf" in schema:
        return " or ".join(one.get("type") or one["$ref"].rpartition("/")[2] for one in schema["anyOf"])
    limits = [f"{schema[bound]}" for bound in ("minimum", "maximum") if bound in schema]
    return str(schema.get("type", "anything")) + (f" ({' to '.join(limits)})" if limits else "")


def _text(text: str) -> str:
    """Escaped, with `code` marked as such."""
    parts = escape(text).split("`")
    return "".join(f"<code>{part}</code>" if index % 2 else part for index, part in enumerate(parts))
