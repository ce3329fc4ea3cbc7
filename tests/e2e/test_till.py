"""A real till daemon: bytes on a pty in, messages on a WebSocket out, lines for the cashier, a journal that agrees."""

import asyncio
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from scripted_gateway import (
    CUT,
    GREETING,
    LATE_CUT,
    MISCOUNT,
    NONSENSE,
    SILENT,
    TEXT,
    UNRESOLVED,
    ScriptedGateway,
)
from till_bench import TillBench, until

from devices.console import SOCKET_NAME
from gateway.messages import Position, Verdict


@pytest.fixture
def till(tmp_path: Path) -> Iterator[TillBench]:
    with TillBench(tmp_path) as bench:
        yield bench


@pytest.fixture
async def gateway(till: TillBench) -> AsyncIterator[ScriptedGateway]:
    async with ScriptedGateway(till.public_key) as scripted:
        till.configure(scripted.url)
        yield scripted


async def started(till: TillBench) -> None:
    till.start()
    await till.until_shown("scanner ready")
    await till.until_shown("connected to the gateway")


async def test_scans_become_verdicts_and_the_journal_agrees(till: TillBench, gateway: ScriptedGateway) -> None:
    gateway.verdict_of = {"LATE": Verdict.EXPIRED, "FALSE": Verdict.FORGED}
    await started(till)
    till.scanner.write(b"]Q1GOOD\r\nLATE\rFALSE\r")
    await till.until_shown("ACCEPTED")
    await till.until_shown("EXPIRED")
    await till.until_shown("UNKNOWN: no voucher has this code")
    assert till.stop() == 0
    told = {(r.redemption_id, r.verdict, r.place.seq if r.place else 0) for r in till.journal()}
    assert told == {(i, v, seq) for i, (v, seq) in gateway.answered.items()}
    assert [scan.code for scan in gateway.scans] == ["GOOD", "LATE", "FALSE"]
    assert not any(r.sealed or r.code_hash for r in till.journal()), "settled codes are forgotten"


async def test_no_code_is_left_in_any_file(till: TillBench, gateway: ScriptedGateway) -> None:
    gateway.plan.extend([UNRESOLVED] * 200)
    await started(till)
    till.scanner.write(b"TOPSECRETCODE1\rTOPSECRETCODE2\r")
    till.type("code TOPSECRETCODE3")
    await gateway.until(lambda: len(gateway.scans) >= 5)
    till.kill()
    assert len(till.journal()) == 3
    for path in await asyncio.to_thread(lambda: [p for p in till.config.parent.rglob("*") if p.is_file()]):
        assert b"TOPSECRETCODE" not in path.read_bytes(), path.name


async def test_while_unresolved_a_further_read_carries_the_same_id(till: TillBench, gateway: ScriptedGateway) -> None:
    gateway.plan.extend([UNRESOLVED] * 3)
    await started(till)
    till.scanner.write(b"CODE\r")
    await till.until_shown("NO ANSWER YET")
    till.scanner.write(b"CODE\r")
    await till.until_shown("ACCEPTED")
    assert till.stop() == 0
    assert len({scan.redemption_id for scan in gateway.scans}) == 1
    assert len(set(gateway.scans)) == 1, "the same body on every retry"
    assert [r.verdict for r in till.journal()] == [Verdict.ACCEPTED]
    assert till.screen().count("ACCEPTED") == 1


async def test_one_trigger_pull_that_reads_twice_is_one_redemption(till: TillBench, gateway: ScriptedGateway) -> None:
    await started(till)
    till.scanner.write(b"CODE\r")
    await till.until_shown("ACCEPTED")
    till.scanner.write(b"CODE\r")
    await till.until_shown("read twice")
    assert till.stop() == 0
    assert len(gateway.scans) == len(till.journal()) == 1


async def test_already_redeemed_names_the_winner(till: TillBench, gateway: ScriptedGateway) -> None:
    gateway.winners["CODE"] = bytes(16)
    await started(till)
    till.scanner.write(b"CODE\r")
    await till.until_shown("Used at store-9, till **42")


@pytest.mark.parametrize("step", (CUT, LATE_CUT, SILENT))
async def test_a_lost_answer_is_asked_again_with_the_same_id(
    till: TillBench, gateway: ScriptedGateway, step: str
) -> None:
    await started(till)
    gateway.plan.append(step)
    till.scanner.write(b"CODE\r")
    await till.until_shown("ACCEPTED")
    assert till.stop() == 0
    assert len(gateway.scans) == 2
    assert gateway.scans[0] == gateway.scans[1]
    assert gateway.greetings == (1 if step == SILENT else 2)


async def test_a_gateway_that_talks_nonsense_is_left_and_asked_again(till: TillBench, gateway: ScriptedGateway) -> None:
    await started(till)
    gateway.plan.extend((*NONSENSE, TEXT, MISCOUNT, GREETING))
    till.scanner.write(b"CODE\r")
    await till.until_shown("ACCEPTED")
    assert till.stop() == 0
    assert len(gateway.scans) == gateway.greetings == 7
    assert len(set(gateway.scans)) == 1


async def test_cashier_and_receipt_go_with_the_scans_after_them(till: TillBench, gateway: ScriptedGateway) -> None:
    await started(till)
    for number, commands in enumerate(((), ("cashier 4711", "receipt R-17"), ("receipt",))):
        for command in commands:
            till.type(command)
            await till.until_shown({"cashier 4711": "4711", "receipt R-17": "R-17"}.get(command, "no receipt is named"))
        till.scanner.write(b"CODE %d\r" % number)
        await till.until_shown("ACCEPTED", number + 1)
    told = [(scan.merchant_ref, scan.cashier_ref) for scan in gateway.scans]
    assert told == [(None, None), ("R-17", "4711"), (None, "4711")]


async def test_reverse_and_scan_again(till: TillBench, gateway: ScriptedGateway) -> None:
    await started(till)
    till.scanner.write(b"CODE\r")
    await till.until_shown("ACCEPTED")
    till.type("reverse last")
    await till.until_shown("UNDONE: the redemption is taken back")
    till.type("reverse last")
    await till.until_shown("nothing to undo there")
    till.scanner.write(b"CODE\r")
    await till.until_shown("ACCEPTED", times=2)
    assert till.stop() == 0
    first, second = till.journal()
    assert [r.verdict for r in first.reversals] == [Verdict.ACCEPTED]
    assert first.redemption_id != second.redemption_id
    assert not second.reversals


async def test_giving_up_reverses_until_confirmed(till: TillBench, gateway: ScriptedGateway) -> None:
    gateway.plan.extend([UNRESOLVED] * 3)
    await started(till)
    till.scanner.write(b"CODE\r")
    await till.until_shown("NO ANSWER YET")
    gateway.plan.extend([UNRESOLVED] * 3)
    till.type("give-up last")
    await till.until_shown("UNDONE: this redemption does not stand")
    assert till.stop() == 0
    [record] = till.journal()
    [reversal] = record.reversals
    assert (reversal.gave_up, reversal.verdict) == (True, Verdict.REVERSED)
    assert len({r.reversal_id for r in gateway.reversals}) == 1
    assert {r.original for r in gateway.reversals} == set(gateway.scans), "it carries what it undoes"


async def test_the_socket_takes_the_same_commands(till: TillBench, gateway: ScriptedGateway) -> None:
    await started(till)
    reader, writer = await asyncio.open_unix_connection(till.state / SOCKET_NAME)
    answers = []
    for command in ("waiting", "code TYPED", "what"):
        writer.write(command.encode() + b"\n")
        answers.append((await reader.readline()).decode())
    writer.close()
    await writer.wait_closed()
    await gateway.until(lambda: len(gateway.scans) == 1)
    assert ["nothing is waiting" in answers[0], "heard" in answers[1], "commands:" in answers[2]] == [True] * 3
    assert gateway.scans[0].entry == 2


async def test_a_daemon_without_a_terminal_reads_its_scanners_all_the_same(
    till: TillBench, gateway: ScriptedGateway
) -> None:
    till.start(stdin=subprocess.DEVNULL)
    await till.until_shown("scanner ready")
    till.scanner.write(b"CODE\r")
    await till.until_shown("ACCEPTED")


async def test_drain_moves_the_till_without_a_word(till: TillBench, gateway: ScriptedGateway) -> None:
    async with ScriptedGateway(till.public_key) as other:
        till.configure(gateway.url, other.url)
        await started(till)
        await gateway.drain()
        await other.until(lambda: other.greetings == 1)
        till.scanner.write(b"CODE\r")
        await other.until(lambda: len(other.scans) == 1)
        await till.until_shown("ACCEPTED")
    assert "no connection" not in till.screen().partition("ACCEPTED")[0]


async def test_the_next_gateway_is_tried_when_one_is_gone(till: TillBench, gateway: ScriptedGateway) -> None:
    till.configure("http://127.0.0.1:9", gateway.url)
    till.start()
    await till.until_shown("no connection to the gateway")
    await till.until_shown("connected to the gateway")


async def test_scans_without_a_gateway_are_kept_and_sent_together(till: TillBench, gateway: ScriptedGateway) -> None:
    await gateway.stop()
    till.start()
    await till.until_shown("scanner ready")
    till.scanner.write(b"".join(b"CODE%d\r" % n for n in range(40)))
    await till.until_shown("heard and kept", times=40)
    await gateway.start()
    await till.until_shown("ACCEPTED", times=40)
    assert till.stop() == 0
    assert len(gateway.messages) == 1
    assert [r.place for r in till.journal()] == [Position(0, 1, n) for n in range(40)]


async def test_a_gateway_that_does_not_know_the_key_is_told_and_retried(tmp_path: Path, till: TillBench) -> None:
    async with ScriptedGateway(bytes(32)) as stranger:
        till.configure(stranger.url)
        till.start()
        await till.until_shown("no connection to the gateway: scans are kept and asked later")
        await till.until_shown("(4401) this key is not known")


async def test_chinese_on_request(till: TillBench, gateway: ScriptedGateway) -> None:
    till.configure(gateway.url, language="zh")
    till.start()
    await till.until_shown("扫码器就绪")
    till.scanner.write(b"CODE\r")
    await till.until_shown("已核销")


async def test_a_second_daemon_on_the_same_state_is_refused(till: TillBench, gateway: ScriptedGateway) -> None:
    await started(till)
    first = till.daemon
    till.start()
    assert till.daemon
    assert await asyncio.to_thread(till.daemon.wait, 20) == 1
    await till.until_shown("terminal: another terminal daemon is using")
    till._close_stdin()
    till.daemon = first
    till.scanner.write(b"CODE\r")
    await till.until_shown("ACCEPTED")


async def test_a_wrong_configuration_is_named(till: TillBench) -> None:
    till.config.write_text("gateway = []", "utf-8")
    till.start()
    assert till.daemon
    assert await asyncio.to_thread(till.daemon.wait, 20) == 1
    assert "unknown field `gateway`; did you mean `gateways`?" in till.screen()
    await until(lambda: "Traceback" not in till.screen())
    till._close_stdin()
