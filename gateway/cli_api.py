"""`tillgate api`: the documents of the gateway's interfaces, for generators of clients and for reading."""

import click
import msgspec

from gateway.api_page import api_page
from gateway.asyncapi import asyncapi
from gateway.main import package_version
from gateway.openapi import openapi


@click.group()
def api() -> None:
    """Print the documents of the HTTP API and of the tills' stream.

    \b
    A running gateway serves the same: /v1/openapi.json, /v1/asyncapi.json, and /docs for people.
    """


@api.command("openapi")
def print_openapi() -> None:
    """The HTTP API, as OpenAPI 3.1 (JSON)."""
    _print(openapi(package_version()))


@api.command("asyncapi")
def print_asyncapi() -> None:
    """The tills' stream, as AsyncAPI 3.0 (JSON)."""
    _print(asyncapi(package_version()))


@api.command("html")
def print_html() -> None:
    """The HTTP API as one page for people."""
    click.echo(api_page(openapi(package_version())))


def _print(document: dict[str, object]) -> None:
    click.echo(msgspec.json.format(msgspec.json.encode(document)).decode())
