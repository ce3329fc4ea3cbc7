"""The store daemon: one till with its scanners, journal and uplink, from start to a clean stop."""

import argparse
import asyncio
import contextlib
import io
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from devices.config import ConfigFault, TerminalConfig, load_config
from devices.console import stdin_lines
from devices.enrol import DEVICE_KEY_NAME
from devices.feedback import Mood, Told
from devices.framing import Frame, FrameFault, Signal
from devices.health_desk import HealthDesk
from devices.journal import Journal, JournalBroken, JournalFull, JournalInUse
from devices.keys import KeyFault, device_key, read_secret
from devices.outbox import Outbox
from devices.page import Page
from devices.page_scanner import PageScanner
from devices.page_screen import PageScreen
from devices.page_view import PAGE_NAME
from devices.receipt import ReceiptScreen
from devices.records import JournalDamaged
from devices.scanner import Settle
from devices.scanners import scanner_for
from devices.screen import Screen, Screens, TextScreen
from devices.till import Till
from devices.uplink import Uplink

READS_WAITING_MAX = 256  # how far scanners may be ahead of the disk; at 10 ms an fsync this is 2.5 s of it
FAULTS = (ConfigFault, KeyFault, JournalDamaged, JournalInUse, JournalFull, JournalBroken, OSError)
EXIT_FAULT = 1

Reads = asyncio.Queue[tuple[str, Frame | FrameFault, Settle]]


async def run_terminal(config: TerminalConfig, *, out: TextIO) -> None:
    """Run one till until SIGTERM or SIGINT, from the main thread. What is unanswered then is asked at the next start.

    Raises `ConfigFault`, `KeyFault`, `JournalInUse`, `JournalDamaged`, `JournalFull` or `OSError` at the start, and
    `JournalBroken` (in an exception group) when the disk fails later.
    """
    directory = Path(config.state_directory)
    key = device_key(read_secret(directory / DEVICE_KEY_NAME))
    journal = Journal.open(directory)
    try:
        lines = TextScreen(out, config.language or "en")
        paged = PageScreen(config.terminal, lines.language, lambda: journal.ledger) if config.page else None
        screen = Screens(lines, *([paged] if paged else []))
        if config.receipt:
            screen.add(ReceiptScreen(config.receipt, config.terminal, lines.language, screen.tell))
        outbox = Outbox()
        till = Till(journal, outbox, screen, config.language)
        uplink = Uplink(config, key.sign, outbox, till)
        till.wake = uplink.wake
        till.resume()
        with _stop_signals() as stop:
            await _serve(config, screen, paged, journal, till, uplink, stop)
        screen.tell(Told(Mood.PLAIN, "stopped"))
    finally:
        await journal.close()


async def _serve(
    config: TerminalConfig,
    screen: Screen,
    paged: PageScreen | None,
    journal: Journal,
    till: Till,
    uplink: Uplink,
    stop: asyncio.Event,
) -> None:
    reads: Reads = asyncio.Queue(READS_WAITING_MAX)

    def on_read(source: str, found: Frame | FrameFault, settle: Settle) -> None:
        if stop.is_set():
            return  # not ACKed: a scanner that waits for that sends it again
        try:
            reads.put_nowait((source, found, settle))
        except asyncio.QueueFull:
            settle(False)
            screen.tell(Told(Mood.BAD, "too_fast", source=source))
            sound(source, Signal.BAD)

    def sound(source: str, signal: Signal) -> None:
        if scanner := scanners.get(source):
            scanner.feedback(signal)

    scanners = {one.name: scanner_for(one, on_read, till.on_port) for one in config.scanners}
    till.sound = sound
    # A command may come from a page or the socket, whose lines end by themselves: the journal's end is the till's.
    works = [uplink.run(), _take_reads(reads, till), _type(till), journal.until_broken(), journal.offline.run()]
    if config.page and paged:
        cameras = PageScanner(on_read, till.on_port)
        page = Page(config.page, Path(config.state_directory), paged, cameras, till.execute, screen.tell)
        scanners[PAGE_NAME], till.pairing = cameras, page.offer_pairing
        works.append(page.run())
    desk = HealthDesk(config, journal, till, scanners)
    async with desk.open(), asyncio.TaskGroup() as tasks:
        works += [one.run() for one in scanners.values()]
        running = [tasks.create_task(work) for work in works]
        await stop.wait()
        await reads.join()  # what was read whole is in the journal, and ACKed, before we go
        for task in running:
            task.cancel()


async def _take_reads(reads: Reads, till: Till) -> None:
    while True:
        source, found, settle = await reads.get()
        await till.take_read(source, found, settle=settle)
        reads.task_done()


async def _type(till: Till) -> None:
    async for command in stdin_lines():
        if command:
            await till.execute(command)


@contextlib.contextmanager
def _stop_signals() -> Iterator[asyncio.Event]:
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    signals = (signal.SIGTERM, signal.SIGINT)
    for number in signals:
        loop.add_signal_handler(number, stop.set)
    try:
        yield stop
    finally:
        for number in signals:
            loop.remove_signal_handler(number)


def run(path: Path) -> int:
    """The till of one configuration file: 0 after a clean stop, 1 with the reason on stderr."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a C locale must not end a till that speaks Chinese
    exit_code = 0
    try:
        asyncio.run(run_terminal(load_config(path), out=sys.stdout))
    except* FAULTS as group:
        exit_code = EXIT_FAULT
        for fault in dict.fromkeys(map(str, _leaves(group))):  # a broken disk is met by several parts of a till
            print(f"terminal: {fault}", file=sys.stderr)
    return exit_code


def main() -> int:
    """`python -m devices.terminal --config terminal.toml`: what a till runs that has no gateway installed."""
    parser = argparse.ArgumentParser(prog="devices.terminal", description=__doc__)
    parser.add_argument("--config", type=Path, default=Path("terminal.toml"))
    return run(parser.parse_args().config)


def _leaves(group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    for fault in group.exceptions:
        if isinstance(fault, BaseExceptionGroup):
            yield from _leaves(fault)
        else:
            yield fault


if __name__ == "__main__":
    sys.exit(main())
