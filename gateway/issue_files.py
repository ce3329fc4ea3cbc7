"""Issue vouchers into a file; when it is cut off, the same call goes on.

An errand (`FILE.request`: which campaign, how many, under which request id) is on disk before the gateway is asked, and
removed when the output is whole. So a second run asks for the same vouchers, and gets them. Typed codes are drawn here
and are on disk before the gateway hears of them: a registered code is never one that nobody has.
"""

import asyncio
import os
import secrets
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import msgspec

from gateway.client import BadReply, Client, Refused
from gateway.codes import typed_code
from gateway.keyfile import sync_directory, write_new
from gateway.voucher_files import Advance, Rejects, Tally, import_file

PAGE_CODES = 100_000  # codes fetched at a time: 4.5 megabytes, a fifth of a second


class FileFault(Exception):
    """A file stands in the way or does not fit; says which and what to do."""


class _Issued(msgspec.Struct):
    first_serial: int
    count: int


class Errand(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An issue that is under way, as written down beside its output."""

    campaign: str
    kind: str  # signed | typed
    count: int
    request_id: str


async def issue_signed(client: Client, wanted: Errand, out: Path, advance: Advance) -> tuple[Errand, int]:
    """Signed codes into a file of `serial,code`; tells the first serial. Raises ClientFault, FileFault, OSError."""
    errand = _begin(out, wanted)
    body = {"count": errand.count, "request_id": errand.request_id}
    try:
        issued = await client.post(f"/v1/campaigns/{quote(errand.campaign, '')}/issues", body, _Issued, again=True)
    except Refused:
        _end(out)  # nothing was issued, so nothing is unfinished
        raise
    part = _beside(out, ".part")
    done = await asyncio.to_thread(_whole_lines, out, part)
    if done is not None:
        advance(done)
        with part.open("ab") as file:
            await _fetch_rest(client, errand.campaign, issued, done, file.write, advance)
            file.flush()
            os.fsync(file.fileno())
        _publish(part, out)
    _end(out)
    return errand, issued.first_serial


async def issue_typed(client: Client, wanted: Errand, out: Path, rejects: Rejects, advance: Advance) -> Tally:
    """Draw typed codes into a file, then register them. Raises ClientFault, FileFault, OSError.

    They are on disk before the gateway hears of them; an interrupted run registers the same file again.
    """
    slug = quote(wanted.campaign, "")
    await client.get(f"/v1/campaigns/{slug}", msgspec.Raw)  # a wrong name is told before anything is written
    _begin(out, wanted)
    await asyncio.to_thread(_mint_typed, wanted.count, out)
    tally = await import_file(client, wanted.campaign, out, "code", rejects, advance)
    _end(out)
    return tally


def _begin(out: Path, wanted: Errand) -> Errand:
    """The errand whose output is `out`: an unfinished one of the same kind goes on."""
    note = _beside(out, ".request")
    if note.exists():
        try:
            found = msgspec.json.decode(note.read_bytes(), type=Errand)
        except msgspec.DecodeError:
            raise FileFault(f"{note} is damaged: remove it, and name a new output file") from None
        if msgspec.structs.replace(found, request_id=wanted.request_id) != wanted:
            raise FileFault(
                f"{note} belongs to an unfinished issue of {found.count} {found.kind} codes of {found.campaign}: "
                "finish that one, or name a new output file"
            )
        return found
    if out.exists():
        raise FileFault(f"{out} exists already: name a new output file")
    write_new(note, msgspec.json.encode(wanted))
    sync_directory(out.absolute().parent)
    return wanted


def _end(out: Path) -> None:
    _beside(out, ".request").unlink()


async def _fetch_rest(
    client: Client, slug: str, issued: _Issued, done: int, write: Callable[[bytes], object], advance: Advance
) -> None:
    while done < issued.count:
        page = min(PAGE_CODES, issued.count - done)
        first, got = issued.first_serial + done, 0
        async for block in client.blocks(f"/v1/campaigns/{quote(slug, '')}/codes", first=first, count=page):
            lines = block.splitlines()
            for serial, line in enumerate(lines, first + got):
                if not line.startswith(b"%d," % serial):
                    raise BadReply(f"the gateway sent another voucher than serial {serial}")
            write(block)
            got += len(lines)
            advance(len(lines))
        if got != page:
            raise BadReply(f"the gateway sent {got} codes of {page}")
        done += got


def _whole_lines(out: Path, part: Path) -> int | None:
    """Codes that an earlier run fetched, None if all; a torn last line is cut off."""
    if out.exists():
        return None
    content = part.read_bytes() if part.exists() else b""
    if b"\n" not in content:
        part.unlink(missing_ok=True)
        write_new(part, b"serial,code\n")
        return 0
    whole = content.rfind(b"\n") + 1
    os.truncate(part, whole)
    return content[:whole].count(b"\n") - 1


def _publish(part: Path, out: Path) -> None:
    part.rename(out)
    sync_directory(out.absolute().parent)


def _mint_typed(count: int, out: Path) -> None:
    """`count` random typed codes, all different, on disk when this returns."""
    if out.exists():
        return
    drawn: set[int] = set()
    while len(drawn) < count:
        drawn.add(secrets.randbelow(10**15))
    part = _beside(out, ".part")
    part.unlink(missing_ok=True)
    write_new(part, ("code\n" + "".join(f"{typed_code(number)}\n" for number in drawn)).encode())
    _publish(part, out)


def _beside(out: Path, suffix: str) -> Path:
    return out.with_name(out.name + suffix)
