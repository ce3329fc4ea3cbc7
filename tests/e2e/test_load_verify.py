"""`tillgate load verify` on a real gateway's log, Valkey and read models: whole, and bent in one place."""

import asyncio
import io
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from aiohttp import ClientSession
from cli_world import Told, serving, tillgate
from core_world import new_id, wall_ms
from load_world import run_of
from shared_world import new_site
from stream_world import Site, TillClient, site

from eventstore.log import Batch, batch_crc
from gateway.load_evidence import LogFile
from gateway.messages import Redeem, Reverse, Verdict, Verdicts
from loadtest.evidence import Control
from loadtest.recorder import Recorder
from loadtest.run_files import Attempt
from loadtest.verify_log import Walk
from loadtest.verify_rows import HEADER_BYTES, RECORD_BYTES, Buckets

if TYPE_CHECKING:
    from private_postgres import PostgresServer

Journal = list[Attempt]


def took_down(
    till: int, kind: Any, own_id: bytes, voucher: str | None, answer: Verdicts | None, **more: Any
) -> Attempt:
    place = answer.places[0] if answer else None
    return Attempt(
        kind=kind,
        terminal=till,
        redemption_id=own_id.hex(),
        voucher=voucher,
        intended_us=0,
        sent_us=1,
        ended_us=2 if answer else None,
        sends=more.pop("sends", 1),
        verdict=Verdict(answer.codes[0]).name.lower() if answer else None,
        position=(place.partition, place.seq, place.index) if place else None,
        **more,
    )


async def redeemed(tills: dict[int, TillClient], number: int, scan: Redeem, serial: int | None) -> Attempt:
    voucher = f"1-{serial}" if serial else None
    return took_down(number, "redeem", scan.redemption_id, voucher, await tills[number].redeem(scan))


async def played(made: Site) -> Journal:
    """Nine vouchers: one asked twice, one tried again elsewhere, one reversed and used again, one never answered."""
    codes = await made.w.codes(9)
    async with made.till(1) as one, made.till(2) as two:
        tills = {1: one, 2: two}
        scans = [made.w.scan(code) for code in codes]
        journal = [await redeemed(tills, 1 + n % 2, scan, n + 1) for n, scan in enumerate(scans[:7])]
        await one.redeem(scans[0])
        journal[0] = msgspec.structs.replace(journal[0], sends=2)
        journal.append(await redeemed(tills, 2, made.w.scan(codes[1]), 2))
        undo = Reverse(new_id(), scans[2].redemption_id, wall_ms(), scans[2])
        answer = await one.reverse(undo)
        target = scans[2].redemption_id.hex()
        journal.append(took_down(1, "reverse", undo.reversal_id, "1-3", answer, target=target))
        journal.append(await redeemed(tills, 2, made.w.scan(codes[2]), 3))
        journal.append(await redeemed(tills, 2, made.w.scan("NO CODE AT ALL"), None))
        await two.redeem(scans[7])
        journal.append(took_down(2, "redeem", scans[7].redemption_id, "1-8", None, sends=3))
        journal.append(took_down(2, "redeem", new_id(), "1-9", None))
    return journal


def write(run: Path, journal: Journal) -> None:
    with Recorder(run, 0) as recorder:
        for attempt in journal:
            recorder.note(attempt)
    made = msgspec.structs.replace(run_of(len(journal)), started_ms=wall_ms() - 60_000)
    (run / "run.json").write_bytes(msgspec.json.encode(made))


@pytest.fixture
def ran(tmp_path: Path) -> tuple[Path, Journal]:
    """A run with a deployment of its own, which nobody serves any more."""

    async def go() -> Journal:
        async with site(tmp_path / "deployment") as made:
            return await played(made)

    journal = asyncio.run(go())
    write(tmp_path, journal)
    return tmp_path, journal


def verified(run: Path, *more: object) -> tuple[Told, dict[str, Any]]:
    told = tillgate("load", "verify", run, "--json", *more)
    return told, {one["name"]: one for one in msgspec.json.decode(told.out)["invariants"]}


def test_a_real_run_holds_stopped_and_served(ran: tuple[Path, Journal]) -> None:
    run, journal = ran
    told, found = verified(run)
    assert told.code == 0, told.out
    assert "one was started until this is done" in told.err
    assert {one["holds"] for one in found.values()} == {True}
    assert found["L1"]["compared"] == {"vouchers": 8, "accepted": 9, "reversed": 1}
    assert found["L3"]["compared"]["records"] == len(journal)
    assert found["L4"]["compared"]["held in Valkey"] == 8
    assert "a gateway was started since" in found["L4"]["why"]
    assert found["L7"]["compared"]["asked now"] == 12
    assert found["L9"]["compared"]["of these accepted"] == found["L9"]["compared"]["never arrived"] == 1
    assert found["L10"]["compared"] == {"issued": 9, "active": 1, "redeemed": 8, "expired": 0, "void": 0}
    with serving(run / "deployment"):
        told = tillgate("load", "verify", run, "--data", run / "deployment")
    assert told.code == 0, told.out
    assert told.out.count("holds") == 10
    assert "was started" not in told.err + told.out


def test_an_acceptance_that_never_was_is_told_with_its_voucher_id_and_position(ran: tuple[Path, Journal]) -> None:
    run, journal = ran
    lie = msgspec.structs.replace(journal[0], redemption_id="ab" * 16, voucher="1-9", sends=1)
    write(run, [*journal, lie])
    told = tillgate("load", "verify", run)
    assert told.code == 3
    assert "L2   BROKEN" in told.out
    place = "/".join(map(str, lie.position or ()))
    assert f"first: voucher 1-9: redemption {'ab' * 16} was told accepted (told {place}), but the log has" in told.out


def change(run: Path, seq: int, bend: Callable[[Batch], Batch], *, sealed: bool) -> None:
    """Alter one row of the log where it lies, with its checksum or without."""
    with closing(sqlite3.connect(run / "deployment" / "log.db")) as log, log:
        row = log.execute("SELECT prev, tip, payload, verdicts, crc FROM batch WHERE id = ?", (seq,)).fetchone()
        batch = bend(Batch(0, seq, *row[:4]))
        crc = batch_crc(batch) if sealed else row[4]
        log.execute(
            "UPDATE batch SET payload = ?, verdicts = ?, crc = ? WHERE id = ?",
            (batch.payload, batch.verdicts, crc, seq),
        )


def test_a_log_that_somebody_altered_is_seen_by_what_was_told_and_by_what_valkey_holds(
    ran: tuple[Path, Journal],
) -> None:
    """The altered batch has a right checksum: nothing but a comparison can tell."""
    run, journal = ran
    partition, seq, index = journal[4].position or (0, 0, 0)

    def bend(batch: Batch) -> Batch:
        serial_end = HEADER_BYTES + index * RECORD_BYTES + 16
        payload = batch.payload[: serial_end - 1] + b"\x09" + batch.payload[serial_end:]
        return msgspec.structs.replace(batch, payload=payload)

    change(run, seq, bend, sealed=True)
    told, found = verified(run)
    assert told.code == 3
    at = f"{partition}/{seq}/{index}"
    assert (
        f"{journal[4].redemption_id} was told accepted at {at}, where the log names voucher 1-9"
        in (found["L2"]["counterexample"])
    )
    assert "voucher 1-5" in found["L4"]["counterexample"] + found["L2"]["counterexample"]
    assert found["L6"]["holds"]


def test_a_damaged_batch_is_named_and_what_follows_it_is_read(ran: tuple[Path, Journal]) -> None:
    run, journal = ran
    _, seq, _ = journal[5].position or (0, 0, 0)
    change(run, seq, lambda batch: msgspec.structs.replace(batch, verdicts=b"\x15" * len(batch.verdicts)), sealed=False)
    walk = Walk(Control({}, {}), [], Buckets(io.BytesIO), Buckets(io.BytesIO))

    async def read() -> None:
        source = LogFile(run / "deployment" / "log.db")
        await source.walk(0, walk.take)
        assert walk.heads[0][0] == (await source.newest())[0] > seq
        await source.close()

    asyncio.run(read())
    assert (walk.chain.count, walk.chain.first) == (1, f"partition 0, batch {seq}: its checksum does not match")


def test_what_cannot_be_told_is_no_success(ran: tuple[Path, Journal]) -> None:
    run, journal = ran
    made = msgspec.structs.replace(run_of(len(journal) + 1), started_ms=wall_ms() - 60_000)
    (run / "run.json").write_bytes(msgspec.json.encode(made))
    told, found = verified(run)
    assert told.code == 1
    assert {name for name, one in found.items() if one["holds"] is None} == {"L2", "L3", "L7", "L9"}


def test_usage(tmp_path: Path) -> None:
    assert tillgate("load", "verify", tmp_path).code == 1  # no run.json
    write(tmp_path, [])
    told = tillgate("load", "verify", tmp_path)
    assert told.code == 2
    assert "name the deployment's data directory with --data" in told.err
    (tmp_path / "journal-0.ndjson").write_text("{}\n")


async def test_a_log_that_several_gateways_share_is_read_where_it_is(
    postgres: "PostgresServer", valkey_endpoint: str, tmp_path: Path
) -> None:
    pytest.importorskip("asyncpg", reason="the package asyncpg is not installed (extra `postgres`)")
    shared = new_site(tmp_path / "data", await postgres.emptied(), valkey_endpoint)
    run = tmp_path / "run"
    run.mkdir()
    with shared.serving() as one, shared.serving() as two:
        await shared.furnish(one.url, 2, 4)
        journal = []
        for number, gateway in ((1, one), (2, two)):
            scan = Redeem(new_id(), shared.codes[number - 1], wall_ms())
            async with (
                ClientSession() as session,
                session.ws_connect(gateway.url + "/v1/stream", protocols=["tillgate.v1"], compress=0) as line,
            ):
                till = TillClient(line, "tillgate.v1")
                await till.greet(number)
                journal.append(await redeemed({number: till}, number, scan, number))
    write(run, journal)
    told = shared.command("load", "verify", run, "--data", shared.data, "--json")
    assert told.code == 0, told.out + told.err
    found = {one["name"]: one for one in msgspec.json.decode(told.out)["invariants"]}
    assert found["L3"]["compared"]["records"] == found["L4"]["compared"]["held in Valkey"] == 2
    assert found["L5"]["compared"]["gateways"] == found["L4"]["compared"]["indexes"] == 2
    write(run, [*journal, msgspec.structs.replace(journal[0], redemption_id="cd" * 16)])
    assert shared.command("load", "verify", run, "--data", shared.data).code == 3
