"""`tillgate exposure`: what may be lost by accepting offline, at worst and now."""

import json
from datetime import UTC, datetime
from typing import Any

import click

from gateway.cli_output import print_rows, prints_results, say
from gateway.cli_session import Reach, ask, reaches_gateway
from gateway.money import money_text

Row = dict[str, Any]
SILENT_SHOWN_MAX = 20  # of the terminals, the longest away first; --json has them all
COLUMNS = (
    "campaign",
    "granted",
    "terminals",
    "at most each",
    "minutes",
    "worst loss",
    "silent",
    "at risk now",
    "conflicts",
)


@click.command()
@reaches_gateway
@prints_results
def exposure(reach: Reach, as_json: bool) -> None:
    """Print the worst loss by offline acceptance, and what tills out of contact may have accepted.

    The worst loss is terminals times caps: what is lost if every voucher a till may accept offline was redeemed
    elsewhere, too. A gateway knows of its own lines only: where several run, ask each (--url).

    \b
    tillgate exposure
    tillgate exposure --json
    """
    found: Row = ask(reach, lambda client: client.get("/v1/exposure", Row))
    if as_json:
        click.echo(json.dumps(found, ensure_ascii=False))
        return
    if not found["campaigns"]:
        say("no campaign allows offline acceptance: nothing can be lost by it")
        return
    print_rows([_campaign_row(risk) for risk in found["campaigns"]], COLUMNS, as_json=False)
    for total in found["totals"]:
        click.echo(_total_line(total))
    silent = found["silent"]
    if silent:
        click.echo(f"Out of contact: {len(silent)} terminals")
        for one in silent[:SILENT_SHOWN_MAX]:
            click.echo(
                f"  terminal {one['terminal']} ({one['label']}, {one['store']}): {_since(one, found['since_ms'])}"
            )
        if len(silent) > SILENT_SHOWN_MAX:
            click.echo(f"  and {len(silent) - SILENT_SHOWN_MAX} more: --json shows all")


def _campaign_row(risk: Row) -> Row:
    currency = risk["currency"]
    lost = f" ({money_text(risk['conflicts_minor'], currency)})" if risk["conflicts"] else ""
    return {
        "campaign": risk["campaign"],
        "granted": "yes" if risk["granted"] else "no more",
        "terminals": risk["terminals"],
        "at most each": f"{risk['count_max']}, {money_text(risk['value_minor_max'], currency)}",
        "minutes": risk["minutes_max"],
        "worst loss": money_text(risk["worst_minor"], currency),
        "silent": risk["silent"],
        "at risk now": money_text(risk["silent_minor"], currency),
        "conflicts": f"{risk['conflicts']}{lost}",
    }


def _total_line(total: Row) -> str:
    worst, now, lost = (
        money_text(total[f"{name}_minor"], total["currency"]) for name in ("worst", "silent", "conflicts")
    )
    return f"In all: worst loss {worst}, at risk now {now}, conflicts so far {lost}"


def _since(one: Row, started_ms: int) -> str:
    if one["since_ms"]:
        return f"since {_moment(one['since_ms'])}"
    return f"not seen since this gateway started, {_moment(started_ms)}"


def _moment(at_ms: int) -> str:
    return f"{datetime.fromtimestamp(at_ms / 1000, UTC):%Y-%m-%d %H:%M:%SZ}"
