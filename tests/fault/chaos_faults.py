"""What goes wrong: every fault there is, and the schedule that a seed stands for.

A fault is a coroutine that does its harm, mends it, and returns when the servers run again; how the tills fare
meanwhile is not its business. Weather (a slow disk, a slow network, a wrong clock) stays for the faults that follow.
"""

import asyncio
import contextlib
import random
import signal
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import msgspec
from chaos_disk import copy_files
from chaos_proxy import Proxy
from chaos_servers import Failed, Gateway, Process, Valkey
from chaos_tills import Fleet
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from redis.exceptions import RedisError

from gateway.messages import HELLO_CONTEXT, SUBPROTOCOL, Challenge, Hello, Proof

STALL_S = (5.7, 8.0)  # beyond the 5 s after which a gateway must not believe its unread input
NOTICE_S = 4.0  # how long a gateway that woke up may take to close its connections, or one whose disk failed to end
CLOCK_MS = 2 * 3_600_000


@dataclass
class Scene:
    """Everything a fault can reach."""

    gateway: Gateway
    valkey: Valkey
    proxy: Proxy
    fleet: Fleet
    witness: Ed25519PrivateKey  # of terminal `witness_number`, which no till uses
    witness_number: int
    older_files: Path  # a former copy of Valkey's AOF
    broken: list[tuple[str, str]] = field(default_factory=list)  # fault, what a server did that it must not do

    async def start_both(self) -> None:
        if not self.valkey.runs:
            await self.valkey.start()
        if not self.gateway.runs:
            await self.gateway.start()

    def heal(self) -> None:
        """End all weather."""
        for server in (self.gateway, self.valkey):
            server.disk.heal()
            server.signal(signal.SIGCONT)
        self.proxy.heal()


Fault = Callable[[Scene, random.Random], Awaitable[None]]


# --- processes ---


async def _killed(scene: Scene, rng: random.Random, servers: Sequence[Process], *, power: bool) -> None:
    for server in servers:
        server.kill()
    for server in servers:
        if power:
            server.disk.lose_power(rng)
    await asyncio.sleep(rng.choice((0.0, rng.uniform(0.0, 0.5))))
    await scene.start_both()


async def kill_gateway(scene: Scene, rng: random.Random) -> None:
    await _killed(scene, rng, [scene.gateway], power=False)


async def kill_valkey(scene: Scene, rng: random.Random) -> None:
    await _killed(scene, rng, [scene.valkey], power=False)


async def kill_both(scene: Scene, rng: random.Random) -> None:
    both: list[Process] = [scene.gateway, scene.valkey]
    rng.shuffle(both)
    await _killed(scene, rng, both, power=False)


async def power_gateway(scene: Scene, rng: random.Random) -> None:
    await _killed(scene, rng, [scene.gateway], power=True)


async def power_valkey(scene: Scene, rng: random.Random) -> None:
    await _killed(scene, rng, [scene.valkey], power=True)


async def power_both(scene: Scene, rng: random.Random) -> None:
    both: list[Process] = [scene.gateway, scene.valkey]
    rng.shuffle(both)
    await _killed(scene, rng, both, power=True)


async def _paused(server: Process, seconds: float) -> None:
    server.signal(signal.SIGSTOP)
    await asyncio.sleep(seconds)
    server.signal(signal.SIGCONT)


async def pause_gateway(scene: Scene, rng: random.Random) -> None:
    await _paused(scene.gateway, rng.uniform(0.1, 3.0))


async def pause_valkey(scene: Scene, rng: random.Random) -> None:
    await _paused(scene.valkey, rng.choice((rng.uniform(0.1, 1.0), rng.uniform(2.0, 4.0))))


async def stall_gateway(scene: Scene, rng: random.Random) -> None:
    """So long that it must close every connection when it wakes up; one idle terminal watches that."""
    pack = msgspec.msgpack.encode
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(scene.gateway.url + "/v1/stream", protocols=[SUBPROTOCOL], compress=0) as ws,
    ):
        await ws.send_bytes(pack(Hello(scene.witness_number, "witness")))
        challenge = msgspec.msgpack.decode((await ws.receive()).data, type=Challenge)
        await ws.send_bytes(pack(Proof(scene.witness.sign(HELLO_CONTEXT + challenge.nonce))))
        await ws.receive()  # the welcome
        await _paused(scene.gateway, rng.uniform(*STALL_S))
        try:
            async with asyncio.timeout(NOTICE_S):
                while (await ws.receive()).type is aiohttp.WSMsgType.BINARY:
                    pass
        except TimeoutError:
            scene.broken.append(("stall_gateway", "a gateway that stood still over 5 s kept its connections"))


# --- disks ---


async def slow_disk(scene: Scene, rng: random.Random) -> None:
    """Weather: up to 50 ms more for each fsync, of the log, of the AOF, or both."""
    for server in rng.choice(([scene.gateway], [scene.valkey], [scene.gateway, scene.valkey])):
        server.disk.slow(rng.choice((0, 5, 20, 50)))
    await asyncio.sleep(rng.uniform(0.2, 0.8))


async def _fails(scene: Scene, name: str, rng: random.Random) -> None:
    """The gateway must end by itself, at once; then perhaps the power goes as well."""
    disk = scene.gateway.disk
    try:
        code = await scene.gateway.ended(NOTICE_S + 3.0)
        if code != 1:
            scene.broken.append((name, f"the gateway ended with {code}"))
    except Failed as error:
        if name != "full_gateway" or not await _answers_still(scene):
            scene.broken.append((name, str(error)))
        scene.gateway.kill()
    disk.fail_sync(0)
    disk.full(False)
    if rng.random() < 0.5:
        disk.lose_power(rng)
    await scene.start_both()


async def _answers_still(scene: Scene) -> bool:
    """A full disk does not end a gateway whose log finds room in the WAL it has: what it writes there is checked."""
    before = scene.fleet.counts.answers
    await asyncio.sleep(1.0)
    return scene.fleet.counts.answers > before


async def eio_gateway(scene: Scene, rng: random.Random) -> None:
    scene.gateway.must_live = False
    scene.gateway.disk.fail_sync(rng.randint(1, 30))
    await _fails(scene, "eio_gateway", rng)


async def full_gateway(scene: Scene, rng: random.Random) -> None:
    scene.gateway.must_live = False
    scene.gateway.disk.full(True)
    await _fails(scene, "full_gateway", rng)


async def fill_disk(scene: Scene, rng: random.Random) -> None:
    """For real; only where the gateway's data lie on a small disk of their own."""
    scene.gateway.must_live = False
    ballast = scene.gateway.home / "ballast"
    with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))
    code = await scene.gateway.ended(NOTICE_S)
    if code != 1:
        scene.broken.append(("fill_disk", f"the gateway ended with {code}"))
    ballast.unlink()
    await scene.start_both()


async def eio_valkey(scene: Scene, rng: random.Random) -> None:
    """It refuses every write from then on, for ever: only an operator who starts it again can end that."""
    scene.valkey.disk.fail_sync(1)
    await asyncio.sleep(rng.uniform(0.5, 1.5))
    scene.valkey.disk.fail_sync(0)
    await _killed(scene, rng, [scene.valkey], power=rng.random() < 0.5)


async def full_valkey(scene: Scene, rng: random.Random) -> None:
    scene.valkey.disk.full(True)
    await asyncio.sleep(rng.uniform(0.2, 1.5))
    scene.valkey.disk.full(False)


# --- Valkey's memory ---


async def flush_valkey(scene: Scene, rng: random.Random) -> None:
    client = scene.valkey.client()
    with contextlib.suppress(RedisError, OSError):  # it may still be at odds with its disk
        await client.flushall()
    await client.aclose()
    await asyncio.sleep(rng.uniform(0.0, 0.3))


async def old_valkey(scene: Scene, rng: random.Random) -> None:
    """It comes back with an earlier state: from the last copy of its files, and this state is the next copy."""
    scene.valkey.kill()
    copy_files(scene.valkey.files, scene.older_files.with_suffix(".next"))
    if scene.older_files.exists():
        copy_files(scene.older_files, scene.valkey.files)
        scene.valkey.disk.forget()
    copy_files(scene.older_files.with_suffix(".next"), scene.older_files)
    await scene.start_both()


# --- the network ---


async def cut_network(scene: Scene, rng: random.Random) -> None:
    for _ in range(rng.randint(1, 4)):
        scene.proxy.cut()
        await asyncio.sleep(rng.uniform(0.0, 0.3))


async def black_hole(scene: Scene, rng: random.Random) -> None:
    scene.proxy.eats_up, scene.proxy.eats_down = rng.choice(((True, False), (False, True), (True, True)))
    await asyncio.sleep(rng.uniform(0.1, 1.5))
    scene.proxy.eats_up = scene.proxy.eats_down = False


async def slow_network(scene: Scene, rng: random.Random) -> None:
    """Weather."""
    scene.proxy.delay_s = rng.choice((0.0, 0.01, 0.05, 0.2))
    await asyncio.sleep(rng.uniform(0.2, 0.8))


async def repeated_messages(scene: Scene, rng: random.Random) -> None:
    scene.proxy.repeats = True
    await asyncio.sleep(rng.uniform(0.3, 1.0))
    scene.proxy.repeats = False


async def second_connections(scene: Scene, rng: random.Random) -> None:
    for _ in range(rng.randint(1, 3)):
        scene.fleet.connect_again()
        await asyncio.sleep(rng.uniform(0.1, 0.3))


# --- clocks ---


async def step_clock(scene: Scene, rng: random.Random) -> None:
    """Weather: one server's wall clock jumps by up to two hours, either way, or comes right again."""
    server = rng.choice((scene.gateway, scene.valkey))
    server.disk.step_clock(rng.choice((0, rng.randint(-CLOCK_MS, CLOCK_MS))))
    await asyncio.sleep(rng.uniform(0.1, 0.4))


WEIGHTS: dict[Fault, int] = {
    kill_gateway: 10,
    kill_valkey: 10,
    kill_both: 6,
    power_gateway: 10,
    power_valkey: 8,
    power_both: 10,
    pause_gateway: 4,
    pause_valkey: 5,
    stall_gateway: 1,
    slow_disk: 12,
    eio_gateway: 4,
    full_gateway: 3,
    eio_valkey: 3,
    full_valkey: 3,
    flush_valkey: 5,
    old_valkey: 5,
    cut_network: 8,
    black_hole: 6,
    slow_network: 6,
    repeated_messages: 5,
    second_connections: 5,
    step_clock: 6,
}
BY_NAME = {fault.__name__: fault for fault in (*WEIGHTS, fill_disk)}


@dataclass(frozen=True)
class Planned:
    """One fault of a schedule; `seed` decides its details."""

    name: str
    seed: str


def schedule(seed: int, count: int, only: Sequence[str] = ()) -> list[Planned]:
    """The faults of a run: every kind once before any kind twice more often than its weight says."""
    rng = random.Random(seed)
    names = list(only) or [fault.__name__ for fault in WEIGHTS]
    kinds = names[:]
    rng.shuffle(kinds)
    if count > len(kinds):
        weights = [WEIGHTS.get(BY_NAME[name], 1) for name in names]
        kinds += rng.choices(names, weights, k=count - len(kinds))
        rng.shuffle(kinds)
    return [Planned(name, f"{seed}-{number}") for number, name in enumerate(kinds[:count])]


async def strike(scene: Scene, planned: Planned) -> float:
    """Carry one fault out; how many seconds it took. Raises Failed when a server does not come back."""
    began_s = time.monotonic()
    await BY_NAME[planned.name](scene, random.Random(planned.seed))
    return time.monotonic() - began_s
