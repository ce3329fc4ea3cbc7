"""A private Valkey Cluster for tests: three primaries with a replica each; slots are moved and nodes killed at will."""

import contextlib
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis
from private_valkey import server_program

from gateway.slots import SLOTS, Address, Range, ranges_of, slot_of
from gateway.valkey_server import EmbeddedError

PRIMARIES, NODES = 3, 6
START_S = 30.0  # it takes two seconds; a replica asks for its first copy once a second
NODE_TIMEOUT_MS = 1000  # a primary that is silent for so long is taken for dead; less, and a busy machine kills one
MOVED_AT_ONCE = 10  # keys by one MIGRATE
KEYS_MAX = 100_000  # in a slot
HOST = "127.0.0.1"


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind((HOST, 0))
        return [each.getsockname()[1] for each in sockets]


def until(condition: Callable[[], object], seconds: float = START_S) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the cluster did not come to that in time"
        time.sleep(0.02)


class Node:
    """One server, which may be dead."""

    def __init__(self, program: Path, home: Path, port: int, bus: int) -> None:
        self.port, self.bus, self._program, self._home = port, bus, program, home
        home.mkdir()
        self.client = redis.Redis(host=HOST, port=port)
        self.process = self._spawn()

    def _spawn(self) -> subprocess.Popen[bytes]:
        ports = ("--bind", HOST, "--port", str(self.port), "--cluster-port", str(self.bus))
        cluster = ("--cluster-enabled", "yes", "--cluster-node-timeout", str(NODE_TIMEOUT_MS))
        chances = ("--cluster-replica-validity-factor", "0", "--cluster-require-full-coverage", "no")
        copies = ("--repl-diskless-sync-delay", "0")
        files = ("--dir", self._home, "--logfile", self._home / "log", "--save", "", "--appendonly", "no")
        policy = ("--maxmemory-policy", "noeviction")
        return subprocess.Popen([self._program, *ports, *cluster, *chances, *copies, *files, *policy])

    @property
    def address(self) -> Address:
        return Address(HOST, self.port)

    @property
    def id(self) -> str:
        return self.command("CLUSTER", "MYID").decode()

    @property
    def is_dead(self) -> bool:
        return self.process.poll() is not None

    def command(self, *args: object) -> "redis.typing.ResponseT":
        """The reply as it is: redis-py would make other things of some."""
        connection = redis.Connection(host=HOST, port=self.port, protocol=2)
        try:
            connection.send_command(*args)
            return connection.read_response(disable_decoding=True)
        finally:
            connection.disconnect()

    def answers(self) -> bool:
        assert not self.is_dead, (self._home / "log").read_text()
        try:
            return bool(self.client.ping())
        except redis.ConnectionError:
            return False

    def facts(self, section: str) -> dict[str, str]:
        told = self.command("CLUSTER", "INFO") if section == "cluster" else self.command("INFO", section)
        return dict(line.split(":", 1) for line in told.decode().splitlines() if ":" in line)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def start(self) -> None:
        self.process = self._spawn()
        until(self.answers)


class PrivateCluster:
    """Six nodes that are one cluster."""

    def __init__(self, program: Path, home: Path) -> None:
        ports = _free_ports(2 * NODES)
        self.nodes = [Node(program, home / str(n), ports[n], ports[NODES + n]) for n in range(NODES)]

    @property
    def url(self) -> str:
        return f"redis+cluster://{','.join(str(node.address) for node in self.nodes[:2])}/"

    def join(self) -> None:
        """Make them one: primaries 0 to 2 with a third of the slots each, and n + 3 a replica of n."""
        until(lambda: all(node.answers() for node in self.nodes))
        for number, node in enumerate(self.nodes):
            node.command("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
            if number < PRIMARIES:
                ends = (SLOTS * number // PRIMARIES, SLOTS * (number + 1) // PRIMARIES - 1)
                node.command("CLUSTER", "ADDSLOTSRANGE", *ends)
            if number:
                node.command("CLUSTER", "MEET", HOST, self.nodes[0].port, self.nodes[0].bus)
        until(lambda: all(node.facts("cluster")["cluster_known_nodes"] == str(NODES) for node in self.nodes))
        for number, node in enumerate(self.nodes[PRIMARIES:]):
            primary = self.nodes[number].id
            until(lambda node=node, primary=primary: primary.encode() in node.command("CLUSTER", "NODES"))
            node.command("CLUSTER", "REPLICATE", primary)
        until(self.is_whole)

    def is_whole(self) -> bool:
        """Every node that lives says so, and each primary has a replica that follows it."""
        alive = [node for node in self.nodes if not node.is_dead]
        if any(node.facts("cluster")["cluster_state"] != "ok" for node in alive):
            return False
        linked = [node.facts("replication").get("master_link_status") for node in alive]
        if linked.count("up") != len(alive) - PRIMARIES:
            return False
        views = {tuple((each.first, each.last, each.primary) for each in self.ranges(node)) for node in alive}
        return len(views) == 1  # of replicas, CLUSTER SLOTS leaves out those that have never been sent a write

    def ranges(self, node: Node | None = None) -> list[Range]:
        """As a node that lives tells it."""
        node = node or next(node for node in self.nodes if not node.is_dead)
        return sorted(ranges_of(node.command("CLUSTER", "SLOTS"), node.address), key=lambda each: each.first)

    def owner(self, partition: int, told_by: Node | None = None) -> Node:
        slot = slot_of(partition)
        home = next(each.primary for each in self.ranges(told_by) if each.first <= slot <= each.last)
        return next(node for node in self.nodes if node.address == home)

    def primaries(self) -> list[Node]:
        homes = {each.primary for each in self.ranges()}
        return [node for node in self.nodes if node.address in homes]

    def begin_move(self, partition: int, target: Node) -> Node:
        """Declare a partition's slot to be on its way; returns where it comes from."""
        source, slot = self.owner(partition), slot_of(partition)
        target.command("CLUSTER", "SETSLOT", slot, "IMPORTING", source.id)
        source.command("CLUSTER", "SETSLOT", slot, "MIGRATING", target.id)
        return source

    def carry(self, partition: int, source: Node, target: Node, naming: bytes = b"") -> None:
        """Move its keys, or those that have `naming` in their names."""
        while keys := [
            key for key in source.command("CLUSTER", "GETKEYSINSLOT", slot_of(partition), KEYS_MAX) if naming in key
        ]:
            source.command("MIGRATE", HOST, target.port, "", 0, 5000, "KEYS", *keys[:MOVED_AT_ONCE])

    def end_move(self, partition: int, source: Node, target: Node) -> None:
        """Give the slot to `target`, told to it first, so that nobody else is asked in between."""
        for node in (target, source, *self.primaries()):
            node.command("CLUSTER", "SETSLOT", slot_of(partition), "NODE", target.id)
        until(lambda: all(self.owner(partition, node) is target for node in self.nodes if not node.is_dead))

    def break_off(self, partition: int, source: Node, target: Node) -> None:
        """Leave the slot where it is, and the keys where they are."""
        for node in (source, target):
            node.command("CLUSTER", "SETSLOT", slot_of(partition), "STABLE")

    def close(self) -> None:
        for node in self.nodes:
            node.client.close()
            node.kill()


@contextlib.contextmanager
def private_cluster() -> Iterator[PrivateCluster]:
    """A cluster that works. Skips where there is no server to start."""
    try:
        program = server_program()
    except EmbeddedError as error:
        pytest.skip(f"no Valkey to make a cluster of: {error}")
    home = Path(tempfile.mkdtemp(prefix="tillgate-"))
    try:
        cluster = PrivateCluster(program, home)
        try:
            cluster.join()
            yield cluster
        finally:
            cluster.close()
    finally:
        shutil.rmtree(home)
