"""What each arrival does: which till, which code, which kind of request. Drawn from the seed, one process at a time."""

from collections import deque
from collections.abc import Sequence
from random import Random
from typing import Any

from gateway.messages import Verdict
from loadtest.bench_frames import mint_id
from loadtest.generator_plan import BadCode, Codes, Plan
from loadtest.generator_wire import reversal_body, scan_body
from loadtest.run_files import Kind
from loadtest.scenario import Race, Scenario

REMEMBERED = 4096  # redemptions that may be scanned again, reversed or looked up: the newest ones
GUESSES_MAX = 10  # unknown codes from one till: a till that tries 20 in ten minutes is locked
NAMES = {int(verdict): verdict.name.lower() for verdict in Verdict}
ACCEPTED, UNRESOLVED = NAMES[Verdict.ACCEPTED], NAMES[Verdict.UNRESOLVED]


class Asked:
    """One attempt, from its intended start until nothing more can come of it."""

    __slots__ = (
        *("kind", "till", "key", "code", "voucher", "body", "intended_us", "sent_us", "ended_us", "sends"),
        *("open_sends", "later", "wait_s", "verdict", "position", "differ", "target", "said", "queued"),
    )

    def __init__(
        self, kind: Kind, till: int, key: bytes, code: str, voucher: str | None, body: bytes, intended_us: int
    ) -> None:
        self.kind, self.till, self.key, self.code, self.voucher, self.body = kind, till, key, code, voucher, body
        self.intended_us = intended_us
        self.sent_us: int | None = None  # when the till took it up
        self.ended_us: int | None = None
        self.sends = self.open_sends = self.later = 0  # written; unanswered; still to be written
        self.wait_s = 0.0  # before the next retry
        self.verdict: str | None = None
        self.position: tuple[int, int, int] | None = None
        self.differ = False
        self.target: str | None = None
        self.queued = False  # waits for a line
        self.said: Any = None  # the first answer, as far as a later one must be the same


class Supply:
    """Vouchers nobody has redeemed, in the order in which they are used."""

    def __init__(self, campaign: int) -> None:
        self._campaign = campaign
        self._runs: deque[Codes] = deque()
        self._used = 0
        self.left = 0
        self.wanting = 0  # how often there was none

    def add(self, codes: Codes) -> None:
        if codes.codes:
            self._runs.append(codes)
            self.left += len(codes.codes)

    def take(self) -> tuple[str, str] | None:
        """(code, voucher id) of the next one."""
        if not self._runs:
            self.wanting += 1
            return None
        run, used = self._runs[0], self._used
        self.left -= 1
        self._used = used + 1
        if self._used == len(run.codes):
            self._runs.popleft()
            self._used = 0
        return run.codes[used], f"{self._campaign}-{run.first_serial + used * run.step}"

    def nth(self, index: int) -> tuple[str, str]:
        """Without taking it: what a race is for. The first run must hold it."""
        run = self._runs[0]
        return run.codes[index], f"{self._campaign}-{run.first_serial + index * run.step}"


class Deeds:
    """Draws what arrivals do."""

    def __init__(self, plan: Plan, scenario: Scenario) -> None:
        self.supply = Supply(plan.campaign)
        self._rng = Random(f"{scenario.seed} {plan.generator}")  # noqa: S311 - load, not secrets
        self._tills, self._bad = len(plan.tills), plan.bad
        self._guesses = [0] * len(plan.tills)
        self._race = scenario.arrivals if isinstance(scenario.arrivals, Race) else None
        self._round, self._in_round = -1, 0
        mix = scenario.mix
        self._used = mix.used
        self._reverse = self._used + mix.reverse
        self._lookup = self._reverse + mix.lookup
        self._any = self._lookup + mix.bad
        self._repeats, self._within_us = scenario.repeats.share, scenario.repeats.within_s * 1e6
        self._accepted: deque[Asked] = deque(maxlen=REMEMBERED)
        self._last: tuple[str, str | None] = ("", None)
        self._zero_ms = 0

    def starts(self, zero_ms: int) -> None:
        """Wall clock at time 0: what scans and ids are stamped with."""
        self._zero_ms = zero_ms

    def next(self, intended_us: int) -> Asked:
        """The attempt of one arrival."""
        if self._race is not None:
            return self._racing(self._race, intended_us)
        draw = self._rng.random() if self._any else 1.0
        if draw < self._any:
            if draw >= self._lookup:
                return self._bad_code(intended_us)
            if self._accepted:
                return self._known(draw, intended_us)
        return self.fresh(int(self._rng.random() * self._tills), intended_us)

    def fresh(self, till: int, intended_us: int) -> Asked:
        """A voucher nobody has redeemed; when there is none left, the last one again (and the run is void)."""
        self._last = self.supply.take() or self._last
        return self._scan(till, *self._last, intended_us)

    def repeats_after_us(self) -> int | None:
        """Whether this redemption is sent once more with its id, and when."""
        if not self._repeats or self._rng.random() >= self._repeats:
            return None
        return int(self._rng.random() * self._within_us)

    def remember(self, asked: Asked) -> None:
        """It was accepted."""
        if self._any and asked.kind == "redeem":
            self._accepted.append(asked)

    def _known(self, draw: float, intended_us: int) -> Asked:
        accepted = self._accepted
        if draw < self._used:
            earlier = accepted[int(self._rng.random() * len(accepted))]
            return self._scan(int(self._rng.random() * self._tills), earlier.code, earlier.voucher, intended_us)
        if draw < self._reverse:
            earlier = accepted.popleft()
            key, now_ms = self._mint(intended_us)
            body = reversal_body(key, earlier.key, now_ms)
            asked = Asked("reverse", earlier.till, key, "", earlier.voucher, body, intended_us)
            asked.target = earlier.key.hex()
            return asked
        earlier = accepted[int(self._rng.random() * len(accepted))]
        return Asked("lookup", earlier.till, earlier.key, "", earlier.voucher, b"", intended_us)

    def _bad_code(self, intended_us: int) -> Asked:
        till = int(self._rng.random() * self._tills)
        return self._scan(till, *self._bad_text(till), intended_us)

    def _bad_text(self, till: int) -> tuple[str, str | None]:
        bad = _drawn(self._bad, self._rng)
        if bad.guess:
            self._guesses[till] += 1
            if self._guesses[till] > GUESSES_MAX:
                return bad.code[:-1], None  # one character short: no code at all, and no guess
        return bad.code, bad.voucher

    def _racing(self, race: Race, intended_us: int) -> Asked:
        round_ = int(intended_us // (race.every_s * 1e6))
        if round_ != self._round:
            self._round, self._in_round = round_, 0
        till, self._in_round = self._in_round % self._tills, self._in_round + 1
        return self._scan(till, *self.supply.nth(round_), intended_us)

    def _scan(self, till: int, code: str, voucher: str | None, intended_us: int) -> Asked:
        key, now_ms = self._mint(intended_us)
        return Asked("redeem", till, key, code, voucher, scan_body(key, code, now_ms), intended_us)

    def _mint(self, intended_us: int) -> tuple[bytes, int]:
        now_ms = self._zero_ms + intended_us // 1000
        return mint_id(now_ms, self._rng), now_ms


def _drawn(bad: Sequence[BadCode], rng: Random) -> BadCode:
    return bad[int(rng.random() * len(bad))]
