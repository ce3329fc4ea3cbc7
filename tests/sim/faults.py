"""What goes wrong in a run: which faults a seed allows, and how each is done to the world and made good again."""

import random
from collections.abc import Callable
from itertools import chain
from typing import Protocol

from sim.chance import Pace
from sim.gateways import Gateway, Surroundings
from sim.log_store import LogStore
from sim.loop import Owner, SimLoop
from sim.models import Note, ValkeyHost
from sim.operator_desk import Operator
from sim.terminals import Terminal
from sim.valkey_model import ModelValkey

from eventstore.bulk_fold import BulkFold
from eventstore.finished import by_field
from eventstore.vouchers import head_key, head_value
from gateway.claims import parse_head

SLOWNESS = 20  # times slower, while something is slow


class Victim(Protocol):
    """What the faults may touch."""

    loop: SimLoop
    choose: random.Random
    pace: Pace
    note: Note
    host: ValkeyHost
    store: LogStore
    around: list[Surroundings]
    gateways: list[Gateway]
    terminals: list[Terminal]
    operator: Operator
    calm: bool
    may_halt: bool
    focus: str

    def move_to(self, gateway: int, host: ValkeyHost) -> None: ...


class Faults:
    """Chooses and does them. Every seed allows its own few kinds, so that rare combinations meet undisturbed."""

    def __init__(self, world: Victim, backup: bool) -> None:
        self._world, self._choose = world, world.choose
        self._may_lose = not backup  # where the log loses its tail, only Valkey still knows what was promised
        gateway: tuple[Callable[[], None], ...] = (
            *(self._kill, self._kill, self._stop, self._step_clock, self._pause_behind_its_back),
        )
        link: tuple[Callable[[], None], ...] = (self._cut, self._cut_all, self._black_hole, self._till_crash)
        valkey: tuple[Callable[[], None], ...] = (
            *(self._lose_tail, self._lose_tail, self._lose_tail, self._wipe, self._split, self.forget),
            self._rot if world.host.server.append_only else self._restart_on_snapshot,
        )
        harmless: tuple[Callable[[], None], ...] = (
            *(self._out_of_memory, self._loading, self._unfit, self._pause, self._slow, self._fail_log, self._restart),
        )
        kinds = [*gateway, *link, *harmless] if backup else [*gateway, *link, *valkey, *harmless]
        self._allowed = self._choose.sample(kinds, self._choose.randint(2, len(kinds)))
        if backup:
            self._allowed += [self._kill, self._restore_backup]
        elif world.focus == "pause":
            self._allowed = [*self._allowed[:2], *[self._pause_behind_its_back] * 3]
        elif world.focus == "split":
            self._allowed = [*self._allowed[:1], *[self._split] * 4]
        elif world.focus == "load_1":
            self._allowed = [*self._allowed[:1], self._wipe, self.forget]
        elif world.focus == "rot":
            self._allowed = [*self._allowed[:2], *[self._rot] * 3, self._restart_on_snapshot]
        elif world.focus == "load_wipe_1":
            self._allowed = [self._split, self._lose_tail, self._lose_tail]
        elif world.focus == "look_up":
            self._allowed = [*self._allowed[:1], *[self.forget] * 3]
        elif world.focus == "overtaken":
            self._allowed = [*self._allowed[:1], *[self._restart] * 3]
        self._backup: dict[int, int] = {}

    def strike(self) -> None:
        """One fault, now."""
        fault = self._choose.choice(self._allowed)
        self._world.note("fault", fault.__name__, None)
        fault()

    def ambush(self, owner: Owner) -> None:
        """Something happens at the worst moment to whoever just did something."""
        kinds = ("stop", "stop", "stop", "power", "kill", "cut", "crash", "lose", "lose")
        kind = "stop" if self._world.focus == "overtaken" else self._choose.choice(kinds)
        self._world.note("ambush", (kind, owner.name), None)
        mine = next((gateway for gateway in self._world.gateways if gateway.owner is owner), None)
        if kind == "stop" and mine is not None:
            self._stop_for(mine, 0.6 + self._some_s(3.0))
        elif kind == "kill" and mine is not None:
            mine.end("killed")
        elif kind == "power" and mine is not None:
            mine.log.fails_next = self._choose.choice(("before", "after"))
            if self._may_lose:
                self._later(self._some_s(0.1), self._lose_tail)
        elif kind == "cut":
            for line in self._world.host.lines:
                if line.owner is owner:
                    line.cut(self._choose.randint(0, line.under_way))
        elif kind == "lose" and self._may_lose:  # after the answer, and before the append it leads to has landed
            self._later(2 * self._world.pace.delay_s(), self._crash, self._choose.randint(1, 3))
        elif kind == "crash":
            self._crash(0)

    def _later(self, seconds: float, mend: Callable[..., None], *args: object) -> None:
        loop = self._world.loop
        loop.at(loop.now_s + seconds, loop.world, mend, *args)

    def _some_s(self, longest_s: float) -> float:
        """Mostly short, sometimes as long as it gets."""
        return longest_s * self._choose.random() ** 3

    # --- gateways, tills ---

    def _kill(self) -> None:
        self._choose.choice(self._world.gateways).end("killed")

    def _stop(self) -> None:
        self._stop_for(self._choose.choice(self._world.gateways), self._some_s(8.0))

    def _stop_for(self, gateway: Gateway, seconds: float) -> None:
        if gateway.is_alive:
            gateway.owner.stop()
            self._later(seconds, self._world.loop.resume, gateway.owner)

    def _pause_behind_its_back(self) -> None:
        """A gateway stands still while the operator pauses a campaign, and wakes up long after."""
        self._stop_for(self._choose.choice(self._world.gateways), 1.2 + self._some_s(6.0))
        self._world.operator.pause_now()

    def _step_clock(self) -> None:
        self._choose.choice(self._world.around).skew_ms = self._choose.choice((-5000, -300, 0, 300, 60_000))

    def _till_crash(self) -> None:
        terminal = self._choose.choice(self._world.terminals)
        terminal.crash()
        self._later(self._some_s(1.0), terminal.restart)

    # --- the way to Valkey ---

    def _cut(self) -> None:
        alive = [line for line in self._world.host.lines if not line.broken]
        if alive:
            line = self._choose.choice(alive)
            line.cut(self._choose.randint(0, line.under_way))

    def _cut_all(self) -> None:
        for line in self._world.host.lines:
            line.cut(self._choose.randint(0, line.under_way))

    def _black_hole(self) -> None:
        if self._world.host.lines:
            self._choose.choice(self._world.host.lines).black = True

    # --- Valkey ---

    def _restart(self) -> None:
        self._crash(0)

    def _crash(self, lost_writes: int) -> None:
        host = self._world.host
        host.crash(lost_writes)
        self._later(self._some_s(0.3), host.start)

    def _lose_tail(self) -> None:
        self._crash(self._choose.choice((1, 1, 2, 3, 5, 8, 20, 100)))

    def _wipe(self) -> None:
        self._crash(0)
        self._world.host.server.wipe(functions=True)

    def forget(self) -> None:
        """Valkey holds nothing any more, and no connection was cut."""
        self._world.host.server.wipe(functions=False)

    def _rot(self) -> None:
        """A bit of its file is another one when it is read back; without a file, it comes back with nothing."""
        server = self._world.host.server
        if not server.append_only:
            self._wipe()
            return
        self._crash(self._choose.choice((0, 0, 1, 3)))
        held = [(key, field) for key in sorted(server.hashes) for field in sorted(server.hashes[key])]
        if held:
            key, field = self._choose.choice(held)
            value = server.hashes[key][field]
            server.hashes[key][field] = bytes([value[0] ^ 1]) + value[1:]

    def _restart_on_snapshot(self) -> None:
        """A private server ends, and starts on what the log said some time ago; it has no redis stream then."""
        host, store, deeds = self._world.host, self._world.store, self._world.operator.deeds
        if any(deed.what == "purge" and deed.done_s is None for deed in deeds):
            self._wipe()  # what it starts on is made when everybody has heard of the purge
            return
        self._crash(0)
        host.server.wipe(functions=True)
        host.server.append_only = False
        for partition in range(store.partitions):
            batches = store.chains[partition]
            fold = BulkFold(partition, purged=store.purged(), is_counting=False)
            for batch in batches[: self._choose.randint(0, len(batches))]:
                fold.apply(batch)
            if fold.head.seq:
                host.server.strings[head_key(partition)] = head_value(fold.head)
            for key, held in chain.from_iterable(fold.finished()):
                host.server.hashes[key] = by_field(held)

    def _split(self) -> None:
        """A replica that lags is promoted; some gateways still talk to the old primary for a while."""
        world, old = self._world, self._world.host
        server = old.server.copied()
        server.roll_back(max(0, server.writes - self._choose.choice((0, 1, 3, 8))))
        new = ValkeyHost(world.loop, world.pace, server, world.note)
        for number in range(len(world.gateways)):
            if self._choose.random() < 0.6:
                world.move_to(number, new)
        world.host = new
        self._later(self._some_s(2.0), self._heal_split, old, new)

    def _heal_split(self, old: ValkeyHost, new: ValkeyHost) -> None:
        for number in range(len(self._world.gateways)):
            self._world.move_to(number, self._world.host)
        old.crash(0)

    def _out_of_memory(self) -> None:
        server = self._world.host.server
        server.out_of_memory = True
        self._later(self._some_s(1.0), self._mend, server)

    def _loading(self) -> None:
        server = self._world.host.server
        server.loading = True
        self._later(self._some_s(0.5), self._mend, server)

    def _unfit(self) -> None:
        server = self._world.host.server
        if self._choose.random() < 0.5:
            server.policy = b"allkeys-lru"
        else:
            server.role = b"slave"
        self._later(self._some_s(0.5), self._mend, server)
        self._cut_all()

    def _mend(self, server: ModelValkey) -> None:
        server.out_of_memory = server.loading = False
        server.policy, server.role = b"noeviction", b"master"

    def _pause(self) -> None:
        host = self._world.host
        host.paused = True
        self._later(self._some_s(4.0), host.resume)

    def _slow(self) -> None:
        pace = self._world.pace
        if pace.typical_s < 0.005:
            pace.typical_s *= SLOWNESS
            self._later(self._some_s(0.5), self._hurry)

    def _hurry(self) -> None:
        self._world.pace.typical_s /= SLOWNESS

    # --- the log ---

    def _fail_log(self) -> None:
        self._choose.choice(self._world.gateways).log.fails_next = self._choose.choice(("before", "after"))

    def _restore_backup(self) -> None:
        """Takes a backup the first time; puts it in the log's place the second time, all gateways stopped."""
        world, store = self._world, self._world.store
        if not self._backup:
            self._backup = {number: len(store.chains[number]) for number in range(store.partitions)}
            return
        if world.may_halt or any(self._is_behind(partition) for partition in range(store.partitions)):
            return  # of two copies of what was promised one must be whole
        world.may_halt = True
        for gateway in world.gateways:
            gateway.end("stopped to restore the log")
        for number, length in self._backup.items():
            del store.chains[number][length:]

    def _is_behind(self, partition: int) -> bool:
        """Whether Valkey lacks something of the log, as while it is rebuilt or replayed."""
        strings, logged = self._world.host.server.strings, self._world.store.head(partition)
        return b"{%d}load" % partition in strings or parse_head(strings.get(head_key(partition))).seq < logged.seq

    def mend_all(self) -> None:
        """No fault goes on after this."""
        world = self._world
        for gateway in world.gateways:
            world.loop.resume(gateway.owner)
            gateway.log.fails_next = None
        for around in world.around:
            around.skew_ms = 0
        self._mend(world.host.server)
        world.host.start()
        world.host.resume()
        for line in world.host.lines:
            if line.black:
                line.cut(0)
