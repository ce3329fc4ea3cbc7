"""Slips of accepted vouchers: what is printed, on which device, and that no verdict waits for a printer."""

import contextlib
import os
import pty
import select
import tty
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
from page_world import PageTill, page_till
from till_bench import until

from devices.feedback import Mood, Told
from devices.outbox import Answer
from devices.page_config import ReceiptConfig
from devices.receipt import SLIPS_WAITING_MAX, ReceiptScreen, Slip, lines_of, print_slip, printer_of, slip_of
from gateway.messages import Position, Verdict

escpos = pytest.importorskip("escpos.printer", reason="the extra receipt is not installed")
AT_MS = 1_790_000_000_000
SLIP = Slip("#abcdef", "Mooncake, 88.00 CNY", "0/17/3", AT_MS)


class PtyPrinter:
    """A printer at the end of a line: the device file, and what has arrived behind it.

    The next terminal may get the same number, and what still prints on this one would print there: so it has a name.
    """

    def __init__(self, directory: Path) -> None:
        self._master, self._slave = pty.openpty()
        tty.setraw(self._slave)
        self.path = str(directory / "printer")
        os.symlink(os.ttyname(self._slave), self.path)
        self.printed = b""

    def read(self) -> bytes:
        while select.select([self._master], [], [], 0)[0]:
            self.printed += os.read(self._master, 4096)
        return self.printed

    def close(self) -> None:
        os.unlink(self.path)
        os.close(self._master)
        os.close(self._slave)


def answer(verdict: int, *, is_reversal: bool = False) -> Answer:
    return Answer(b"\xab" * 16, b"\xab" * 16, is_reversal, verdict, Position(0, 17, 3), AT_MS, offer="Tea, 5.00 CNY")


def told(one: Answer) -> Told:
    return Told(Mood.GOOD, redemption_id=one.redemption_id, answer=one)


def test_only_an_accepted_redemption_has_a_slip() -> None:
    assert slip_of(told(answer(Verdict.ACCEPTED)), 1) == Slip("#ababab", "Tea, 5.00 CNY", "0/17/3", AT_MS)
    assert not [v for v in range(1, 256) if slip_of(told(answer(v)), 1)]
    assert slip_of(told(answer(Verdict.ACCEPTED, is_reversal=True)), 1) is None
    offline = Told(Mood.OFFLINE, "accepted_offline", bytes([0xAB]) * 16, "lane1", "Tea, 5.00 CNY")
    assert slip_of(offline, AT_MS) == Slip("#ababab", "Tea, 5.00 CNY", "", AT_MS)
    settled = msgspec.structs.replace(answer(Verdict.ACCEPTED), is_fact=True)
    assert slip_of(told(settled), 1) is None, "its shopper has a slip"


@pytest.mark.parametrize("columns", (32, 42, 48))
def test_labels_and_values_stand_in_two_columns_or_two_lines(columns: int) -> None:
    lines = lines_of(SLIP, "en", 7, columns)
    assert lines[0] == "Offer" + "Mooncake, 88.00 CNY".rjust(columns - 5)
    assert lines[-1].endswith("0/17/3")
    long = lines_of(Slip("#abcdef", "x" * 60, "", AT_MS), "en", 7, columns)
    assert long[:2] == ["Offer", "  " + "x" * 60]
    assert not any("place" in line for line in long)
    chinese = lines_of(SLIP, "zh", 7, columns)
    assert len(chinese[0]) + 4 == columns, "four letters of the label are two columns wide"


@pytest.mark.parametrize("at_ms", (-1, 1 << 63))
def test_a_gateways_clock_cannot_end_the_printing(at_ms: int) -> None:
    assert any(line.startswith("Time") for line in lines_of(Slip("#abcdef", "", "", at_ms), "en", 7, 42))


def test_a_slip_is_title_lines_and_a_cut() -> None:
    printer = escpos.Dummy()
    printer.open = lambda: None
    printer.close = lambda: None
    print_slip(printer, SLIP, "en", 7, 42)
    assert b"VOUCHER REDEEMED\n" in printer.output
    assert b"#abcdef\n" in printer.output
    assert printer.output.index(b"0/17/3") < printer.output.index(b"\x1dV"), "GS V cuts"
    print_slip(printer, SLIP, "zh", 7, 42)
    assert b"\x1c&" + "已核销".encode("gb18030") in printer.output


async def test_a_printer_that_is_behind_loses_slips_and_says_so_once(tmp_path: Path) -> None:
    held, told = PtyPrinter(tmp_path), []
    screen = ReceiptScreen(ReceiptConfig(held.path), 7, "en", told.append)
    os.set_blocking(held._slave, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(held._slave, b"x" * 4096)  # nobody reads: from here on a write to it waits
    for _ in range(SLIPS_WAITING_MAX + 5):
        screen.tell(Told(Mood.GOOD, redemption_id=b"\xab" * 16, answer=answer(Verdict.ACCEPTED)))
    assert [one.key for one in told] == ["no_receipt"]
    held.close()


@pytest.fixture
async def printer(tmp_path: Path) -> AsyncIterator[PtyPrinter]:
    one = PtyPrinter(tmp_path)
    yield one
    one.close()


def with_receipt(path: str) -> str:
    return f'[page]\nlisten = "127.0.0.1:0"\n[receipt]\nprinter = "{path}"\ncolumns = 32'


async def test_a_till_prints_what_it_accepted_and_no_code(tmp_path: Path, printer: PtyPrinter) -> None:
    async with page_till(tmp_path, with_receipt(printer.path)) as till:
        till.gateway.offers["TOPSECRET"] = "Mooncake, 88.00 CNY"
        till.gateway.winners["USED"] = bytes(16)
        till.scan("USED")
        till.scan("TOPSECRET")
        await till.bench.until_shown("ACCEPTED")
        await until(lambda: b"\x1dV" in printer.read(), lambda: repr(printer.printed))
        [redemption_id] = [i for i, (verdict, _) in till.gateway.answered.items() if verdict is Verdict.ACCEPTED]
        assert redemption_id.hex()[-6:].encode() in printer.printed
        assert b"Mooncake, 88.00 CNY" in printer.printed
        assert printer.printed.count(b"\x1dV") == 1
        assert b"TOPSECRET" not in printer.printed
        assert till.bench.stop() == 0


async def test_no_verdict_waits_for_a_printer(tmp_path: Path) -> None:
    missing = tmp_path / "absent" / "lp0"
    async with page_till(tmp_path, with_receipt(str(missing))) as till:
        await scans_accepted(till, "A", "B")
        await till.bench.until_shown("NO SLIP: the printer does not answer")
        missing.parent.mkdir()
        await scans_accepted(till, "C")
        await till.bench.until_shown("the printer works again")
        assert till.bench.screen().count("NO SLIP") == 1
        assert b"VOUCHER REDEEMED" in missing.read_bytes()


async def scans_accepted(till: PageTill, *codes: str) -> None:
    before = till.bench.screen().count("ACCEPTED")
    for code in codes:
        till.scan(code)
    await till.bench.until_shown("ACCEPTED", times=before + len(codes))


def test_network_printers_have_an_address() -> None:
    printer, _ = printer_of(ReceiptConfig("tcp://192.0.2.9"))
    assert (printer.host, printer.port) == ("192.0.2.9", 9100)  # type: ignore[attr-defined]
