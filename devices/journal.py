"""The journal on disk: every scan is in it, fsynced, before the first send, and every answer before it is told.

Theory of operation. One file, appended to one block at a time (format: records.py), by one thread that does nothing
else, so that a slow card never stalls the readers. A commit is durable and folded into the ledger, or it raises and
changes nothing: on a full disk the half-written block is cut off again and `JournalFull` is raised; a failed fsync is
`JournalBroken`, after which nothing the kernel says about the file can be believed and the daemon ends. The code of a
voucher must survive a restart, to be sent again, and must not be readable in the file: it is sealed with
ChaCha20-Poly1305 under a key of this device, bound to its redemption_id, and left out by the next compaction once
nothing is to be sent for it. Compaction writes a new file and renames it over the old one.
"""

import asyncio
import errno
import fcntl
import hashlib
import os
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NoReturn, Self

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from devices.keys import read_or_create_secret, read_secret, sync_directory
from devices.offline_desk import OfflineDesk
from devices.records import (
    Entry,
    JournalDamaged,
    Ledger,
    Record,
    decode_file,
    encode_block,
    encode_file,
    fold,
)
from gateway.messages import Redeem

JOURNAL_NAME = "journal.bin"
KEY_NAME = "journal.key"
LOCK_NAME = "journal.lock"
NONCE_BYTES = 12  # RFC 8439; random: 2^32 seals under one key stay below a 2^-32 chance of a repeat
HASH_BYTES = 16
COMPACT_AFTER_ANSWERS = 1024  # how many sealed codes may outlive their use; a rewrite costs some milliseconds
OWED_PER_BLOCK = 512  # answers that found a full disk, written beside a scan: 50 KiB
NO_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_decode_redeem = msgspec.msgpack.Decoder(Redeem).decode


class JournalFull(Exception):
    """No room on the disk: nothing was written, nothing may be sent."""


class JournalBroken(Exception):
    """The disk failed in a way after which the file cannot be trusted while the daemon runs."""


class JournalInUse(Exception):
    """Another daemon has this state directory."""


class Journal:
    """Open it, `commit` entries, read `ledger`. One per state directory, held by a lock."""

    def __init__(self, directory: Path, secret: bytes, lock_fd: int) -> None:
        self.ledger = Ledger()
        self._path = directory / JOURNAL_NAME
        self._aead = ChaCha20Poly1305(_derived(secret, b"seal"))
        self._hash_key = _derived(secret, b"code-hash")
        self.offline_secret = _derived(secret, b"offline")
        self.offline = OfflineDesk(directory, self.offline_secret)
        self._lock_fd = lock_fd
        self._fd = -1
        self._length = 0
        self._stale_seals = 0
        self._owed: list[Entry] = []
        self._writing = asyncio.Lock()
        self._broken = ""  # why nothing is written any more
        self._broke = asyncio.Event()
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="journal")

    @classmethod
    def open(cls, directory: Path) -> Self:
        """Read what is there, cut a torn tail, forget the codes of what is settled.

        Raises `JournalInUse`, `JournalDamaged`, `KeyFault`, `OSError`.
        """
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock_fd = _lock(directory / LOCK_NAME)
        try:
            path, key_path = directory / JOURNAL_NAME, directory / KEY_NAME
            content = path.read_bytes() if path.exists() else b""
            # A key made anew beside an old journal could never open its seals: better to say that it is missing.
            secret = read_secret(key_path) if content else read_or_create_secret(key_path)
            journal = cls(directory, secret, lock_fd)
            journal._load(content)
            return journal
        except BaseException:
            os.close(lock_fd)
            raise

    @property
    def length(self) -> int:
        """Bytes in the file."""
        return self._length

    async def commit(self, *entries: Entry) -> None:
        """Make these entries durable, then fold them. Raises `JournalFull` or `JournalBroken`, and changes nothing."""
        # A caller that is cancelled must not leave a write running with nobody holding the lock.
        await asyncio.shield(asyncio.ensure_future(self._commit(entries)))

    async def note(self, *entries: Entry) -> None:
        """Commit answers. They are true with or without room for them: on a full disk they are folded all the same
        and written with the next commit that succeeds; until then a restart would ask for them again. Raises
        `JournalBroken`.
        """
        try:
            await self.commit(*entries)
        except JournalFull:
            async with self._writing:
                self._owed += entries
                for entry in entries:
                    self.ledger.apply(entry)

    async def until_broken(self) -> NoReturn:
        """Raises `JournalBroken` when the disk fails, whoever's entry was being written. A till ends by it."""
        await self._broke.wait()
        raise JournalBroken(self._broken)

    async def compact_if_due(self) -> None:
        """Forget the codes of settled scans when enough have gathered. A full disk puts it off."""
        if self._stale_seals >= COMPACT_AFTER_ANSWERS:
            async with self._writing:
                await self._compact()

    async def close(self) -> None:
        """Wait for the write under way, forget the codes that are not needed any more, let go of file and lock."""
        async with self._writing:
            try:
                if self._stale_seals and not self._broken:
                    await self._compact()
            finally:
                self._thread.shutdown()
                os.close(self._fd)
                os.close(self._lock_fd)

    def code_hash(self, code: str) -> bytes:
        """16 bytes that stand for a code on this device only."""
        return hashlib.blake2b(code.encode(), key=self._hash_key, digest_size=HASH_BYTES).digest()

    def seal(self, redeem: Redeem) -> bytes:
        nonce = os.urandom(NONCE_BYTES)
        return nonce + self._aead.encrypt(nonce, msgspec.msgpack.encode(redeem), redeem.redemption_id)

    def unseal(self, record: Record) -> Redeem:
        """The message exactly as it was first sent. Raises `JournalDamaged` when the key is not this journal's."""
        nonce, sealed = record.sealed[:NONCE_BYTES], record.sealed[NONCE_BYTES:]
        try:
            return _decode_redeem(self._aead.decrypt(nonce, sealed, record.redemption_id))
        except (InvalidTag, ValueError):
            raise JournalDamaged(f"{KEY_NAME} does not open the scan {record.redemption_id.hex()}") from None

    async def _commit(self, entries: tuple[Entry, ...]) -> None:
        async with self._writing:
            owed = self._owed[:OWED_PER_BLOCK]
            await self._in_thread(self._append, encode_block([*owed, *entries]))
            del self._owed[: len(owed)]
            for entry in entries:
                self.ledger.apply(entry)
            self._stale_seals += len(entries)

    async def _compact(self) -> None:
        self._stale_seals = 0
        entries = self.ledger.compacted()
        try:
            await self._in_thread(self._rewrite, encode_file(entries))
        except JournalFull:
            return
        self.ledger = fold(entries)
        self._owed.clear()  # the new file was written from the ledger, which has them

    async def _in_thread(self, write: Callable[[bytes], None], octets: bytes) -> None:
        if self._broken:
            raise JournalBroken(self._broken)
        try:
            await asyncio.get_running_loop().run_in_executor(self._thread, write, octets)
        except JournalBroken as fault:
            self._broken = str(fault)
            self._broke.set()
            raise

    def _load(self, content: bytes) -> None:
        entries, sound_bytes = _decode_named(content, self._path)
        self.ledger = fold(fold(entries).compacted())
        try:
            self._rewrite(encode_file(self.ledger.compacted()))
        except JournalFull:
            if not sound_bytes:
                raise
            self._fd = os.open(self._path, os.O_RDWR)  # what is open in the old file can still be sent
            self._length = sound_bytes
            self._cut()

    def _append(self, block: bytes) -> None:
        os.lseek(self._fd, self._length, os.SEEK_SET)
        try:
            _write_all(self._fd, block)
        except JournalFull:
            self._cut()
            raise
        _sync(self._fd)
        self._length += len(block)

    def _cut(self) -> None:
        try:
            os.ftruncate(self._fd, self._length)
        except OSError as error:
            raise JournalBroken(f"{self._path}: {error.strerror}") from None
        _sync(self._fd)

    def _rewrite(self, content: bytes) -> None:
        part = self._path.with_name(JOURNAL_NAME + ".part")
        fd = os.open(part, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            _write_all(fd, content)
        except (JournalFull, JournalBroken):
            os.close(fd)
            part.unlink()
            raise
        _sync(fd)
        os.rename(part, self._path)
        sync_directory(self._path.parent)
        if self._fd >= 0:
            os.close(self._fd)
        self._fd, self._length = fd, len(content)


def read_journal(path: Path) -> list[Record]:
    """All redemptions in a journal file, oldest first; safe while a daemon writes it. Needs no key, shows no code.

    Raises `JournalDamaged` naming the place, `OSError`.
    """
    return list(fold(_decode_named(path.read_bytes(), path)[0]).records.values())


def _decode_named(content: bytes, path: Path) -> tuple[list[Entry], int]:
    try:
        return decode_file(content)
    except JournalDamaged as fault:
        raise JournalDamaged(f"{path}: {fault}; keep the file, move it aside and ask for help") from None


def _derived(secret: bytes, purpose: bytes) -> bytes:
    return hashlib.blake2b(key=secret, person=purpose, digest_size=32).digest()


def _lock(path: Path) -> int:
    fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        raise JournalInUse(f"another terminal daemon is using {path.parent}") from None
    return fd


def _write_all(fd: int, octets: bytes) -> None:
    rest = memoryview(octets)
    try:
        while rest:
            rest = rest[os.write(fd, rest) :]
    except OSError as error:
        if error.errno in NO_SPACE:
            raise JournalFull(f"no room for the journal: {error.strerror}") from None
        raise JournalBroken(f"writing the journal failed: {error.strerror}") from None


def _sync(fd: int) -> None:
    try:
        os.fdatasync(fd)
    except OSError as error:
        raise JournalBroken(f"fsync of the journal failed: {error.strerror}") from None


def main() -> int:
    """`python -m devices.journal FILE...`: one JSON line a redemption, in the order they were scanned, file by file."""
    for path in map(Path, sys.argv[1:]):
        try:
            records = read_journal(path)
        except (JournalDamaged, OSError) as fault:
            print(f"journal: {fault}", file=sys.stderr)
            return 1
        for record in records:
            sys.stdout.buffer.write(msgspec.json.encode(_told(path, record)) + b"\n")
    return 0


def _told(path: Path, record: Record) -> dict[str, object]:
    """What the cashier was told of one redemption and of what undid it; no code, and nothing made from one."""
    reversals = [
        {
            "reversal_id": reversal.reversal_id.hex(),
            "verdict": reversal.verdict,
            "place": reversal.place,
            "gave_up": reversal.gave_up,
        }
        for reversal in record.reversals
    ]
    return {
        "journal": str(path),
        "redemption_id": record.redemption_id.hex(),
        "verdict": record.verdict,
        "place": record.place,
        "at_ms": record.at_ms,
        "reversals": reversals,
    }


if __name__ == "__main__":
    sys.exit(main())
