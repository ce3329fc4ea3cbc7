"""What a till knows for the time without a connection, kept on disk: the grant, and when a gateway was last heard of.

The file is sealed with a key of this device (like the codes in the journal), so that nobody raises a cap with an
editor, and replaced whole. One that does not open is as good as none: nothing is accepted offline until the next
contact. What cannot be written (a full disk) counts in memory, and after a restart the older state does, which allows
less.
"""

import asyncio
import contextlib
import os
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from devices.keys import sync_directory
from devices.offline import Contact, Now, Refusal, code_of, judge, time_of
from devices.records import Ledger, OfflineAccepted
from gateway.messages import Grant

FILE_NAME = "offline.bin"
NONCE_BYTES = 12  # RFC 8439
SAVE_EVERY_S = 60.0  # what a till that is killed loses of its minutes; a write a minute wears no card
LINK_DEAD_MS = 3000  # a gateway that restarts is back before this; nothing is put at risk for it
HEARTBEAT_MS = 15_000  # a line is known to be dead this much later than it died (devices.uplink)
_PURPOSE = b"tillgate-offline-file-1"


class _Kept(msgspec.Struct, array_like=True, frozen=True):
    grant: Grant
    contact: Contact


_decode = msgspec.msgpack.Decoder(_Kept).decode


class OfflineDesk:
    """Remembers grants and contacts, and answers whether a scan may be accepted now. `read_clocks` for tests."""

    def __init__(self, directory: Path, secret: bytes, read_clocks: "Callable[[], Now] | None" = None) -> None:
        self._path = directory / FILE_NAME
        self._aead = ChaCha20Poly1305(secret)
        self._clocks = read_clocks or clocks
        self._kept = self._load()
        self._lost_ms: int | None = None  # since when there is no connection, CLOCK_BOOTTIME; None: there is one
        self._is_connected = False

    async def run(self) -> None:
        """While there is a connection, note once a minute that there is."""
        while True:
            await asyncio.sleep(SAVE_EVERY_S)
            if self._is_connected and self._kept is not None:
                self._hear()
                await self._save()

    async def take(self, grant: Grant) -> None:
        """A gateway has said what may be accepted, and what time it is."""
        now = self._clocks()
        self._kept = _Kept(grant, Contact(grant.server_ms, now.wall_ms, now.boot_ms, now.boot, grant.server_ms))
        self.connected(grant.server_ms)
        await self._save()

    def connected(self, server_ms: int) -> None:
        """A gateway has let this till in, and said what time it is."""
        self._is_connected, self._lost_ms = True, None
        if self._kept is not None:
            now = self._clocks()
            contact = Contact(server_ms, now.wall_ms, now.boot_ms, now.boot, server_ms)
            self._kept = msgspec.structs.replace(self._kept, contact=contact)

    def lost(self) -> None:
        """The connection is gone, or was never there."""
        if self._is_connected:
            self._hear(HEARTBEAT_MS)
        if self._lost_ms is None:
            self._lost_ms = self._clocks().boot_ms
        self._is_connected = False

    def is_dead(self) -> bool:
        """Whether the connection has been away long enough to do without it."""
        return self._lost_ms is not None and self._clocks().boot_ms - self._lost_ms >= LINK_DEAD_MS

    def ask(self, code: str, redemption_id: bytes, ledger: Ledger) -> OfflineAccepted | Refusal | None:
        """Whether this scan may be accepted. None: nothing is granted here, so there is nothing to say of it."""
        if self._kept is None or not self._kept.grant.offers or not self.is_dead():
            return None
        grant, contact = self._kept.grant, self._kept.contact
        spelled = code_of(code)
        newest = next(reversed(ledger.records.values()), None)
        now_ms = time_of(contact, self._clocks(), newest.scanned_ms if newest else 0)
        given = ledger.given_for(spelled.voucher) if spelled else None
        untold = ledger.untold(spelled.campaign) if spelled else []
        offer = judge(spelled, grant, contact, now_ms, given=given, untold=untold)
        if isinstance(offer, Refusal):
            return offer
        assert now_ms is not None
        return OfflineAccepted(redemption_id, now_ms, contact.heard_ms, offer.campaign, offer.value_minor, offer.offer)

    def _hear(self, late_ms: int = 0) -> None:
        """Now, less `late_ms`, is when a gateway was last heard of."""
        if self._kept is None:
            return
        now_ms = time_of(self._kept.contact, self._clocks(), 0)
        if now_ms is not None:
            heard_ms = max(self._kept.contact.heard_ms, now_ms - late_ms)
            contact = msgspec.structs.replace(self._kept.contact, heard_ms=heard_ms)
            self._kept = msgspec.structs.replace(self._kept, contact=contact)

    async def _save(self) -> None:
        with contextlib.suppress(OSError):
            await asyncio.to_thread(self._write, msgspec.msgpack.encode(self._kept))

    def _write(self, content: bytes) -> None:
        nonce = os.urandom(NONCE_BYTES)
        part = self._path.with_name(FILE_NAME + ".part")
        fd = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            os.write(fd, nonce + self._aead.encrypt(nonce, content, _PURPOSE))
            os.fsync(fd)
        finally:
            os.close(fd)
        part.rename(self._path)
        sync_directory(self._path.parent)

    def _load(self) -> _Kept | None:
        try:
            content = self._path.read_bytes()
            plain = self._aead.decrypt(content[:NONCE_BYTES], content[NONCE_BYTES:], _PURPOSE)
            return _decode(plain)
        except (OSError, InvalidTag, ValueError, msgspec.MsgspecError):
            return None


def clocks() -> Now:
    """This machine's clocks, and which start of it they are of."""
    boot_ms = time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000
    return Now(time.time_ns() // 1_000_000, boot_ms, _boot())


def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    except OSError:
        return f"process {os.getpid()} {id(_boot)}"  # every start of the till counts as one of the machine
