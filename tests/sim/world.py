"""One seeded run: two gateways, tills and an operator over one Valkey and one log, faults, calm, and an audit."""

from collections import Counter
from collections.abc import Callable, Sequence

import msgspec
from sim import valkey_model
from sim.auditor import Evidence, audit
from sim.chance import Chance, Pace
from sim.deployment import ISSUED, TERMINALS, control_batches
from sim.faults import Faults
from sim.gateways import Gateway, Surroundings
from sim.limits import draw_limits, limits_put_back
from sim.log_store import LogStore
from sim.loop import Owner, SimLoop, collector_held_back
from sim.models import ModelConnection, ModelIndex, ValkeyHost
from sim.operator_desk import BRIEF, Operator
from sim.terminals import Terminal, Told
from sim.valkey_model import ModelValkey

from gateway import ids, loading
from gateway.messages import Verdict
from gateway.recovery import Branch, PartitionHalted, Recovered

GATEWAYS = 2
COLLECT_EVERY = 4  # runs: some 20 MB
CALM_S_MAX = 15.0  # within this, after the last fault, everything must have been answered
OPERATOR_SHARE = 0.03  # of what happens
STRIKES_PER_S = 0.2  # of virtual time, whatever happens
SPLITS_PER_S = 1.0  # where that is what a seed looks for
BALANCER_LATE_SHARE = 0.1
ALL_BUSY_S = 0.1  # between two looks whether a till is free again
ACT_EVERY_S_MAX = 0.03  # more than that, and a run's time goes into gateways that look whether there is news
STILL_S = 1.5  # nothing happened for so long: nothing is on its way
RUN_S_MAX = 300.0  # of virtual time; a run that has not had its events by then is stuck
APPEND_ONLY_SHARE = 0.4  # of the seeds: Valkey keeps a file, and is rebuilt after each start
BACKUP_ONE_IN = 12  # seeds in which the log is restored from a backup
PURGE_ONE_IN = 6  # seeds in which a campaign is closed and purged: other ones than those with a backup
WIND_UP_S_MAX = 2.0  # when that begins
PURGE_ACT_EVERY_S = 0.1  # it takes some eight seconds
AMBUSH_CHANCE = {  # of a fault at the very moment of an operation
    "claim_1": 0.05,
    "append": 0.06,
    "restore_1": 0.1,
    "load_wipe_1": 0.2,
    "load_1": 0.1,
}
# What a seed looks for above all: trouble at one kind of operation, a pause behind a sleeper's back, two Valkeys at
# once, a rebuild that is overtaken by another, codes that are only looked up, or nothing.
FOCUSES = (
    *("", "", "", "pause", "split", "rot", "look_up", "claim_1", "append"),
    *("restore_1", "load_wipe_1", "overtaken", "load_1", "load_1"),
)


class Outcome(msgspec.Struct):
    """What a run showed."""

    seed: int
    violations: list[str]
    events: int
    branches: Counter[str]
    trace: list[str]
    virtual_s: float
    steps: int = 0  # callbacks that were run before the calm


class World:
    """See the protocols in terminals, operator_desk and faults for what they may touch of it."""

    def __init__(self, seed: int, *, traced: bool, focus: str | None = None, is_plain: bool = False) -> None:
        """`is_plain`: nothing goes wrong by chance."""
        self.seed, self._is_plain = seed, is_plain
        self.choose = choose = Chance(seed)
        self.loop = SimLoop(self._on_error)
        self.pace = Pace(choose, choose.choice((0.0002, 0.0005, 0.001, 0.004)))
        self._log_pace = Pace(choose, min(0.01, self.pace.typical_s * choose.choice((1, 4, 20))))
        self.violations: list[str] = []
        self.trace: list[str] | None = [] if traced else None
        self.events = 0
        self.branches: Counter[str] = Counter()
        self.history: list[Told] = []
        self.sold = 0
        self.calm = self.may_halt = False
        self.lost_share, self.doubled_share = choose.choice((0.0, 0.02, 0.1)), choose.choice((0.0, 0.05))
        draw_limits(choose)
        partitions = choose.choice((1, 1, 2))
        self._is_purged = focus == "purge" or seed % PURGE_ONE_IN == 1
        self.store = LogStore(partitions, control_batches(partitions, BRIEF if self._is_purged else 0))
        self.host = ValkeyHost(self.loop, self.pace, ModelValkey(lambda: choose.random() < 0.5), self.note)
        self.host.server.append_only = choose.random() < APPEND_ONLY_SHARE
        self._hosts = [self.host] * GATEWAYS
        log_repeats = choose.choice((0.0, 0.0, 0.1))
        self.around = [self._surroundings(number, log_repeats) for number in range(GATEWAYS)]
        self._lives = [0] * GATEWAYS
        self.gateways = [Gateway(around, 0) for around in self.around]
        self.terminals = [Terminal(self, number) for number in range(1, choose.randint(2, TERMINALS) + 1)]
        self.operator = Operator(self)
        self.typed_share = choose.choice((0.02, 0.05, 0.4))
        self.misuse_share, self.news_share, self.fact_share = choose.choice((0.02, 0.15)), 0.15, 0.1
        drawn = choose.choice(FOCUSES)
        self.focus = drawn if focus is None else focus
        self._strikes_per_s = SPLITS_PER_S if self.focus == "split" else STRIKES_PER_S
        self._fault_share = choose.choice((0.01, 0.02, 0.05))  # of what happens
        self._act_every_s = min(ACT_EVERY_S_MAX, self.pace.typical_s * choose.choice((1, 3, 10, 40)))
        if self.focus == "pause":
            self._fault_share, self._act_every_s = 0.1, 0.02
        if self.focus == "split":
            self.host.server.append_only &= choose.random() < 0.5  # a rebuild after each start hides what a lag leaves
            self._fault_share, self._log_pace.typical_s = 0.0, self.pace.typical_s
            # Seldom enough that a gateway which moved is ready again before the other one claims.
            self._act_every_s = self.pace.typical_s * choose.choice((20, 100))
        if self.focus == "rot" and seed % BACKUP_ONE_IN != 0:  # where the log is restored, only Valkey knows the rest
            self.host.server.append_only, self._fault_share = True, 0.03
        if self.focus.startswith("load"):
            self.host.server.append_only = False
            self._fault_share, loading.LOAD_FIELDS_MAX, valkey_model.SCAN_KEYS = 0.03, 1, 1
            self._log_pace.typical_s = 0.005
        if self.focus == "reuse":  # ids leave memory early; too early for the common mix, where many are under way
            ids.GENERATION_IDS, self.misuse_share = 24, 0.15
        if self.focus == "look_up":  # codes that were just imported, and a Valkey that has forgotten them
            self.news_share, self._fault_share = 1.0, 0.03
        if self.focus == "overtaken":  # a start on a file: both gateways rebuild at once what still holds everything
            self.host.server.append_only = seed % BACKUP_ONE_IN != 0
            valkey_model.SCAN_KEYS, self._log_pace.typical_s = 1, self.pace.typical_s
            self._fault_share, self._act_every_s = 0.0, 0.02
        if self._is_purged:
            self._act_every_s, self.fact_share = PURGE_ACT_EVERY_S, 0.3
        if is_plain:
            self.lost_share = self.doubled_share = self._fault_share = 0.0
        self._ambushed = "load_wipe_1" if self.focus == "overtaken" else self.focus
        self.faults = Faults(self, backup=seed % BACKUP_ONE_IN == 0)

    def _surroundings(self, number: int, log_repeats: float) -> Surroundings:
        return Surroundings(
            name=f"g{number}",
            loop=self.loop,
            choose=self.choose,
            pace=self.pace,
            log_pace=self._log_pace,
            store=self.store,
            index=ModelIndex(self.loop, self.pace, self.store.partitions),
            connector=lambda owner: lambda: ModelConnection(self.loop, lambda: self._hosts[number], owner),
            note=self.note,
            on_recovered=self._on_recovered,
            on_end=self._on_end,
            log_repeats=log_repeats,
        )

    def move_to(self, gateway: int, host: ValkeyHost) -> None:
        """From now on this gateway's connections go to `host`; the ones it has are cut."""
        if self._hosts[gateway] is not host:
            self._cut_lines(gateway)
            self._hosts[gateway] = host

    def _cut_lines(self, gateway: int) -> None:
        for line in self._hosts[gateway].lines:
            if line.owner is self.gateways[gateway].owner:
                line.cut(self.choose.randint(0, line.under_way))

    # --- what the parts tell ---

    def note(self, kind: str, particulars: object, who: Owner | None, times: int = 1) -> None:
        self.events += times
        if self.trace is not None:
            owner = who or self.loop.owner
            self.trace.append(f"{self.loop.now_s:10.6f} {owner.name:6} {kind} {particulars}")
        if kind == self._ambushed and who is not None and not self.calm and self.choose.random() < AMBUSH_CHANCE[kind]:
            self.faults.ambush(who)

    def say(self, text: str) -> None:
        """A line of the trace that is no event."""
        if self.trace is not None:
            self.trace.append(f"{self.loop.now_s:10.6f} {self.loop.owner.name:6} {text}")

    def _on_error(self, owner: Owner, error: BaseException) -> None:
        where = error.__traceback__
        while where is not None and where.tb_next is not None:
            where = where.tb_next
        line = f"{where.tb_frame.f_code.co_filename.rpartition('/')[2]}:{where.tb_lineno}" if where else "nowhere"
        self.violations.append(f"bug: {owner.name} raised {type(error).__name__}: {error} at {line}")

    def _on_recovered(self, partition: int, outcome: Recovered | PartitionHalted) -> None:
        if isinstance(outcome, PartitionHalted):
            self.branches[Branch.HALT] += 1
            if not self.may_halt:
                self.violations.append(f"R8: {self.loop.owner.name} halted without a cause: {outcome}")
            return self.say(f"HALTED {outcome}")
        self.branches.update(outcome.branches)
        if any(gateway.is_ready() for gateway in self.gateways):
            for terminal in self.terminals:
                self.loop.at(self.loop.now_s + self.pace.delay_s(), self.loop.world, terminal.line_is_back)
        return self.say(f"recovered {partition} {[str(branch) for branch in outcome.branches]} at {outcome.head.seq}")

    def _on_end(self, gateway: Gateway, why: str) -> None:
        number = int(gateway.around.name[1:])
        self.say(f"{gateway.owner.name} ends: {why}")
        self._cut_lines(number)
        self.loop.at(self.loop.now_s + self.choose.random() ** 2, self.loop.world, self._start, number)

    def _start(self, number: int) -> None:
        if not self.gateways[number].is_alive:
            self._lives[number] += 1
            self.gateways[number] = Gateway(self.around[number], self._lives[number])

    def some_gateway(self) -> Gateway | None:
        """Where a till's message goes: a balancer asks who is ready, and is behind the times now and then."""
        is_late = self.choose.random() < BALANCER_LATE_SHARE
        able = [gateway for gateway in self.gateways if (gateway.is_alive if is_late else gateway.is_ready())]
        return self.choose.choice(able) if able else None

    # --- phases ---

    def run(self, events: int, at_step: int = -1, strike: Callable[["World"], None] | None = None) -> Outcome:
        """Trouble until `events` things have happened, then calm, then the audit.

        `strike` is done when `at_step` callbacks have been run, if there are so many.
        """
        loop = self.loop
        loop.at(0.01, loop.world, self._act)
        if not self._is_plain:
            loop.at(1.0, loop.world, self._strike)
        if self._is_purged:
            loop.at(WIND_UP_S_MAX * self.choose.random(), loop.world, self.operator.wind_up)
        loop.stops_at = at_step
        loop.run_while(lambda: self.events < events and not self._is_over())
        if strike is not None and loop.steps == at_step:
            loop.stops_at = -1
            strike(self)
            loop.run_while(lambda: self.events < events and not self._is_over())
        steps, loop.stops_at = loop.steps, -1
        if self.loop.now_s > RUN_S_MAX and not self.violations:
            self.violations.append(f"R8: stuck, {self.events} events in {loop.now_s:.0f} s")
        if not self._is_over():
            self._calm_down()
        if not self.violations:
            self.violations += audit(self._evidence())
        outcome = Outcome(self.seed, self.violations, self.events, self.branches, self.trace or [], loop.now_s, steps)
        loop.dispose()
        return outcome

    def _is_over(self) -> bool:
        halted = self.may_halt and any(gateway.is_halted() for gateway in self.gateways)
        return bool(self.violations) or halted or self.loop.now_s > RUN_S_MAX

    def _act(self) -> None:
        if self.calm:
            return
        chance, wait_s = self.choose.random(), self.choose.expovariate(1 / self._act_every_s)
        free = [terminal for terminal in self.terminals if terminal.is_free]
        if chance < OPERATOR_SHARE:
            self.operator.act()
        elif chance < OPERATOR_SHARE + self._fault_share:
            self.faults.strike()
        elif free:
            self.choose.choice(free).act()
        else:
            wait_s = max(wait_s, ALL_BUSY_S)
        self.loop.at(self.loop.now_s + wait_s, self.loop.world, self._act)

    def _strike(self) -> None:
        if not self.calm:
            self.faults.strike()
            self.loop.at(self.loop.now_s + self.choose.expovariate(self._strikes_per_s), self.loop.world, self._strike)

    def _calm_down(self) -> None:
        """No more faults: everything must be answered soon, and then Valkey must hold what the log says."""
        self.calm = True
        self.lost_share = self.doubled_share = 0.0
        self.faults.mend_all()
        for number in range(GATEWAYS):
            self.move_to(number, self.host)
        self.say("--- calm")
        self._run_until_quiet("R8: not answered")
        self._run_until_still()
        if self.focus == "look_up" and self.seed % BACKUP_ONE_IN != 0:
            self.faults.forget()
            for terminal in self.terminals:
                terminal.scan_newest()
            self._run_until_quiet("R8: a code that is looked up in an empty Valkey was not answered")
            self._probe()  # both gateways may rebuild it now, and the second take back what the first has claimed
            self._run_until_quiet("R8: a fresh scan in an empty Valkey was not answered")
        if self._is_purged:
            self.operator.void_one([told.wish.voucher for told in self.history if told.verdict == Verdict.ACCEPTED])
        self._probe()
        self._run_until_quiet("R8: a fresh scan was not answered")
        self._run_until_still()

    def _run_until_still(self) -> None:
        """Until nothing happens any more: no repeated message, no claim whose gateway gave up, no append under way."""
        before = -1
        while (before != self.events or self.host.under_way or self.store.under_way) and not self._is_over():
            before, until_s = self.events, self.loop.now_s + STILL_S
            self.loop.run_while(lambda until_s=until_s: self.loop.now_s < until_s and not self._is_over())  # type: ignore[misc]

    def _run_until_quiet(self, complaint: str) -> None:
        loop, until_s = self.loop, self.loop.now_s + CALM_S_MAX
        loop.run_while(lambda: loop.now_s < until_s and not self._is_over() and not self._is_quiet())
        waiting = [wish for terminal in self.terminals for wish in terminal.open]
        if not self._is_quiet() and not self._is_over():
            lanes = [(g.owner.name, lane.partition, lane.state, lane.why) for g in self.gateways for lane in g.lanes]
            self.violations.append(f"{complaint} within {CALM_S_MAX:g} s of calm: {len(waiting)} requests; {lanes}")

    def _is_quiet(self) -> bool:
        ready = all(gateway.is_alive and gateway.is_ready() for gateway in self.gateways)
        return ready and not self.operator.is_busy and not any(terminal.open for terminal in self.terminals)

    def _probe(self) -> None:
        """A fresh scan through every gateway and partition: it carries along whatever only Valkey still holds."""
        for number in range(6):
            self.terminals[0].scan_fresh(1, ISSUED - 64 * number)

    def _evidence(self) -> Evidence:
        return Evidence(
            chains=self.store.chains,
            history=self.history,
            wishes=[wish for terminal in self.terminals for wish in terminal.journal],
            deeds=self.operator.deeds,
            hashes=self.host.server.hashes,
            heads={number: self.host.server.strings.get(b"{%d}head" % number) for number in self.store.chains},
            is_halted=any(gateway.is_halted() for gateway in self.gateways),
            conflicts=self.store.conflicts(),
            purged=self.store.purged(),
        )


def run_seed(seed: int, events: int, *, traced: bool = False, focus: str | None = None) -> Outcome:
    """One run; the same arguments give the same run. `focus` overrides what the seed looks for above all."""
    with limits_put_back():
        return World(seed, traced=traced, focus=focus).run(events)


def run_chunk(seeds: Sequence[int], events: int, focus: str | None = None) -> list[Outcome]:
    """Some runs, one after the other."""
    with collector_held_back() as collect:
        outcomes = []
        for number, seed in enumerate(seeds, 1):
            outcomes.append(run_seed(seed, events, focus=focus))
            if number % COLLECT_EVERY == 0:
                collect()
        return outcomes
