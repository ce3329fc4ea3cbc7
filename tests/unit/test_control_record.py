"""Writing control events beside other gateways: who stood still does not overrule what was decided meanwhile."""

import asyncio
import itertools
from collections.abc import Sequence

import pytest

import gateway.control
from eventstore.events import CampaignCreated, CampaignPaused, CampaignResumed, MerchantAdded, Offer, StoreOpened
from eventstore.log import Batch
from eventstore.memory_log import MemoryLog
from gateway.control import Control, ControlBusy

NOW_MS = 1_790_000_000_000


class SlowLog(MemoryLog):
    """What one gateway appends takes effect when it is let through."""

    def __init__(self) -> None:
        super().__init__(1)
        self.slow = b""
        self.waits, self.open = asyncio.Event(), asyncio.Event()

    async def append(self, batches: Sequence[Batch]) -> None:
        if self.slow and batches[0].tip.startswith(self.slow):
            self.waits.set()
            await self.open.wait()
        await super().append(batches)


def control_on(log: SlowLog, name: bytes) -> Control:
    numbers = itertools.count()
    return Control(log, now_ms=lambda: NOW_MS, mint_tip=lambda: name + next(numbers).to_bytes(16 - len(name), "big"))


@pytest.mark.parametrize("late_s", (0.0, 60.0), ids=("late", "in time"))
async def test_a_resume_that_stood_still_does_not_overrule_a_newer_pause(
    late_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gateway.control, "LATE_S", late_s)
    log = SlowLog()
    one, other = control_on(log, b"one"), control_on(log, b"other")
    offer = Offer(
        title="Tea", kind="prepaid", value_minor=1, currency="CNY", starts_ms=0, ends_ms=2 * NOW_MS, stores=("s",)
    )
    events = (
        MerchantAdded(merchant="m", title="M"),
        StoreOpened(store="s", merchant="m", title="S"),
        CampaignCreated(campaign=1, slug="tea", offer=offer),
        CampaignPaused(campaign=1),
    )
    for event in events:
        assert isinstance(await other.record("op", lambda *_, event=event: [event]), tuple)
    log.slow = b"one"
    resume = asyncio.create_task(one.record("op", lambda *_: [CampaignResumed(campaign=1)]))
    await log.waits.wait()
    assert isinstance(await other.record("op", lambda *_: [CampaignResumed(campaign=1)]), tuple)
    assert isinstance(await other.record("op", lambda *_: [CampaignPaused(campaign=1)]), tuple)
    log.open.set()
    if late_s:
        await resume
    else:
        with pytest.raises(ControlBusy, match="ask again"):
            await resume
    await other.confirm()
    assert other.directory.campaigns[1].paused is not bool(late_s)
