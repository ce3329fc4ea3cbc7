"""What can be wrong with a deployment: every check says what it found and how to mend it, and changes nothing."""

import ctypes
import os
import resource
import shutil
import socket
import sqlite3
import stat
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from importlib.metadata import version
from pathlib import Path

import msgspec

from eventstore.events import decode_control, payload_head
from eventstore.log import CONTROL, Batch, LogDamaged, LogFailed, LogLost, LogReader, LogUnfit, LogUnreadable
from eventstore.snapshot import Manifest, Why
from gateway.config import Loaded
from gateway.directory import Directory
from gateway.keyfile import KEY_FILE, KeyFault, KeyFile, read_secret
from gateway.settings import Config
from gateway.snapshots import TAIL_RECORDS_MIN, Snapshots, tail_of
from gateway.storage import open_log_reader

SYNCS = 60  # a fifth of a second on a disk of 3 ms; enough for a p50, and a p99 that is the worst but one
SYNC_BYTES = 4096  # a small batch
SLOW_SYNC_MS = 20.0  # above it a till waits longer for the disk than for everything else together
NO_DISK_MS = 0.005  # no device confirms a write within 5 us: this is memory
TAIL_BATCHES = 1000  # of each partition; `tillgate log verify` reads all
FREE_BYTES_LOW, FREE_BYTES_NONE = 2 << 30, 200 << 20  # a busy day of log; what a restart of Valkey needs
FILES_MIN = 4096  # one for each connected till, and some
AHEAD_MS_MAX = 1000  # a log entry later than now by more: the clock was set back
TIME_ERROR = 5  # adjtimex(2): the clock is not synchronised
TIMEX_BYTES = 512  # struct timex has 208 bytes on Linux; all zero asks and sets nothing


class Finding(msgspec.Struct, frozen=True):
    """One line of the report."""

    check: str
    state: str  # ok | warn | fail
    text: str
    fix: str = ""


def ok(check: str, text: str) -> Finding:
    return Finding(check, "ok", text)


def configuration(loaded: Loaded) -> Finding:
    """Every value that is not the default, and where it came from."""
    values = msgspec.to_builtins(loaded.config)
    parts = []
    for key, origin in loaded.origins.items():
        at = values
        for name in key.split("."):
            at = at[name]
        if origin != "default":
            parts.append(f"{key} = {at} ({origin})")
    return ok("configuration", "; ".join(parts) or "all defaults")


# --- files ----------------------------------------------------------------------------------------------------------


def permissions(directory: Path) -> Iterator[Finding]:
    """Data directory and secrets belong to us and to nobody else."""
    for path, mode in ((directory, 0o700), (directory / "secrets", 0o700)):
        if not path.is_dir():
            yield Finding("permissions", "fail", f"there is no {path}", "restore it from its backup, or tillgate init")
            continue
        found = path.stat()
        if stat.S_IMODE(found.st_mode) & 0o077:
            yield Finding("permissions", "fail", f"{path} is open to others", f"chmod {mode:o} {path}")
        elif found.st_uid != os.geteuid():
            text = f"{path} belongs to user {found.st_uid}, this is user {os.geteuid()}"
            yield Finding("permissions", "warn", text, "run tillgate as the user that owns it")
        else:
            yield ok("permissions", f"{path} is private")


def secrets(directory: Path, live_keys: set[int]) -> Iterator[Finding]:
    """The admin token and the key file, against the keys the log knows."""
    try:
        read_secret(directory / "secrets" / "admin.token")
        yield ok("admin token", "private")
    except KeyFault as error:
        yield Finding("admin token", "warn", str(error), "use --token-file, or make one: tillgate token create admin")
    try:
        keys = KeyFile(directory).load()
    except KeyFault as error:
        yield Finding("key file", "fail", str(error), "restore it from the copy `tillgate key backup` made")
        return
    lost = live_keys - keys.keys.keys()
    if lost:
        text = f"the log knows live keys that are not in {KEY_FILE}: {', '.join(map(str, sorted(lost)))}"
        yield Finding("key file", "fail", text, "restore it from the copy `tillgate key backup` made")
    else:
        yield ok("key file", f"keys {', '.join(map(str, sorted(keys.keys)))}; {keys.active} signs new codes")


def free_space(directory: Path) -> Finding:
    """Room for the log."""
    usage = shutil.disk_usage(directory)
    text = f"{usage.free / 2**30:.1f} GiB free of {usage.total / 2**30:.1f}"
    if usage.free < FREE_BYTES_LOW:
        state = "fail" if usage.free < FREE_BYTES_NONE else "warn"
        return Finding("disk space", state, text, "make room: a full disk ends the gateway")
    return ok("disk space", text)


def disk_sync(directory: Path) -> Finding:
    """How long the disk takes to confirm a small write: nobody is told yes before that."""
    taken_ms = []
    with tempfile.TemporaryFile(dir=directory) as file:
        for _ in range(SYNCS):
            file.write(b"\0" * SYNC_BYTES)
            file.flush()
            began_ns = time.perf_counter_ns()
            os.fdatasync(file.fileno())
            taken_ms.append((time.perf_counter_ns() - began_ns) / 1e6)
    taken_ms.sort()
    p50, p99 = taken_ms[SYNCS // 2], taken_ms[-2]
    text = f"fdatasync p50 {p50:.3f} ms, p99 {p99:.3f} ms"
    if p50 < NO_DISK_MS:
        return Finding("disk sync", "warn", f"{text}: this is memory, not a disk", "put the data directory on a disk")
    if p99 > SLOW_SYNC_MS:
        return Finding("disk sync", "warn", f"{text}: tills will wait for it", "use a disk with power-loss protection")
    return ok("disk sync", text)


# --- the log --------------------------------------------------------------------------------------------------------


class Looked(msgspec.Struct, frozen=True):
    """What the log told: findings, the directory as of its end (None if unreadable), and its newest time."""

    findings: list[Finding]
    directory: Directory | None = None
    newest_ms: int = 0
    partitions: int = 0


async def log_tail(config: Config) -> Looked:
    """The log opens, its control partition folds, and the newest batches of the others are intact."""
    fix = "tillgate log verify; restore the log from its backup"
    try:
        reader = await open_log_reader(config)
    except FileNotFoundError as error:
        return Looked([Finding("log", "fail", str(error), "tillgate init, or restore the backup")])
    except LogUnreadable as error:
        return Looked([Finding("log", "fail", str(error), fix)])
    except (LogUnfit, KeyFault) as error:
        return Looked([Finding("log", "fail", str(error), "mend the setting")])
    except LogLost as error:
        return Looked([Finding("log", "fail", str(error), "start the server, or mend log.url")])
    try:
        return await _read_tail(reader)
    except (LogDamaged, LogFailed, LogLost) as error:
        return Looked([Finding("log", "fail", str(error), fix)])
    finally:
        await reader.close()


async def _read_tail(reader: LogReader) -> Looked:
    directory, newest_ms, heads = Directory(), 0, []
    async for batch in _batches(reader, CONTROL, 1):
        newest_ms = payload_head(batch.payload)[2]
        directory.apply(decode_control(batch.payload), batch.seq, newest_ms)
    for partition in range(reader.partitions):
        head = await reader.head(partition)
        async for batch in _batches(reader, partition, max(1, head.seq - TAIL_BATCHES)):
            newest_ms = max(newest_ms, payload_head(batch.payload)[2])
        heads.append(head.seq)
    text = f"{directory.control_seq} control batches; {len(heads)} partition(s) at {', '.join(map(str, heads))}; intact"
    return Looked([ok("log", text)], directory, newest_ms, reader.partitions)


async def _batches(reader: LogReader, partition: int, seq: int) -> AsyncIterator[Batch]:
    while batches := await reader.read(partition, seq, TAIL_BATCHES):
        for batch in batches:
            yield batch
        seq = batches[-1].seq + 1


async def snapshot(config: Config, now_ms: int) -> Finding:
    """Whether a start could use the newest snapshot, how old it is, and how much of the log lies behind it."""
    snapshots = Snapshots(config, lambda text: None)
    try:
        reader = await open_log_reader(config)
        try:
            found = await snapshots.usable(reader)
            batches, records = await tail_of(reader, found if isinstance(found, Manifest) else None)
        finally:
            await reader.close()
    except (FileNotFoundError, LogUnreadable, LogDamaged, LogFailed, LogLost, KeyFault):
        return ok("snapshot", "not looked at: see log")
    tail = f"{batches:,} batches, about {records:,} records"
    if isinstance(found, Manifest):
        return ok("snapshot", f"proven, {(now_ms - found.at_ms) // 60_000} min old; behind it {tail}")
    if found.why is not Why.MISSING:
        fix = f"delete {snapshots.directory}: it is made of the log, and the gateway makes another when it is due"
        return Finding("snapshot", "warn", f"a start reads the whole log ({tail}): {found.why}: {found.text}", fix)
    if records > 2 * TAIL_RECORDS_MIN:
        fix = "start a gateway: it makes one within minutes; if it says that it cannot, mend that"
        return Finding("snapshot", "warn", f"none, and a start reads the whole log: {tail}", fix)
    return ok("snapshot", f"none is needed yet: the log has {tail}")


# --- the machine ----------------------------------------------------------------------------------------------------


def clock(newest_ms: int, now_ms: int) -> Iterator[Finding]:
    """The clock is synchronised, and has not gone back behind what the log holds."""
    if newest_ms > now_ms + AHEAD_MS_MAX:
        ahead_s = (newest_ms - now_ms) / 1000
        text = f"the log's newest batch is {ahead_s:.0f} s later than now"
        yield Finding("clock", "fail", text, "set the clock right: windows and expiry follow it")
    elif not _is_synchronised():
        yield Finding("clock", "warn", "the kernel does not call it synchronised", "run chrony or systemd-timesyncd")
    else:
        yield ok("clock", "synchronised")


def _is_synchronised() -> bool:
    """adjtimex(2), asked to set nothing; a system that will not say is believed."""
    return int(ctypes.CDLL(None).adjtimex(ctypes.create_string_buffer(TIMEX_BYTES))) != TIME_ERROR


def ports(config: Config) -> Iterator[Finding]:
    """Whether a gateway could listen where it is told to. Only to be asked while none does."""
    for name, host, port in (
        ("server", config.server.host, config.server.port),
        ("metrics", config.metrics.host, config.metrics.port),
    ):
        try:
            family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
            with socket.socket(family, kind, protocol) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(address)
        except OSError as error:  # socket.gaierror is one
            why = f"{host}:{port}: {error.strerror or error}"
            yield Finding(
                f"{name} port", "fail", why, f"End what listens there (`ss -ltnp`), or set {name}.port and host"
            )
        else:
            yield ok(f"{name} port", f"{host}:{port} is free" if port else "any free one")


def open_files() -> Finding:
    """Room for connections."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    text = f"{soft} at most"
    if soft < FILES_MIN:
        fix = f"ulimit -n {min(hard, 65536)}, or LimitNOFILE= in the systemd unit"
        return Finding("open files", "warn", f"{text}: one is needed for each till", fix)
    return ok("open files", text)


def versions() -> Finding:
    """What a bug report should say."""
    named = ", ".join(f"{name} {version(name)}" for name in ("aiohttp", "msgspec", "redis", "uvloop"))
    return ok("versions", f"python {sys.version.split()[0]}, sqlite {sqlite3.sqlite_version}, {named}")
