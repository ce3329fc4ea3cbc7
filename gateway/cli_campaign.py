"""`tillgate merchant`, `store`, `alliance` and `campaign`: who takes part, and in what."""

import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import click
import msgspec

from gateway.cli_output import EXIT_USAGE, Fault, next_step, print_one, print_rows, prints_results
from gateway.cli_session import Reach, ask, reaches_gateway

Row = dict[str, Any]


@click.group()
def merchant() -> None:
    """Add and list merchants, the parties that are paid."""


@merchant.command("add")
@click.argument("merchant_id")
@click.option("--title", required=True, help="The name people know it by.")
@reaches_gateway
@prints_results
def add_merchant(merchant_id: str, title: str, reach: Reach, as_json: bool) -> None:
    """Add a merchant. MERCHANT_ID is 1 to 32 of a-z, 0-9 and dashes.

    \b
    tillgate merchant add noodle-king --title "Noodle King Ltd."
    """
    _post(reach, "/v1/merchants", {"merchant": merchant_id, "title": title}, as_json)
    next_step(f"tillgate store open STORE --merchant {merchant_id} --title TITLE")


@merchant.command("list")
@reaches_gateway
@prints_results
def list_merchants(reach: Reach, as_json: bool) -> None:
    """List merchants."""
    _list(reach, "/v1/merchants", ("merchant", "title"), as_json)


@click.group()
def store() -> None:
    """Open and list stores."""


@store.command("open")
@click.argument("store_id")
@click.option("--merchant", "merchant_id", required=True, help="Whose store it is.")
@click.option("--title", required=True, help="The name people know it by.")
@reaches_gateway
@prints_results
def open_store(store_id: str, merchant_id: str, title: str, reach: Reach, as_json: bool) -> None:
    """Open a store of a merchant. STORE_ID is 1 to 32 of a-z, 0-9 and dashes.

    \b
    tillgate store open noodle-king-3 --merchant noodle-king --title "Noodle King, East Gate"
    """
    _post(reach, "/v1/stores", {"store": store_id, "merchant": merchant_id, "title": title}, as_json)
    next_step(f"tillgate terminal offer --store {store_id}")


@store.command("list")
@reaches_gateway
@prints_results
def list_stores(reach: Reach, as_json: bool) -> None:
    """List stores."""
    _list(reach, "/v1/stores", ("store", "merchant", "title"), as_json)


@click.group()
def alliance() -> None:
    """Define and list alliances of merchants."""


@alliance.command()
@click.argument("alliance_id")
@click.argument("merchants", nargs=-1, required=True)
@reaches_gateway
@prints_results
def define(alliance_id: str, merchants: tuple[str, ...], reach: Reach, as_json: bool) -> None:
    """Define an alliance, or replace its members: all stores of these MERCHANTS take part in its campaigns.

    \b
    tillgate alliance define east-side noodle-king tea-house
    """
    _post(reach, "/v1/alliances", {"alliance": alliance_id, "merchants": merchants}, as_json)


@alliance.command("list")
@reaches_gateway
@prints_results
def list_alliances(reach: Reach, as_json: bool) -> None:
    """List alliances and their members."""
    _list(reach, "/v1/alliances", ("alliance", "merchants"), as_json)


# --- campaigns ------------------------------------------------------------------------------------------------------


@click.group()
def campaign() -> None:
    """Create, list, show, pause, resume, close and purge campaigns."""


_TEXT_FLAGS = {  # of `campaign create`, by the field of the offer they set
    "title": "Its name, as people read it.",
    "kind": "prepaid, discount or gift.",
    "value": 'What one voucher is worth, e.g. "12.50 CNY".',
    "starts": "First day or moment, e.g. 2025-11-01 or 2025-11-01T09:30.",
    "ends": "Last day, or the moment it ends.",
    "time_zone": "IANA name for days and hours, e.g. Asia/Shanghai.",
    "alliance": "Every store of this alliance takes part.",
    "funder": "Who pays for it.",
    "channel": "Who brings the shoppers.",
    "reversal_window": "How long a redemption may be undone, e.g. 15m.",
    "dispute": "How long its vouchers are kept after it closed, e.g. 90d.",
}


def _offer_flags(command: Callable[..., Any]) -> Callable[..., Any]:
    for field, text in reversed(_TEXT_FLAGS.items()):
        command = click.option(f"--{field.replace('_', '-')}", field, help=text)(command)
    text = 'Open hours, e.g. "mon-fri 11:00-14:00"; may be given again.'
    command = click.option("--hours", "hours", multiple=True, help=text)(command)
    return click.option("--store", "stores", multiple=True, help="A store that takes part; may be given again.")(
        command
    )


@campaign.command()
@click.argument("slug")
@click.option("--file", type=click.Path(path_type=Path), help="TOML file with the offer; flags override it.")
@_offer_flags
@reaches_gateway
@prints_results
def create(slug: str, file: Path | None, reach: Reach, as_json: bool, **flags: Any) -> None:
    """Create a campaign from a TOML file, from flags, or both. SLUG is 1 to 32 of a-z, 0-9 and dashes.

    \b
    tillgate campaign create noodles --title "Autumn noodles" --kind prepaid --value "12.50 CNY" \\
        --starts 2025-11-01 --ends 2025-11-30 --alliance east-side
    """
    offer = read_offer(file) | {name: value for name, value in flags.items() if value}
    _refuse_bad_offer(offer, file, flags)
    body = {"slug": slug, "offer": msgspec.to_builtins(offer)}
    print_one(_told(ask(reach, lambda client: client.post("/v1/campaigns", body, Row)), as_json), as_json)
    next_step(f"tillgate voucher issue {slug} --count 100 --out codes.csv")


def read_offer(file: Path | None) -> Row:
    """The mapping in a TOML file; empty if there is none. Raises Fault, which names the file and the line."""
    if file is None:
        return {}
    try:
        return tomllib.loads(file.read_text("utf-8"))
    except OSError as error:
        raise Fault(f"{file} cannot be read: {error.strerror}", EXIT_USAGE) from None
    except UnicodeDecodeError as error:
        raise Fault(f"{file} is not UTF-8 text (byte {error.start})", EXIT_USAGE) from None
    except tomllib.TOMLDecodeError as error:
        raise Fault(f"{file} is not TOML: {error}", EXIT_USAGE) from None


def _refuse_bad_offer(offer: Row, file: Path | None, flags: Row) -> None:
    """The gateway checks as well; here the fault can be named as it was written: in the file, or as a flag."""
    from gateway.directory import Rejected
    from gateway.offer_input import offer_from_mapping

    checked = offer_from_mapping(
        {name: list(each) if isinstance(each, tuple) else each for name, each in offer.items()}
    )
    if not isinstance(checked, Rejected):
        return
    name = checked.field.partition(".")[0].partition("[")[0]
    as_flag = file is None or flags.get(name)
    flag = "--store" if name == "stores" else f"--{name.replace('_', '-')}"
    where = f"{flag}:" if as_flag else f"{file}: {checked.field}:"
    raise Fault(f"{where} {checked.why}", EXIT_USAGE)


@campaign.command("list")
@reaches_gateway
@prints_results
def list_campaigns(reach: Reach, as_json: bool) -> None:
    """List campaigns."""
    rows = ask(reach, lambda client: client.get("/v1/campaigns", list[Row]))
    print_rows([_told(row, as_json) for row in rows], ("campaign", "slug", "state", "issued", "title"), as_json)


@campaign.command()
@click.argument("slug")
@reaches_gateway
@prints_results
def show(slug: str, reach: Reach, as_json: bool) -> None:
    """Show one campaign: its offer, and how many vouchers it has."""
    told = ask(reach, lambda client: client.get(f"/v1/campaigns/{quote(slug, '')}", Row))
    print_one(_told(told, as_json), as_json)


@campaign.command()
@click.argument("slug")
@reaches_gateway
@prints_results
def pause(slug: str, reach: Reach, as_json: bool) -> None:
    """Stop redemptions for now; it binds at every gateway within a second."""
    _step(reach, slug, "pause", as_json)
    next_step(f"tillgate campaign resume {slug}")


@campaign.command()
@click.argument("slug")
@reaches_gateway
@prints_results
def resume(slug: str, reach: Reach, as_json: bool) -> None:
    """Allow redemptions again."""
    _step(reach, slug, "resume", as_json)


@campaign.command()
@click.argument("slug")
@reaches_gateway
@prints_results
def close(slug: str, reach: Reach, as_json: bool) -> None:
    """End a campaign for ever."""
    _step(reach, slug, "close", as_json)


@campaign.command()
@click.argument("slug")
@reaches_gateway
@prints_results
def purge(slug: str, reach: Reach, as_json: bool) -> None:
    """Free what Valkey holds of a closed campaign, once its dispute period is over. The log keeps everything."""
    _step(reach, slug, "purge", as_json)


def _step(reach: Reach, slug: str, verb: str, as_json: bool) -> None:
    told = ask(reach, lambda client: client.post(f"/v1/campaigns/{quote(slug, '')}/{verb}", {}, Row))
    print_one(_told(told, as_json), as_json)


def _told(campaign: Row, as_json: bool) -> Row:
    """A campaign as the gateway tells it; for people without the boxes inside boxes."""
    if as_json:
        return campaign
    offer = {name: value for name, value in campaign["offer"].items() if name != "offline" or value}
    return {name: value for name, value in campaign.items() if name != "offer"} | offer


def _post(reach: Reach, path: str, body: Row, as_json: bool) -> None:
    print_one(ask(reach, lambda client: client.post(path, body, Row)), as_json)


def _list(reach: Reach, path: str, columns: tuple[str, ...], as_json: bool) -> None:
    print_rows(ask(reach, lambda client: client.get(path, list[Row])), columns, as_json)
