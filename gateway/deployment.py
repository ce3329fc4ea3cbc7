"""A new deployment: data directory, code keys, log with its first events, and the first admin token.

The log is made under another name and renamed when everything else is on disk. So `log.db` exists if and only if the
deployment is whole, and after a crash the same call finishes what was begun: with the keys that are there already,
because nobody but `tillgate key` may ever replace a key.
"""

import fcntl
import os
import secrets
from collections.abc import Callable
from pathlib import Path

import msgspec

from eventstore.copying import Copied, copy_log
from eventstore.events import Control, DeploymentInitialised, KeyAdded, TokenCreated, encode_control
from eventstore.log import CONTROL, TIP_BYTES, ZERO_TIP, Batch
from eventstore.sqlite_file import SqliteReader
from eventstore.sqlite_log import SqliteLog
from gateway.auth import BEARER_PREFIX, TOKEN_BYTES, Auth, token_of
from gateway.codes import CodeKeys
from gateway.control_rules import check
from gateway.directory import Directory
from gateway.keyfile import KEY_FILE, KeyFile, parse, sync_directory, write_new

LOG_FILE, UNFINISHED = "log.db", "init.db"
TOKEN_FILE = Path("secrets") / "admin.token"
ADMIN = "admin"  # id of the first token


class AlreadyInitialised(Exception):
    """There is a deployment, or a part of one that must not be overwritten; says what was found."""


class Deployment(msgspec.Struct, frozen=True):
    """What was made."""

    deployment_id: str
    partitions: int
    token_file: Path
    key_file: Path


async def initialise(directory: Path, partitions: int, now_ms: int) -> Deployment:
    """Make a deployment in a directory that is new or empty. Raises AlreadyInitialised, KeyFault, OSError."""
    turn = open_new(directory)
    try:
        fcntl.flock(turn, fcntl.LOCK_EX)
        _refuse_foreign(directory)
        deployment_id = secrets.token_hex(16)
        keys, token = _begin(directory, partitions, deployment_id, now_ms)
        await _write_first_events(directory / UNFINISHED, keys, token, deployment_id, partitions, now_ms)
        _finish(directory)
    finally:
        os.close(turn)
    return Deployment(deployment_id, partitions, directory / TOKEN_FILE, directory / KEY_FILE)


async def restore(
    directory: Path, backup: SqliteReader, keys: bytes, now_ms: int, on_run: Callable[[int], None]
) -> Copied:
    """Make a deployment of a backup of its log and the content of its key file, in a directory that is new or empty.

    The admin token is in no backup; a new one is made, and is an event in the log. Raises AlreadyInitialised, KeyFault,
    LogDamaged, OSError.
    """
    code_keys = parse(keys, "the backup of the keys")
    turn = open_new(directory)
    try:
        fcntl.flock(turn, fcntl.LOCK_EX)
        _refuse_foreign(directory)
        _clear_unfinished(directory)
        meta = backup.meta
        SqliteLog.create(directory / UNFINISHED, meta.partitions, meta.deployment_id, meta.created_ms)
        (directory / KEY_FILE).unlink(missing_ok=True)
        write_new(directory / KEY_FILE, keys)
        copied = await _copy_and_admit(directory, backup, code_keys, now_ms, on_run)
        _finish(directory)
    finally:
        os.close(turn)
    return copied


async def _copy_and_admit(
    directory: Path, backup: SqliteReader, keys: CodeKeys, now_ms: int, on_run: Callable[[int], None]
) -> Copied:
    log = SqliteLog.open(directory / UNFINISHED)
    try:
        copied = await copy_log(backup, log, on_run)
        token_hash = _hash_of(new_token(directory), keys)
        token_id = f"{ADMIN}-{secrets.token_hex(4)}"
        event = TokenCreated(
            token_id=token_id, token_hash=token_hash, role="admin", scope="", label="made by tillgate restore"
        )
        head = copied.heads[CONTROL]
        payload = encode_control(Control("restore", (event,)), at_ms=now_ms)
        tip = secrets.token_bytes(TIP_BYTES)
        await log.append([Batch(CONTROL, head.seq + 1, head.tip, tip, payload, b"")])
    finally:
        await log.close()
    return copied


def open_new(directory: Path) -> int:
    """The directory, made if need be, to be locked while a deployment is made in it."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    return os.open(directory, os.O_RDONLY | os.O_DIRECTORY)


def _refuse_foreign(directory: Path) -> None:
    if (directory / LOG_FILE).exists():
        raise AlreadyInitialised(f"{directory} holds a deployment already")
    found = sorted(os.listdir(directory))
    if found and UNFINISHED not in found:
        raise AlreadyInitialised(f"{directory} is not empty (it has {found[0]}) and holds no log: name a new directory")


def _begin(directory: Path, partitions: int, deployment_id: str, now_ms: int) -> tuple[CodeKeys, str]:
    """Everything but the log's events, on disk: an empty log, the keys, the admin token."""
    _clear_unfinished(directory)
    SqliteLog.create(directory / UNFINISHED, partitions, deployment_id, now_ms)
    key_file = KeyFile(directory)
    keys = key_file.load() if key_file.path.exists() else key_file.create()
    return keys, new_token(directory)


def _clear_unfinished(directory: Path) -> None:
    directory.chmod(0o700)
    (directory / TOKEN_FILE).parent.mkdir(mode=0o700, exist_ok=True)
    for leftover in directory.glob(f"{UNFINISHED}*"):
        leftover.unlink()


def new_token(directory: Path) -> str:
    """A bearer token, durable in the admin's file."""
    token = token_of(BEARER_PREFIX, secrets.token_bytes(TOKEN_BYTES))
    (directory / TOKEN_FILE).unlink(missing_ok=True)
    write_new(directory / TOKEN_FILE, token.encode() + b"\n")
    sync_directory((directory / TOKEN_FILE).parent)
    return token


def _hash_of(token: str, keys: CodeKeys) -> bytes:
    token_hash = Auth(keys.pepper, Directory()).token_hash(token)
    assert token_hash is not None, "a token just made is well formed"
    return token_hash


def _finish(directory: Path) -> None:
    assert not (directory / f"{UNFINISHED}-wal").exists(), "closing the log moves everything into the file"
    (directory / UNFINISHED).rename(directory / LOG_FILE)
    (directory / f"{UNFINISHED}.lock").unlink()
    sync_directory(directory)


async def _write_first_events(
    path: Path, keys: CodeKeys, token: str, deployment_id: str, partitions: int, now_ms: int
) -> None:
    log = SqliteLog.open(path)
    try:
        await log.append([first_batch(keys, token, deployment_id, partitions, now_ms)])
    finally:
        await log.close()


def first_batch(keys: CodeKeys, token: str, deployment_id: str, partitions: int, now_ms: int) -> Batch:
    """What every log begins with: whose it is, its first key, its first token."""
    token_hash = _hash_of(token, keys)
    events = (
        DeploymentInitialised(deployment_id=deployment_id, partitions=partitions),
        KeyAdded(key_id=keys.active),
        TokenCreated(token_id=ADMIN, token_hash=token_hash, role="admin", scope="", label="made by tillgate init"),
    )
    assert check(Directory(), events, now_ms=now_ms) is None
    payload = encode_control(Control("init", events), at_ms=now_ms)
    return Batch(CONTROL, 1, ZERO_TIP, secrets.token_bytes(TIP_BYTES), payload, b"")
