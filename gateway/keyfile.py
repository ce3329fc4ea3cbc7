"""The file of code keys, `<data>/secrets/codes.toml`: created, read, changed and copied so that no crash loses a key.

Whoever reads this file can mint vouchers, and without it no voucher can be redeemed. So it is mode 0600 or it is not
used, it is replaced whole (written beside, synced, renamed, directory synced), and writers take turns by a lock on the
directory.
"""

import contextlib
import fcntl
import os
import secrets
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from gateway.codes import KEY_BYTES, CodeKeys

KEY_FILE = Path("secrets") / "codes.toml"  # inside the data directory
KEY_IDS = range(1, 256)  # one byte of a signed code; never used twice, not even after a key is retired
FORMAT = 1
_OTHERS = 0o077  # the mode bits of group and world

_Hex = Annotated[str, Meta(pattern=rf"^[0-9a-f]{{{2 * KEY_BYTES}}}$")]


class KeyFault(Exception):
    """The key file is missing, exposed or damaged, or a change is impossible; says which, where and the fix."""


class _Content(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    format: int
    pepper: _Hex
    active: int
    keys: dict[str, _Hex]
    retired: list[int] = []


class KeyFile:
    """The key file of one data directory."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / KEY_FILE

    def create(self) -> CodeKeys:
        """A new pepper and the first key, made durable. Raises KeyFault rather than replace a file."""
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with self._turn():
            if self.path.exists():
                raise KeyFault(f"{self.path} exists already: replacing it would make every voucher unreadable")
            first = KEY_IDS[0]
            keys = CodeKeys({first: secrets.token_bytes(KEY_BYTES)}, first, secrets.token_bytes(KEY_BYTES))
            self._replace(keys)
        return keys

    def load(self) -> CodeKeys:
        """Raises KeyFault."""
        return parse(read_secret(self.path), str(self.path))

    def add(self) -> CodeKeys:
        """Draw one more key; codes are minted with it from now on, and the others still verify. Raises KeyFault."""
        with self._turn():
            old = self.load()
            key_id = max([*old.keys, *old.retired]) + 1
            if key_id not in KEY_IDS:
                raise KeyFault(f"{self.path}: all {len(KEY_IDS)} key ids have been used: start a new deployment")
            keys = CodeKeys(old.keys | {key_id: secrets.token_bytes(KEY_BYTES)}, key_id, old.pepper, old.retired)
            self._replace(keys)
        return keys

    def retire(self, key_id: int) -> CodeKeys:
        """Forget a key for ever: codes signed with it are refused from now on. Raises KeyFault."""
        with self._turn():
            old = self.load()
            if key_id not in old.keys:
                raise KeyFault(f"key {key_id} is not live; live are {', '.join(map(str, sorted(old.keys)))}")
            if key_id == old.active:
                raise KeyFault(f"key {key_id} is the one new codes are signed with: add another key first")
            left = {number: key for number, key in old.keys.items() if number != key_id}
            keys = CodeKeys(left, old.active, old.pepper, old.retired | {key_id})
            self._replace(keys)
        return keys

    def backup(self, target: Path) -> None:
        """A copy, checked and durable, at a path where nothing is yet. Raises KeyFault."""
        content = read_secret(self.path)
        parse(content, str(self.path))
        try:
            write_new(target, content)
        except FileExistsError:
            raise KeyFault(f"{target} exists already: name a new file") from None
        except OSError as error:
            raise KeyFault(f"{target} cannot be written: {error.strerror}") from None
        sync_directory(target.absolute().parent)
        parse(read_secret(target), str(target))

    @contextlib.contextmanager
    def _turn(self) -> Iterator[None]:
        try:
            fd = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY)
        except OSError as error:
            raise KeyFault(f"{self.path.parent} cannot be opened: {error.strerror}. Run `tillgate init`") from None
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)

    def _replace(self, keys: CodeKeys) -> None:
        part = self.path.with_name(self.path.name + ".part")
        try:
            part.unlink(missing_ok=True)
            write_new(part, serialised(keys).encode())
            part.rename(self.path)
            sync_directory(self.path.parent)
        except OSError as error:
            raise KeyFault(f"{self.path} cannot be written: {error.strerror}") from None


def serialised(keys: CodeKeys) -> str:
    """The file's text."""
    lines = [
        "# Tillgate's code keys. Whoever reads this can mint vouchers; without it none can be redeemed.",
        "# Keep a copy elsewhere: tillgate key backup FILE",
        f"format = {FORMAT}",
        f'pepper = "{keys.pepper.hex()}"',
        f"active = {keys.active}",
        f"retired = {sorted(keys.retired)}",
        "",
        "[keys]",
        *(f'{key_id} = "{key.hex()}"' for key_id, key in sorted(keys.keys.items())),
    ]
    return "\n".join(lines) + "\n"


def parse(content: bytes, name: str) -> CodeKeys:
    """The keys in a file's bytes; `name` is how errors call the file, and none of them quotes it. Raises KeyFault."""
    fix = "Restore it from the copy `tillgate key backup` made"
    try:
        table = tomllib.loads(content.decode())
        if table.get("format", FORMAT) != FORMAT:
            raise KeyFault(f"{name} has a format this version does not read ({FORMAT} expected)")
        raw = msgspec.convert(table, _Content)
        keys = {int(number): bytes.fromhex(key) for number, key in raw.keys.items()}
        return CodeKeys(keys, raw.active, bytes.fromhex(raw.pepper), frozenset(raw.retired))
    except (UnicodeDecodeError, tomllib.TOMLDecodeError):
        raise KeyFault(f"{name} is not TOML. {fix}") from None
    except ValueError as error:  # msgspec.ValidationError is one; what they say names fields, never values
        raise KeyFault(f"{name}: {error}. {fix}") from None


def read_secret(path: Path) -> bytes:
    """The bytes of a file that only its owner may read. Raises KeyFault."""
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode & 0o777
            if mode & _OTHERS:
                raise KeyFault(f"{path} can be read by others (mode {mode:04o}): run `chmod 600 {path}`")
            return file.read()
    except FileNotFoundError:
        raise KeyFault(f"{path} is missing. Run `tillgate init`, or restore it from its backup") from None
    except OSError as error:
        raise KeyFault(f"{path} cannot be read: {error.strerror}") from None


def write_new(path: Path, content: bytes) -> None:
    """A new file of mode 0600, its content synced. Raises FileExistsError, OSError."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(fd, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(fd)


def sync_directory(path: Path) -> None:
    """Make a creation or a rename in this directory durable."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
