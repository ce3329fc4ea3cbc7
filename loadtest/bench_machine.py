"""What a figure depends on beside the code: the machine, the versions, and how long its disk takes to be sure."""

import os
import platform
import sqlite3
import subprocess
import time
from hashlib import blake2b
from importlib.metadata import version
from pathlib import Path

import psutil

from loadtest.bench_report import Beside, percentile

LIBRARIES = ("aiohttp", "msgspec", "uvloop", "redis", "hiredis")
FSYNC_BYTES = 8192  # about a batch of 64 records with its frame in the write-ahead log
FSYNCS = 400
FSYNC_SECONDS_MAX = 0.5  # on a slow disk a few dozen must do
WORK_STEPS, WORK_ROUNDS = 20_000, 5  # about 20 ms each


def beside(directory: Path) -> Beside:
    """How this machine's disk and cores do now."""
    ordered = sorted(_fsyncs(directory))
    return Beside(percentile(ordered, 0.50) * 1e3, percentile(ordered, 0.99) * 1e3, len(ordered), _work() * 1e3)


def _work() -> float:
    """CPU seconds of a fixed piece of work like a gateway's: steps, small objects, hashes. The best of a few."""
    spent = []
    for _ in range(WORK_ROUNDS):
        started_s = time.process_time()
        for number in range(WORK_STEPS):
            blake2b(b"%d" % number).digest()
        spent.append(time.process_time() - started_s)
    return min(spent)


def _fsyncs(directory: Path) -> list[float]:
    """Append a little and make it durable, as a log does, again and again: seconds each."""
    sync = getattr(os, "fdatasync", os.fsync)  # macOS has no fdatasync
    path, block = directory / "fsync.probe", os.urandom(FSYNC_BYTES)
    seconds: list[float] = []
    probe = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)
    try:
        until_s = time.perf_counter() + FSYNC_SECONDS_MAX
        while len(seconds) < FSYNCS and time.perf_counter() < until_s:
            os.write(probe, block)
            started_s = time.perf_counter()
            sync(probe)
            seconds.append(time.perf_counter() - started_s)
    finally:
        os.close(probe)
        path.unlink()
    return seconds


def environment_of(directory: Path, valkey_pid: int) -> dict[str, str]:
    """Machine and versions, in words."""
    memory_gib = psutil.virtual_memory().total / 2**30
    found = {
        "machine": f"{cpu_model()}, {os.cpu_count()} cores, {memory_gib:.0f} GiB",
        "kernel": f"{platform.system()} {platform.release()}",
        "disk": _file_system(directory),
        "python": f"{platform.python_implementation()} {platform.python_version()}, SQLite {sqlite3.sqlite_version}",
        "libraries": ", ".join(f"{name} {version(name)}" for name in LIBRARIES),
        "valkey": said([psutil.Process(valkey_pid).exe(), "--version"]).partition(" sha=")[0],
    }
    if changeset := commit():
        found["commit"] = changeset
    return found


def cpu_model() -> str:
    """What the processor calls itself."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except FileNotFoundError:
        return platform.processor() or platform.machine()
    models = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(models, platform.machine())


def _file_system(directory: Path) -> str:
    holders = [disk for disk in psutil.disk_partitions(all=True) if directory.is_relative_to(disk.mountpoint)]
    holder = max(holders, key=lambda disk: len(disk.mountpoint), default=None)
    return f"{holder.fstype} at {holder.mountpoint}" if holder else "unknown"


def commit() -> str:
    """Of the checkout this file lies in; empty if it lies in none."""
    root = Path(__file__).resolve().parent.parent
    if not (root / ".git").exists():
        return ""
    changed = said(["git", "-C", str(root), "status", "--porcelain", "--untracked-files=no"])
    return said(["git", "-C", str(root), "rev-parse", "--short", "HEAD"]) + (" and changes" if changed else "")


def said(command: list[str]) -> str:
    """What a command prints; empty if it cannot be run."""
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""
