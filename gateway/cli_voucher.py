"""`tillgate voucher`: issue, import, show and void, one or a million."""

import secrets
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from gateway.cli_output import (
    EXIT_DIFFERENT,
    EXIT_UNREACHABLE,
    EXIT_USAGE,
    Fault,
    next_step,
    print_one,
    prints_results,
    progress,
    read_secret_line,
    say,
)
from gateway.cli_session import Reach, ask, reaches_gateway

if TYPE_CHECKING:  # both load aiohttp
    from gateway.client import Client
    from gateway.issue_files import Errand
    from gateway.voucher_files import Advance, Rejects, Tally

ISSUE_MAX = 10_000_000  # at 40 bytes a voucher the output is 400 MB; more is a slip of the keyboard
FROM_STDIN = "-"

Row = dict[str, Any]
T = TypeVar("T")
_file = click.Path(path_type=Path, dir_okay=False)


@click.group()
def voucher() -> None:
    """Issue, import, show and void vouchers."""


@voucher.command()
@click.argument("slug")
@click.option("--count", type=click.IntRange(1, ISSUE_MAX), required=True, help="How many.")
@click.option("--out", type=_file, required=True, help="New file for the codes, readable by you only.")
@click.option("--typed", is_flag=True, help="16 digits to be typed at the till, instead of signed codes for pictures.")
@click.option("--request-id", help="Name of this request; the same name again issues nothing new.")
@reaches_gateway
@prints_results
def issue(slug: str, count: int, out: Path, typed: bool, request_id: str | None, reach: Reach, as_json: bool) -> None:
    """Issue vouchers of the campaign SLUG into a file. If it is cut off, run it again: it goes on where it was.

    \b
    tillgate voucher issue noodles --count 10000 --out codes.csv
    """
    from gateway.issue_files import Errand

    errand = Errand(slug, "typed" if typed else "signed", count, request_id or f"issue-{secrets.token_hex(16)}")
    issued = _issue_typed(reach, errand, out) if typed else _issue_signed(reach, errand, out)
    print_one({"campaign": slug, "kind": errand.kind, "count": count, **issued, "out": str(out)}, as_json)


def _issue_signed(reach: Reach, errand: "Errand", out: Path) -> Row:
    from gateway.issue_files import issue_signed

    done, first_serial = _with_progress(
        reach, "issue", errand.count, lambda client, advance: issue_signed(client, errand, out, advance)
    )
    return {"first_serial": first_serial, "request_id": done.request_id}


def _issue_typed(reach: Reach, errand: "Errand", out: Path) -> Row:
    from gateway.issue_files import issue_typed
    from gateway.voucher_files import Rejects

    rejects = Rejects(_rejects(out, None))
    tally = _with_progress(
        reach, "issue", errand.count, lambda client, advance: issue_typed(client, errand, out, rejects, advance)
    )
    rejects.write()
    if tally.rejected:
        raise Fault(f"{tally.rejected} codes of {out} were rejected: see {rejects.path}", EXIT_DIFFERENT)
    return {"accepted": tally.accepted, "repeated": tally.repeated}


@voucher.command("import")
@click.argument("slug")
@click.argument("file", type=_file)
@click.option("--column", default="code", show_default=True, help="Column of the codes, if the first line names it.")
@click.option("--rejects", "rejects_file", type=_file, help="File for rejected lines (else FILE.rejects.csv).")
@click.option("--dry-run", is_flag=True, help="Only say which lines could be imported; asks no gateway.")
@reaches_gateway
@prints_results
def import_codes(
    slug: str,
    file: Path,
    column: str,
    rejects_file: Path | None,
    dry_run: bool,
    reach: Reach,
    as_json: bool,
) -> int:
    """Import codes made elsewhere, typed or foreign: a file with one code a line, or CSV.

    Rejected lines go to a file of their own, by number and reason, and the exit code is 3. Run it again after an
    interruption: what was imported is not imported twice.

    \b
    tillgate voucher import noodles partner-codes.csv --dry-run
    """
    rejects = _rejects(file, rejects_file)
    began_s = time.monotonic()
    lines, tally = _dry_run(file, column, rejects) if dry_run else _import(reach, slug, file, column, rejects)
    seconds = time.monotonic() - began_s
    result = {
        "campaign": slug,
        "lines": lines,
        ("importable" if dry_run else "accepted"): tally.accepted,
        "repeated": tally.repeated,
        "rejected": tally.rejected,
        "rejects": str(rejects) if tally.rejected else None,
        "lines_per_second": round(lines / seconds),
    }
    print_one(result, as_json)
    return EXIT_DIFFERENT if tally.rejected else 0


def _rejects(file: Path, given: Path | None) -> Path:
    return given or file.with_name(f"{file.name}.rejects.csv")


def _dry_run(file: Path, column: str, rejects_file: Path) -> tuple[int, "Tally"]:
    from gateway.bulk import chunked
    from gateway.voucher_files import Rejects, Tally, note_rejects, sorted_lines, survey

    _, lines = survey(file)
    tally, rejects = Tally(), Rejects(rejects_file)
    with progress("check", lines) as advance:
        for chunk in chunked(sorted_lines(file, column.casefold())):
            note_rejects(chunk, tally, rejects)
            advance(len(chunk))
            tally.accepted += len(chunk)
    tally.accepted -= tally.rejected
    rejects.write()
    return lines, tally


def _import(reach: Reach, slug: str, file: Path, column: str, rejects_file: Path) -> tuple[int, "Tally"]:
    from gateway.voucher_files import import_file

    def job(client: "Client", rejects: "Rejects", advance: "Advance") -> Awaitable["Tally"]:
        return import_file(client, slug, file, column.casefold(), rejects, advance)

    return _with_rejects(reach, "import", file, rejects_file, job)


# --- one voucher ----------------------------------------------------------------------------------------------------


@voucher.command()
@click.argument("voucher_id", required=False)
@click.option("--code", metavar="-", help="`-`: read the voucher's code from a prompt or standard input.")
@reaches_gateway
@prints_results
def show(voucher_id: str | None, code: str | None, reach: Reach, as_json: bool) -> None:
    """Show the life of one voucher, by its id (CAMPAIGN-SERIAL) or by its code.

    \b
    tillgate voucher show 7-1024
    tillgate voucher show --code -
    """
    body = _which(voucher_id, code)
    print_one(ask(reach, lambda client: client.post("/v1/vouchers/show", body, Row)), as_json)


@voucher.command()
@click.argument("voucher_ids", nargs=-1)
@click.option("--code", metavar="-", help="`-`: read the voucher's code from a prompt or standard input.")
@click.option("--ids", type=_file, help="File of voucher ids, one a line, or CSV with a column voucher_id.")
@click.option("--codes", type=_file, help="File of codes, one a line, or CSV with a column code.")
@click.option("--reason", required=True, help="Why; it goes into the log.")
@click.option("--rejects", "rejects_file", type=_file, help="File for rejected lines (else FILE.rejects.csv).")
@reaches_gateway
@prints_results
def void(
    voucher_ids: tuple[str, ...],
    code: str | None,
    ids: Path | None,
    codes: Path | None,
    reason: str,
    rejects_file: Path | None,
    reach: Reach,
    as_json: bool,
) -> int:
    """End vouchers that are not redeemed yet: one, several, or all of a file.

    \b
    tillgate voucher void 7-1024 --reason "printed twice"
    tillgate voucher void --codes codes.csv --reason "leaked"
    """
    if sum(map(bool, (voucher_ids, code, ids, codes))) != 1:
        raise click.UsageError("Name vouchers by VOUCHER_ID, --code -, --ids FILE or --codes FILE: one of these.")
    file = ids or codes
    if file is not None:
        return _void_file(reach, file, "code" if codes else "voucher_id", reason, rejects_file, as_json)
    named = [_which(voucher_id, None) for voucher_id in voucher_ids] or [_which(None, code)]
    results = ask(reach, lambda client: _void_each(client, named, reason))
    for result in results:
        print_one(result, as_json)
    return 0 if all(result["verdict"] == "voided" for result in results) else EXIT_DIFFERENT


async def _void_each(client: "Client", named: list[Row], reason: str) -> list[Row]:
    results = []
    for which in named:
        body = which | {"reason": reason, "request_id": f"void-{secrets.token_hex(16)}"}
        results.append(await client.post("/v1/vouchers/void", body, Row, again=True))
    return results


def _void_file(reach: Reach, file: Path, column: str, reason: str, rejects_file: Path | None, as_json: bool) -> int:
    from gateway.voucher_files import void_file

    def job(client: "Client", rejects: "Rejects", advance: "Advance") -> Awaitable["Tally"]:
        return void_file(client, file, column, reason, rejects, advance)

    path = _rejects(file, rejects_file)
    lines, tally = _with_rejects(reach, "void", file, path, job)
    rejected = str(path) if tally.rejected else None
    print_one({"lines": lines, "voided": tally.accepted, "rejected": tally.rejected, "rejects": rejected}, as_json)
    return EXIT_DIFFERENT if tally.rejected else 0


def _which(voucher_id: str | None, code: str | None) -> Row:
    if (voucher_id is None) == (code is None):
        raise click.UsageError("Name the voucher by VOUCHER_ID or by --code -.")
    if voucher_id is not None:
        return {"voucher_id": voucher_id}
    if code != FROM_STDIN:
        text = "a code on the command line would be in your shell's history: write --code - and give it when asked"
        raise Fault(text, EXIT_USAGE)
    return {"code": read_secret_line("Code")}


# --- long works -----------------------------------------------------------------------------------------------------


def _with_progress(reach: Reach, what: str, total: int, job: Callable[["Client", "Advance"], Awaitable[T]]) -> T:
    from gateway.issue_files import FileFault

    try:
        with progress(what, total) as advance:
            return ask(reach, lambda client: job(client, advance))
    except FileFault as error:
        raise Fault(str(error)) from None
    except (KeyboardInterrupt, Fault) as stopped:
        if not isinstance(stopped, Fault) or stopped.exit_code == EXIT_UNREACHABLE:
            say("Not finished. The same command again goes on where this one stopped.")
        raise


def _with_rejects(
    reach: Reach,
    what: str,
    file: Path,
    rejects_file: Path,
    job: Callable[["Client", "Rejects", "Advance"], Awaitable["Tally"]],
) -> tuple[int, "Tally"]:
    from gateway.voucher_files import Rejects, survey

    _, lines = survey(file)
    rejects = Rejects(rejects_file)
    tally = _with_progress(reach, what, lines, lambda client, advance: job(client, rejects, advance))
    rejects.write()
    if tally.rejected:
        next_step(f"see {rejects_file}")
    return lines, tally
