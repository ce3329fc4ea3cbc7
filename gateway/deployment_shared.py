"""A deployment whose log is on servers: made there with its first events at once, or joined by one more machine.

The keys and the admin token are on disk before the log exists, because a log without its keys is worth nothing. A
marker with the deployment's id lies beside them until the log is there too: after a crash the same call goes on, and
knows its own log from a stranger's.
"""

import fcntl
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from eventstore.events import decode_control
from eventstore.log import CONTROL, LOG_FORMAT, LogReader, Meta
from gateway.deployment import TOKEN_FILE, AlreadyInitialised, Deployment, first_batch, new_token, open_new
from gateway.directory import Directory
from gateway.keyfile import KEY_FILE, KeyFault, KeyFile, parse, sync_directory, write_new
from gateway.settings import Config
from gateway.shared_logs import SharedLog, shared_log

MARKER = "init.shared"
READ_BATCHES = 500


async def initialise_shared(config: Config, partitions: int, now_ms: int) -> Deployment:
    """Make a deployment. Raises AlreadyInitialised, KeyFault, LogUnfit, LogLost, OSError."""
    directory, log = Path(config.data_dir), shared_log(config)
    with _locked(directory):
        _refuse_foreign(directory, MARKER)
        marker = directory / MARKER
        deployment_id = marker.read_text() if marker.exists() else secrets.token_hex(16)
        meta = await _found(log)
        if meta is not None and meta.deployment_id != deployment_id:
            raise AlreadyInitialised(
                f"log.url names the log of deployment {meta.deployment_id}: name an empty place, or join that one "
                "from here with `tillgate init --join KEYFILE`"
            )
        if meta is None:
            await _make(directory, log, deployment_id, partitions, now_ms)
        marker.unlink(missing_ok=True)
        sync_directory(directory)
    return Deployment(deployment_id, partitions, directory / TOKEN_FILE, directory / KEY_FILE)


async def join_shared(config: Config, keys: bytes) -> Deployment:
    """Serve a deployment that exists from one more directory; `keys` is the content of its key file.

    Raises AlreadyInitialised, KeyFault, FileNotFoundError, LogUnfit, LogLost, LogDamaged, OSError.
    """
    directory = Path(config.data_dir)
    brought = parse(keys, "the key file")
    with _locked(directory):
        _refuse_foreign(directory, None)
        reader = await shared_log(config).reader()
        try:
            lost = (await _live_keys(reader)) - brought.keys.keys()
        finally:
            await reader.close()
        if lost:
            raise KeyFault(f"the key file lacks keys that the log knows: {', '.join(map(str, sorted(lost)))}")
        (directory / KEY_FILE).parent.mkdir(mode=0o700)
        write_new(directory / KEY_FILE, keys)
        sync_directory((directory / KEY_FILE).parent)
    meta = reader.meta
    return Deployment(meta.deployment_id, meta.partitions, directory / TOKEN_FILE, directory / KEY_FILE)


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    turn = open_new(directory)
    try:
        fcntl.flock(turn, fcntl.LOCK_EX)
        directory.chmod(0o700)
        yield
    finally:
        os.close(turn)


def _refuse_foreign(directory: Path, marker: str | None) -> None:
    found = sorted(os.listdir(directory))
    if marker in found:
        return
    if (directory / KEY_FILE).exists():
        raise AlreadyInitialised(f"{directory} holds a deployment already")
    if found:
        raise AlreadyInitialised(f"{directory} is not empty (it has {found[0]}): name a new directory")


async def _found(log: SharedLog) -> Meta | None:
    try:
        return await log.meta()
    except FileNotFoundError:
        return None


async def _make(directory: Path, log: SharedLog, deployment_id: str, partitions: int, now_ms: int) -> None:
    if not (directory / MARKER).exists():
        write_new(directory / MARKER, deployment_id.encode())
    (directory / KEY_FILE).parent.mkdir(mode=0o700, exist_ok=True)
    sync_directory(directory)
    key_file = KeyFile(directory)
    keys = key_file.load() if key_file.path.exists() else key_file.create()
    first = first_batch(keys, new_token(directory), deployment_id, partitions, now_ms)
    try:
        await log.create(Meta(LOG_FORMAT, partitions, deployment_id, now_ms), [first])
    except FileExistsError:
        raise AlreadyInitialised("somebody else has just made a log there") from None


async def _live_keys(reader: LogReader) -> set[int]:
    directory = Directory()
    while batches := await reader.read(CONTROL, directory.control_seq + 1, READ_BATCHES):
        for batch in batches:
            directory.apply(decode_control(batch.payload), batch.seq, 0)
    return directory.live_keys
