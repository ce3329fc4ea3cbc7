"""Writing control events beside other gateways: who stood still does not overrule what was decided meanwhile."""

import asyncio
import itertools
from collections.abc import Sequence

import pytest

import gateway.control
from eventstore.events import CampaignCreated, CampaignPaused, CampaignResumed, MerchantAdded, Offer, StoreOpened
from eventstore.log import Batch, Head
from eventstore.memory_log import MemoryLog
from gateway.control import Control, ControlBusy

NOW_MS = 1_790_000_000_000


class SlowLog(MemoryLog):
    """The next call of this kind waits until it is let through."""

    def __init__(self) -> None:
        super().__init__(1)
        self.slow = ""
        self.waits, self.open = asyncio.Event(), asyncio.Event()

    async def _pass(self, kind: str) -> None:
        if self.slow == kind:
            self.slow = ""
            self.waits.set()
            await self.open.wait()

    async def append(self, batches: Sequence[Batch]) -> None:
        await self._pass("append")
        await super().append(batches)

    async def head(self, partition: int) -> Head:
        await self._pass("head")
        return await super().head(partition)


def control_on(log: SlowLog, name: bytes) -> Control:
    numbers = itertools.count()
    return Control(log, now_ms=lambda: NOW_MS, mint_tip=lambda: name + next(numbers).to_bytes(16 - len(name), "big"))


async def paused_campaign(log: SlowLog) -> tuple[Control, Control]:
    """Two gateways that both know of it."""
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
    await one.confirm()
    return one, other


async def resume_and_pause(control: Control) -> None:
    assert isinstance(await control.record("op", lambda *_: [CampaignResumed(campaign=1)]), tuple)
    assert isinstance(await control.record("op", lambda *_: [CampaignPaused(campaign=1)]), tuple)


@pytest.mark.parametrize("at", ("head", "append"))
@pytest.mark.parametrize("late_s", (0.0, 60.0), ids=("late", "in time"))
async def test_a_resume_that_stood_still_does_not_overrule_a_newer_pause(
    at: str, late_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gateway.control, "LATE_S", late_s)
    log = SlowLog()
    one, other = await paused_campaign(log)
    log.slow = at
    resume = asyncio.create_task(one.record("op", lambda *_: [CampaignResumed(campaign=1)]))
    await log.waits.wait()
    await resume_and_pause(other)
    log.open.set()
    if late_s:
        await resume
    else:
        with pytest.raises(ControlBusy, match="ask again"):
            await resume
    await other.confirm()
    assert other.directory.campaigns[1].paused is not bool(late_s)


@pytest.mark.parametrize("stood_still_s", (0.0, 60.0))
async def test_a_resume_that_lay_unread_while_the_gateway_stood_still_does_not_either(stood_still_s: float) -> None:
    one, other = await paused_campaign(SlowLog())
    await resume_and_pause(other)
    one._confirmed_s -= stood_still_s
    resume = one.record("op", lambda *_: [CampaignResumed(campaign=1)])
    if stood_still_s:
        with pytest.raises(ControlBusy, match="ask again"):
            await resume
    else:
        await resume
    await other.confirm()
    assert other.directory.campaigns[1].paused is bool(stood_still_s)


async def test_a_late_change_that_nothing_came_before_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the log was slow: there is nothing that it could overrule."""
    monkeypatch.setattr(gateway.control, "LATE_S", 0.0)
    one, _ = await paused_campaign(SlowLog())
    one._confirmed_s -= 60.0
    assert isinstance(await one.record("op", lambda *_: [CampaignResumed(campaign=1)]), tuple)
