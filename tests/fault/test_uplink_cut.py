"""A line that goes away while an answer is on its way from the wire to the journal and the cashier."""

import asyncio
import io
import threading
from pathlib import Path

from scripted_gateway import ScriptedGateway
from till_bench import TillBench, until

from devices.config import load_config
from devices.enrol import DEVICE_KEY_NAME
from devices.framing import Frame
from devices.journal import Journal
from devices.keys import device_key, read_secret
from devices.outbox import Outbox
from devices.screen import TextScreen
from devices.till import Till
from devices.uplink import Uplink


async def test_an_answer_that_was_taken_is_told_although_the_line_ends(tmp_path: Path) -> None:
    bench, disk, screen = TillBench(tmp_path), threading.Event(), io.StringIO()
    async with ScriptedGateway(bench.public_key) as gateway:
        bench.configure(gateway.url)
        journal, outbox = Journal.open(bench.state), Outbox()
        till = Till(journal, outbox, TextScreen(screen, "en"), "en")
        key = device_key(read_secret(bench.state / DEVICE_KEY_NAME))
        uplink = Uplink(load_config(bench.config), key.sign, outbox, till)
        till.wake = uplink.wake
        linked = asyncio.create_task(uplink.run())
        await gateway.until(lambda: gateway.greetings == 1)
        await till.take_read("lane1", Frame(b"CODE"))
        journal._thread.submit(disk.wait)  # from here on the disk is busy
        await until(lambda: len(outbox) == 0)
        linked.cancel()
        await asyncio.sleep(0)
        disk.set()
        await asyncio.wait([linked])
        assert linked.cancelled()
        assert "ACCEPTED" in screen.getvalue()
        assert [record.verdict for record in journal.ledger.records.values()] == [0]
        await journal.close()
    bench.scanner.close()
