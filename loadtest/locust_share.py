"""What master and workers of a Locust run say to each other, as bytes inside Locust's own messages."""

from typing import Literal

import msgspec

from loadtest.generator_plan import Codes, Plan
from loadtest.recorder import Part
from loadtest.run_files import Sample

SHARE, START, END = "tillgate-share", "tillgate-start", "tillgate-end"  # master to worker
READY, REST = "tillgate-ready", "tillgate-rest"  # worker to master
REPORTED = "tillgate"  # the key of a Report in what Locust's workers report every three seconds

Model = Literal["open", "closed"]


class Share(msgspec.Struct, frozen=True):
    """Master to worker: one worker's part of a run."""

    plan: Plan
    codes: Codes
    url: str
    model: Model = "open"
    pause_s: float = 0.0  # a closed user's, after an answer


class Start(msgspec.Struct, frozen=True):
    """Master to worker: when the run begins."""

    starts_ms: int  # UTC; the first intended start


class Ready(msgspec.Struct, frozen=True):
    """Worker to master: its tills are connected, or why they cannot be."""

    generator: int
    fault: str


class Report(msgspec.Struct, frozen=True):
    """Worker to master: what is new since the last one."""

    generator: int
    parts: list[Part]
    journal: bytes  # whole or cut lines; one after the other they are the journal
    samples: list[Sample]
    is_whole: bool = False  # of the last one: nothing of the schedule was left out
