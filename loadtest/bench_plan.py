"""What the bench asks of a generator process and gets back: one msgpack value each way, over its stdin and stdout."""

import msgspec

HTTP, STREAM = "http", "stream"


class Till(msgspec.Struct, frozen=True):
    """An enrolled terminal: its number and the 32-byte seed of its Ed25519 key."""

    number: int
    seed: bytes


class Shape(msgspec.Struct, frozen=True):
    """One kind of load. It is closed: a connection sends its next message when an answer has come. With a `rate` it is
    open: messages are sent when they are due, whoever waits, and latency counts from that moment."""

    door: str  # HTTP or STREAM
    connections: int
    window: int = 1  # messages under way on each connection
    scans: int = 1  # in a message
    repeats: float = 0.0  # share of scans that are retries: same id, same body
    used: float = 0.0  # share of scans whose voucher another id has redeemed
    rate: float = 0.0  # messages a second, of all connections together; 0: closed


class Target(msgspec.Struct, frozen=True):
    """A server to load, and the processes whose CPU it costs, by name."""

    name: str
    host: str
    port: int
    pids: dict[str, int]
    endless: bool = False  # it remembers nothing: when all messages are sent they are sent again


class Plan(msgspec.Struct, frozen=True):
    """One row: the same load on each target, in turns."""

    shape: Shape
    targets: list[Target]
    tills: list[Till]
    token: str  # bearer, for HTTP
    codes: list[str]  # of unused vouchers; a row that has none left ends early
    seconds: float  # measured on each target, all turns together
    turns: int
    warm_seconds: float  # of load before each measured window
    seed: int


class Load(msgspec.Struct, frozen=True):
    """What one target did. The first part counts measured windows only, the second one every answer."""

    target: str
    seconds: float
    messages: int
    scans: int
    p50_ms: float  # from sending a message (or when it was due) to its answer
    p99_ms: float
    p999_ms: float
    lag_p99_ms: float  # how late the generator itself sent what was due; 0 of a closed load
    batches: int  # claim calls that carried these scans, by their seq in the log; 0: the answers name none
    cpu_seconds: dict[str, float]  # by process, "generator" among them
    trailing_seconds: dict[str, float]  # CPU the target spent after its last answers, until it was quiet
    elsewhere_seconds: float  # CPU of every other process of this machine: what disturbed us

    answered: int
    accepted: int
    accepted_expected: int
    unresolved: int
    wrong: int  # neither unresolved nor the verdict that was expected
    distinct: int  # vouchers among the answered scans
