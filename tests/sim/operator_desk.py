"""The operator of the simulated world: pauses, resumes, closes, issues, imports, voids; again until it is known."""

import random
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol

import msgspec
from sim.deployment import CAMPAIGNS, ISSUED, TYPED_CODES, signed_code
from sim.gateways import Gateway
from sim.loop import SimLoop
from sim.models import Note

from eventstore.events import CampaignClosed, CampaignPaused, CampaignResumed
from eventstore.log import LogFailed
from gateway.control import ControlBusy
from gateway.directory import Rejected
from gateway.messages import Verdict
from gateway.pipe import ArbiterLost, ArbiterRefused

PATIENCE_S = 3.0
WIND_UP_EVERY_S = 0.1  # between two looks whether the operator is free for it
TOO_EARLY_S = 1.0  # until a purge is tried again: a clock that was ahead may have dated the close
BRIEF = 2  # the campaign that is wound up, if one is
LATE_SERIALS = 4  # issued during a run, after ISSUED


class Deed(msgspec.Struct, eq=False):
    """Something the operator wants done. `done_s` is when it was known to be in the log."""

    what: str
    campaign: int
    began_s: float
    codes: tuple[str, ...] = ()
    serial: int = 0
    done_s: float | None = None


class Office(Protocol):
    """What the operator sees of the world."""

    loop: SimLoop
    choose: random.Random
    note: Note
    gateways: list[Gateway]


class Operator:
    """Does one thing at a time; what it does not hear of, it asks for again."""

    def __init__(self, office: Office) -> None:
        self._office = office
        self.deeds: list[Deed] = []
        self.news: list[tuple[str, tuple[int, int] | None]] = []
        self._paused: set[int] = set()
        self._left = [tuple(TYPED_CODES[:3]), tuple(TYPED_CODES[3:6])]  # the last ones are never imported
        self._issued = False

    @property
    def is_busy(self) -> bool:
        return bool(self.deeds) and self.deeds[-1].done_s is None

    def act(self) -> None:
        """Begin something, if nothing is under way."""
        if self.is_busy:
            return None
        choose, now_s = self._office.choose, self._office.loop.now_s
        what = choose.choice(("pause", "pause", "resume", "resume", "import", "issue", "void", "close"))
        campaign = choose.randint(1, 2)
        if what == "pause" and campaign not in self._paused:
            self._paused.add(campaign)
        elif what == "resume" and campaign in self._paused:
            self._paused.discard(campaign)
        elif what == "import" and self._left:
            return self._begin(Deed("import", 2, now_s, codes=self._left.pop()))
        elif what == "issue" and not self._issued:
            self._issued, campaign = True, 1
        elif what == "void":
            return self._begin(Deed("void", campaign, now_s, serial=choose.randint(1, ISSUED // 2)))
        elif what != "close" or choose.random() > 0.1 or not self._may_close():
            return None
        else:
            campaign = 2
        return self._begin(Deed(what, campaign, now_s))

    def pause_now(self) -> None:
        """Pause a campaign if that is possible now."""
        running = sorted({1, 2} - self._paused)
        if running and not self.is_busy:
            campaign = self._office.choose.choice(running)
            self._paused.add(campaign)
            self._begin(Deed("pause", campaign, self._office.loop.now_s))

    def wind_up(self) -> None:
        """Close a campaign, and purge it when its disputes are over, as soon as nothing else is under way."""
        loop = self._office.loop
        may_close = self._may_close()
        if not self.is_busy:
            self._begin(Deed("close" if may_close else "purge", BRIEF, loop.now_s))
            if not may_close:
                return
        loop.at(loop.now_s + WIND_UP_EVERY_S, loop.world, self.wind_up)

    def void_one(self, vouchers: Sequence[tuple[int, int] | None]) -> None:
        """Try to void one of these that is of the campaign that was wound up."""
        serials = sorted({voucher[1] for voucher in vouchers if voucher is not None and voucher[0] == BRIEF})
        if serials and not self.is_busy:
            self._begin(Deed("void", BRIEF, self._office.loop.now_s, serial=self._office.choose.choice(serials)))

    def _may_close(self) -> bool:
        return all(deed.what != "close" for deed in self.deeds)

    def _begin(self, deed: Deed) -> None:
        self.deeds.append(deed)
        self._try(deed)

    def _try(self, deed: Deed) -> None:
        loop = self._office.loop
        if deed.done_s is not None:
            return
        working = [gateway for gateway in self._office.gateways if not gateway.owner.held]
        if working:
            gateway = self._office.choose.choice(working)
            loop.at(loop.now_s, gateway.owner, self._start, gateway, deed)
        loop.at(loop.now_s + PATIENCE_S, loop.world, self._try, deed)

    def _start(self, gateway: Gateway, deed: Deed) -> None:
        if gateway.is_up:
            self._office.loop.create_task(self._carry_out(gateway, deed))

    async def _carry_out(self, gateway: Gateway, deed: Deed) -> None:
        try:
            outcome = await self._work(gateway, deed)
        except (ControlBusy, ArbiterLost, ArbiterRefused):
            return
        except LogFailed as error:
            gateway.end(str(error))
            return
        if isinstance(outcome, Rejected) and deed.what in ("import", "issue"):
            deed.what, deed.codes = "rejected", ()  # the campaign was closed first
        if isinstance(outcome, Rejected) and deed.what == "purge" and deed.done_s is None:
            deed.what = "too early"
            self._office.loop.at(self._office.loop.now_s + TOO_EARLY_S, self._office.loop.world, self.wind_up)
        done = True  # a pause that is rejected is in force already
        if isinstance(outcome, list):
            done = all(one.verdict is not Verdict.UNRESOLVED for one in outcome)
        if outcome is not Verdict.UNRESOLVED and done and deed.done_s is None:
            deed.done_s = self._office.loop.now_s
            self._tell(deed)
            self._office.note("operator", (deed.what, deed.campaign), None)

    def _tell(self, deed: Deed) -> None:
        """Tills get to know the newest codes at once."""
        if deed.what == "import":
            self.news = [(code, None) for code in deed.codes]
        elif deed.what == "issue":
            late = range(ISSUED + 1, ISSUED + LATE_SERIALS + 1)
            self.news = [(signed_code(1, serial), (1, serial)) for serial in late]

    def _work(self, gateway: Gateway, deed: Deed) -> Awaitable[Any]:
        slug, desk, request_id = CAMPAIGNS[deed.campaign], gateway.desk, f"deed-{self.deeds.index(deed)}"
        match deed.what:
            case "import":
                return desk.import_codes("operator", slug, deed.codes, request_id)
            case "issue":
                return desk.issue("operator", slug, LATE_SERIALS, request_id)
            case "void":
                return desk.void("operator", deed.campaign, deed.serial, "test", request_id)
            case "purge":
                return desk.purge("operator", slug)
        kinds: dict[str, Callable[..., Any]] = {
            "pause": CampaignPaused,
            "resume": CampaignResumed,
            "close": CampaignClosed,
        }
        event = kinds[deed.what](campaign=deed.campaign)
        return gateway.control.record("operator", lambda directory, now_ms: [event])
