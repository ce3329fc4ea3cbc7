"""What an operator may set: one frozen `Config` from a TOML file, TILLGATE_* variables and flags, in rising order.

Decoding is pure and finds every fault at once; each names the key, where its value came from, and the fix. Where each
value came from is kept, because `tillgate doctor` shows it. Relative paths start at the working directory.
"""

import difflib
import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, get_args
from urllib.parse import parse_qs, urlsplit

import msgspec
from msgspec import Meta

from eventstore.jetstream_url import SCHEMES as NATS_SCHEMES
from eventstore.jetstream_url import place_of
from gateway.settings import SQLITE, Config
from gateway.toml_lines import lines_of
from gateway.valkey_url import fault_of, has_password

ENVIRONMENT_PREFIX = "TILLGATE_"
FILE_VARIABLE = "TILLGATE_CONFIG"
NOT_SETTINGS = frozenset(
    {FILE_VARIABLE, "TILLGATE_URL", "TILLGATE_TOKEN_FILE"}
)  # for the command line, not for a gateway
POSTGRES_SCHEMES = ("postgresql", "postgres")
_NO_URL = "it is no URL. Write for example postgresql://tillgate@db.example/tillgate"
PRIVATE_HOSTS = ("127.0.0.1", "::1", "localhost")


class Loaded(msgspec.Struct, frozen=True):
    """A configuration, and the origin of each of its values by key ("default" where nobody set it)."""

    config: Config
    origins: dict[str, str]


class BadConfig(Exception):
    """Everything that is wrong with a configuration: one sentence a fault."""

    def __init__(self, faults: Sequence[str]) -> None:
        super().__init__("\n".join(faults))
        self.faults = tuple(faults)


class _Given(msgspec.Struct, frozen=True):
    """One value somebody set. `text`: it came as text, from a variable or a flag."""

    key: str
    value: Any
    origin: str
    text: bool = True


def _fields(struct: type[msgspec.Struct], prefix: str = "") -> dict[str, Any]:
    """Dotted key -> annotated type, for every setting there is."""
    found: dict[str, Any] = {}
    for field in msgspec.structs.fields(struct):
        key = prefix + field.encode_name
        if isinstance(field.type, type) and issubclass(field.type, msgspec.Struct):
            found |= _fields(field.type, key + ".")
        else:
            found[key] = field.type
    return found


SETTINGS = _fields(Config)
"""Every key, dotted, with its annotated type."""


def variable_of(key: str) -> str:
    """The environment variable of a key: server.port -> TILLGATE_SERVER__PORT."""
    return ENVIRONMENT_PREFIX + key.replace(".", "__").upper()


def flag_of(key: str) -> str:
    """The flag of a key: server.tls_cert -> --server-tls-cert."""
    return "--" + re.sub(r"[._]", "-", key)


def read(path: Path | None, environ: Mapping[str, str], flags: Mapping[str, str]) -> Loaded:
    """Read the file (`path`, else the one TILLGATE_CONFIG names, else none) and decode. Raises BadConfig.

    `flags` are those that were given, by dotted key.
    """
    if path is None and environ.get(FILE_VARIABLE):
        path = Path(environ[FILE_VARIABLE])
    if path is None:
        return decode({}, "", environ, flags)
    try:
        text = path.read_text(encoding="utf-8")
        content = tomllib.loads(text)
    except OSError as error:
        raise BadConfig([f"{path} cannot be read: {error.strerror}. Check the path, or leave it out"]) from None
    except UnicodeDecodeError as error:
        raise BadConfig([f"{path} is not UTF-8 text (byte {error.start})"]) from None
    except tomllib.TOMLDecodeError as error:
        raise BadConfig([f"{path} is not TOML: {error}"]) from None
    return decode(content, str(path), environ, flags, lines_of(text))


def decode(
    content: Mapping[str, Any],
    file_name: str,
    environ: Mapping[str, str],
    flags: Mapping[str, str],
    lines: Mapping[str, int] = MappingProxyType({}),
) -> Loaded:
    """The file's tables, overlaid by the environment, overlaid by flags. Raises BadConfig with every fault found.

    `lines` is where the file sets each key.
    """
    givens = [
        *_flattened(content, file_name, lines),
        *(
            _Given(name.removeprefix(ENVIRONMENT_PREFIX).lower().replace("__", "."), value, name)
            for name, value in environ.items()
            if name.startswith(ENVIRONMENT_PREFIX) and name not in NOT_SETTINGS
        ),
        *(_Given(key, value, flag_of(key)) for key, value in flags.items()),
    ]
    faults: list[str] = []
    values: dict[str, Any] = {}
    origins = dict.fromkeys(SETTINGS, "default")
    for given in givens:
        if given.key not in SETTINGS:
            faults.append(_unknown(given))
            continue
        try:
            values[given.key] = msgspec.convert(given.value, SETTINGS[given.key], strict=not given.text)
        except msgspec.ValidationError:
            faults.append(_misfit(given))
        else:
            origins[given.key] = given.origin
    if faults:
        raise BadConfig(faults)
    config = msgspec.convert(_nested(values), Config)
    faults = [*_tls_faults(config, origins), *_valkey_faults(config, origins), *_log_faults(config, origins)]
    if faults:
        raise BadConfig(faults)
    return Loaded(config, origins)


def _flattened(table: Mapping[str, Any], file_name: str, lines: Mapping[str, int], prefix: str = "") -> list[_Given]:
    found: list[_Given] = []
    for name, value in table.items():
        key = prefix + name
        if isinstance(value, dict) and any(known.startswith(key + ".") for known in SETTINGS):
            found += _flattened(value, file_name, lines, key + ".")
        else:
            origin = f"{file_name}, line {lines[key]}" if key in lines else file_name
            found.append(_Given(key, value, origin, text=False))
    return found


def _nested(values: Mapping[str, Any]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for key, value in values.items():
        *tables, name = key.split(".")
        at = tree
        for table in tables:
            at = at.setdefault(table, {})
        at[name] = value
    return tree


def _spelling(key: str, origin: str) -> str:
    """A key as it is written where the asker wrote it."""
    if origin.startswith(ENVIRONMENT_PREFIX):
        return variable_of(key)
    return flag_of(key) if origin.startswith("--") else key


def _unknown(given: _Given) -> str:
    close = difflib.get_close_matches(given.key, SETTINGS, n=1)
    if not close:  # the right name in the wrong table
        last = given.key.rpartition(".")[2]
        close = [key for key in SETTINGS if key.rpartition(".")[2] == last][:1]
    fix = (
        f"Did you mean {_spelling(close[0], given.origin)}?"
        if close
        else f"Remove it; the settings are {', '.join(SETTINGS)}"
    )
    written = given.origin if given.text else f"{given.key}{_where(given)}"
    return f"{written}: there is no such setting. {fix}"


def _misfit(given: _Given) -> str:
    meta = next(extra for extra in get_args(SETTINGS[given.key]) if isinstance(extra, Meta))
    example = (meta.examples or [""])[0]
    literal = str(example).lower() if isinstance(example, bool) else repr(example)
    form = f"{_spelling(given.key, given.origin)}={example}" if given.text else f"{given.key} = {literal}"
    return f"{given.key}{_where(given)}: {_shown(given.value)} is not {meta.description}. Write for example {form}"


def _shown(value: object) -> str:
    shown = repr(value)
    return shown if len(shown) <= 60 else shown[:57] + "..."


def _where(given: _Given) -> str:
    return f" (variable {given.origin})" if given.origin.startswith(ENVIRONMENT_PREFIX) else f" (from {given.origin})"


def _tls_faults(config: Config, origins: Mapping[str, str]) -> list[str]:
    cert, key = config.server.tls_cert, config.server.tls_key
    if bool(cert) == bool(key):
        return []
    there, missing = ("server.tls_cert", "server.tls_key") if cert else ("server.tls_key", "server.tls_cert")
    return [
        f"{missing} ({origins[missing]}): missing, while {there} is set (from {origins[there]}). Set both or neither"
    ]


def _valkey_faults(config: Config, origins: Mapping[str, str]) -> list[str]:
    url, where = config.valkey.url, f"valkey.url (from {origins['valkey.url']})"
    if not url:
        if not config.valkey.password_file:
            return []
        origin = origins["valkey.password_file"]
        return [f"valkey.password_file (from {origin}): there is no valkey.url for it. Set both, or neither"]
    if (fault := fault_of(url)) is not None:
        return [f"{where}: {fault}"]
    if has_password(url):
        return [f"{where}: it has a password in it. Put the password in a file and name that in valkey.password_file"]
    return []


def _log_faults(config: Config, origins: Mapping[str, str]) -> list[str]:
    url, where = config.log.url, f"log.url (from {origins['log.url']})"
    workers = f"workers (from {origins['workers']}): {config.workers} processes cannot"
    if url == SQLITE:
        faults = []
        if config.log.password_file:
            faults.append(
                f"log.password_file (from {origins['log.password_file']}): the log is a file. Set log.url too"
            )
        if config.workers > 1:
            faults.append(
                f"{workers} share the log in SQLite (log.url). Set log.url = 'postgresql://...', or workers = 1"
            )
        return faults
    if (why := _place_fault(url)) is not None:
        return [f"{where}: {why}"]
    if config.workers > 1 and not config.valkey.url:
        return [f"{workers} share a private Valkey. Set valkey.url to one that runs by itself, or workers = 1"]
    return []


def _place_fault(url: str) -> str | None:
    try:
        if url.partition("://")[0] in NATS_SCHEMES:
            place_of(url)
            return None
        parts = urlsplit(url)
    except ValueError as error:
        return f"{error}. Mend the URL" if url.partition("://")[0] in NATS_SCHEMES else _NO_URL
    if parts.scheme not in POSTGRES_SCHEMES or not parts.path.strip("/"):
        return "it is none of sqlite, postgresql://user@host:5432/database, nats://host:4222/name. Mend the URL"
    if parts.password is not None or "password" in parse_qs(parts.query):
        return "it has a password in it. Put the password in a file and name that in log.password_file"
    return None


def is_private(host: str) -> bool:
    """Whether only this machine can reach a listener on `host`."""
    return host in PRIVATE_HOSTS
