"""What the run and its generator processes tell each other: msgpack values, each behind its length, over two pipes.

The run sends a Plan, then Codes as they are needed, Go, and for a search one Step after another; in the end Stop. A
generator says Ready when its tills are connected, a Beat once a second, StepDone after each step and Done at the end;
or Broken, and ends.
"""

import os
from typing import Any

import msgspec

from loadtest.arrivals import Piece
from loadtest.bench_plan import Till
from loadtest.recorder import Part

LENGTH_BYTES = 4


class BadCode(msgspec.Struct, frozen=True):
    """A code that must be refused, and the voucher it names, if any."""

    code: str
    voucher: str | None
    guess: bool = False  # nobody's code: a till that asks for many of these is locked


class Plan(msgspec.Struct, frozen=True, tag="plan"):
    """One process's part."""

    scenario: dict[str, Any]
    directory: str  # of the run: the journal goes there
    generator: int
    generators: int
    host: str
    port: int
    token: str  # an integrator's
    tills: list[Till]  # its own ones
    streams: int  # the first so many hold a stream open, the others ask over HTTP
    cut_off: list[int]  # indexes in `tills`: stores that the outage strikes
    campaign: int
    bad: list[BadCode]


class Codes(msgspec.Struct, frozen=True, tag="codes"):
    """Vouchers of the main campaign to be redeemed, in order: the n-th has serial first_serial + n * step."""

    first_serial: int
    step: int
    codes: list[str]
    last: bool = True  # no more will come


class Go(msgspec.Struct, frozen=True, tag="go"):
    """Time 0 of the run, on this machine's monotonic clock."""

    zero_ns: int


class Step(msgspec.Struct, frozen=True, tag="step"):
    """One step of a search: these arrivals, and then wait for their answers."""

    pieces: list[Piece]
    count: int
    seed: int


class Stop(msgspec.Struct, frozen=True, tag="stop"):
    """No further arrival: wait for the answers that are due, and end."""


class Ready(msgspec.Struct, frozen=True, tag="ready"):
    """All tills are connected, `seconds` after the first began to."""

    seconds: float


class Beat(msgspec.Struct, frozen=True, tag="beat"):
    """How far it is."""

    started: int
    completed: int
    under_way: int
    codes_left: int
    parts: list[Part]


class StepDone(msgspec.Struct, frozen=True, tag="step_done"):
    parts: list[Part]


class Done(msgspec.Struct, frozen=True, tag="done"):
    """Everything was answered or given up, `seconds` after time 0."""

    seconds: float
    parts: list[Part]
    out_of_codes: int  # arrivals that had to scan a used voucher because no other was left
    reconnects: int


class Broken(msgspec.Struct, frozen=True, tag="broken"):
    """It cannot go on."""

    why: str


ToGenerator = Plan | Codes | Go | Step | Stop
FromGenerator = Ready | Beat | StepDone | Done | Broken
to_generator: msgspec.msgpack.Decoder[ToGenerator] = msgspec.msgpack.Decoder(ToGenerator)
from_generator: msgspec.msgpack.Decoder[FromGenerator] = msgspec.msgpack.Decoder(FromGenerator)
_encode = msgspec.msgpack.Encoder().encode


def framed(message: ToGenerator | FromGenerator) -> bytes:
    """As it goes through the pipe."""
    content = _encode(message)
    return len(content).to_bytes(LENGTH_BYTES, "big") + content


def take_message(source: int) -> ToGenerator:
    """The next message from a file descriptor, and not a byte of the one behind it. Blocks. Raises EOFError."""
    return to_generator.decode(_exactly(source, int.from_bytes(_exactly(source, LENGTH_BYTES), "big")))


def _exactly(source: int, size: int) -> bytes:
    content = bytearray()
    while len(content) < size:
        part = os.read(source, size - len(content))
        if not part:
            raise EOFError
        content += part
    return bytes(content)
