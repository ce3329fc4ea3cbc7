"""A till that is killed between its journal and its yes: what was accepted offline is told, once, by the next one."""

import asyncio
import io
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

from devices.framing import Frame
from devices.journal import Journal
from devices.offline import Now
from devices.offline_desk import LINK_DEAD_MS, OfflineDesk
from devices.outbox import Outbox
from devices.records import OfflineAccepted
from devices.screen import TextScreen
from devices.till import Till
from gateway.codes import CodeKeys, KeyRing
from gateway.messages import FactMany, Grant, OfflineOffer, Welcome
from gateway.offline_codes import OfflineKeys

NOW_MS = 1_800_000_000_000
KEYS = CodeKeys(keys={1: b"k" * 32}, active=1, pepper=b"p" * 32)
SIGNER = OfflineKeys(KEYS)
CODE = SIGNER.signed(next(KeyRing(KEYS).mint(1, 7, 5, 1)))
OFFER = OfflineOffer(7, "Soup", 1800, "CNY", [(0, 2 * NOW_MS)], [(1, 100)], 3, 9000, 60)
GRANT = Grant(NOW_MS, 2 * NOW_MS, SIGNER.public_keys, [OFFER])

TILL = """
    import asyncio, os, signal, sys
    from pathlib import Path
    sys.path.insert(0, sys.argv[2])
    from test_offline_kill import CODE, cut_off_till
    from devices.framing import Frame

    async def main():
        till, journal, outbox = await cut_off_till(Path(sys.argv[1]), meet=True)
        till._tell_offline = lambda *told: os.kill(os.getpid(), signal.SIGKILL)  # the journal has it; the yes is next
        await till.take_read("lane1", Frame(CODE.encode()))

    asyncio.run(main())
"""


async def cut_off_till(directory: Path, *, meet: bool) -> tuple[Till, Journal, Outbox]:
    """A till that met a gateway (now or in an earlier life) and has lost it."""
    clock = Now(NOW_MS, 1000, "boot")
    journal, outbox = Journal.open(directory), Outbox()
    journal.offline = OfflineDesk(directory, journal.offline_secret, lambda: clock)
    till = Till(journal, outbox, TextScreen(io.StringIO(), "en"), "en")
    till.resume()
    if meet:
        till.on_welcome(Welcome("s1", NOW_MS, "en"))
        await till.on_grant(GRANT)
    till.on_link_lost("cut")
    clock = Now(NOW_MS + LINK_DEAD_MS, 1000 + LINK_DEAD_MS, "boot")
    return till, journal, outbox


async def test_a_till_killed_before_its_yes_tells_the_fact_in_its_next_life(tmp_path: Path) -> None:
    script = textwrap.dedent(TILL)
    killed = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", script, str(tmp_path), os.path.dirname(__file__)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    till, journal, outbox = await cut_off_till(tmp_path, meet=False)
    [record] = journal.ledger.open_records()
    assert isinstance(record.offline, OfflineAccepted)
    assert "ALREADY USED HERE" in await till.take_read("lane1", Frame(CODE.encode()))
    [message] = outbox.messages_due(1 << 50)
    assert isinstance(message, FactMany)
    assert [fact.redeem.code for fact in message.facts] == [CODE]
    await journal.close()
