"""Secrets of one till, in files of mode 0600: the device's Ed25519 key, and the key that seals codes in the journal."""

import os
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

SECRET_BYTES = 32  # an Ed25519 seed (RFC 8032) and a ChaCha20-Poly1305 key (RFC 8439) have the same length


class KeyFault(Exception):
    """A key file is missing, exposed or malformed; the text names it and says what to do."""


def read_secret(path: Path) -> bytes:
    """The 32 bytes in a file of 64 hex digits. Refuses a file that others may read."""
    try:
        text, mode = path.read_text("ascii"), path.stat().st_mode
    except FileNotFoundError:
        raise KeyFault(f"{path} is missing") from None
    except UnicodeDecodeError:
        raise KeyFault(f"{path} does not hold a key") from None
    if mode & 0o077:
        raise KeyFault(f"{path} may be read by others: run `chmod 600 {path}`")
    try:
        secret = bytes.fromhex(text)
    except ValueError:
        raise KeyFault(f"{path} does not hold a key") from None
    if len(secret) != SECRET_BYTES:
        raise KeyFault(f"{path} does not hold a key")
    return secret


def create_secret(path: Path) -> bytes:
    """Draw a new secret and make it durable before it is used. Raises `FileExistsError` rather than replace one."""
    secret = os.urandom(SECRET_BYTES)
    part = path.with_name(path.name + ".part")  # linked into place whole: a crash never leaves half a key
    part.unlink(missing_ok=True)
    fd = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        os.write(fd, secret.hex().encode() + b"\n")
        os.fsync(fd)
    finally:
        os.close(fd)
    os.link(part, path)
    part.unlink()
    sync_directory(path.parent)
    return secret


def read_or_create_secret(path: Path) -> bytes:
    return read_secret(path) if path.exists() else create_secret(path)


def device_key(secret: bytes) -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(secret)


def sync_directory(path: Path) -> None:
    """Make a rename or a creation in this directory durable."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
