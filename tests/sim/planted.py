"""Bugs planted in the shipped code, loaded afresh with a change in its text: the simulator must find each one."""

import importlib
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

import msgspec

AFRESH = ("gateway", "eventstore", "sim")
NOT_AFRESH = ("sim.planted", "sim.run")
BUGS_FILE = Path(__file__).with_name("planted.diff")


class Change(msgspec.Struct):
    """In the text of `module`, the lines `old` become the lines `new`."""

    module: str
    old: str = ""
    new: str = ""


class Bug(msgspec.Struct):
    """`focus`: what the seeds of its hunt look for above all (see sim.world); None: what they look for anyway."""

    name: str
    focus: str | None = None
    changes: list[Change] = []


class Hunt(msgspec.Struct, frozen=True):
    """What became of a search: the first seed that shows the bug, or None; CPU seconds until then."""

    bug: str
    seed: int | None
    seconds: float
    violation: str


def bugs() -> list[Bug]:
    """Those of planted.diff, in its order."""
    found: list[Bug] = []
    for line in BUGS_FILE.read_text().splitlines(keepends=True):
        mark, text = line[:1], line[1:]
        if line.startswith("== "):
            found.append(Bug(line[3:].strip()))
        elif line.startswith("focus: "):
            found[-1].focus = line[7:].strip()
        elif line.startswith("@@ "):
            found[-1].changes.append(Change(line[3:].strip()))
        elif found and found[-1].changes and mark in "-+ ":
            change = found[-1].changes[-1]
            change.old += text if mark in "- " else ""
            change.new += text if mark in "+ " else ""
    return found


class _Patched(SourceFileLoader):
    def __init__(self, name: str, path: str, changes: Sequence[Change]) -> None:
        super().__init__(name, path)
        self._changes = changes

    def get_code(self, fullname: str) -> CodeType:
        source = self.get_source(fullname)
        assert source is not None
        for change in self._changes:
            times = source.count(change.old)
            assert times == 1, f"{fullname} has this {times} times, so the bug must follow the code: {change.old!r}"
            source = source.replace(change.old, change.new)
        return compile(source, self.path, "exec")


class _Finder(MetaPathFinder):
    def __init__(self, changes: Sequence[Change]) -> None:
        self._changes = changes

    def find_spec(self, fullname: str, path: Any, target: ModuleType | None = None) -> ModuleSpec | None:
        mine = [change for change in self._changes if change.module == fullname]
        spec = PathFinder.find_spec(fullname, path) if mine else None
        if spec is not None:
            assert spec.origin is not None
            spec.loader = _Patched(fullname, spec.origin, mine)
        return spec


def _is_afresh(name: str) -> bool:
    return name not in NOT_AFRESH and any(name == top or name.startswith(f"{top}.") for top in AFRESH)


@contextmanager
def world_with(bug: Bug) -> Iterator[Any]:
    """The module sim.world, and all it imports of ours, loaded with the bug inside."""
    before = {name: module for name, module in sys.modules.items() if _is_afresh(name)}
    finder = _Finder(bug.changes)
    sys.meta_path.insert(0, finder)
    for name in before:
        del sys.modules[name]
    try:
        yield importlib.import_module("sim.world")
    finally:
        sys.meta_path.remove(finder)
        for name in [name for name in sys.modules if _is_afresh(name)]:
            del sys.modules[name]
        sys.modules.update(before)


def hunt(bug: Bug, *, seeds: Sequence[int], events: int, seconds: float) -> Hunt:
    """Run seeds until one shows the bug or the CPU time is spent; the shipped code must pass that seed."""
    found = _first(bug, seeds, events, seconds)
    if found.seed is not None:
        shipped = importlib.import_module("sim.world").run_seed(found.seed, events, focus=bug.focus)
        assert not shipped.violations, f"seed {found.seed} fails without the bug too: {shipped.violations[0]}"
    return found


def _first(bug: Bug, seeds: Sequence[int], events: int, seconds: float) -> Hunt:
    with world_with(bug) as world:
        began = time.process_time()
        for seed in seeds:
            outcome = world.run_chunk([seed], events, bug.focus)[0]
            spent = time.process_time() - began
            if outcome.violations:
                return Hunt(bug.name, seed, spent, outcome.violations[0])
            if spent > seconds:
                break
    return Hunt(bug.name, None, time.process_time() - began, "")
