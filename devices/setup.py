"""A scanner is written into `terminal.toml`: everything else in the file stays as it is, or nothing is written."""

import json
import os
import re
from pathlib import Path

import msgspec

from devices.config import ConfigFault, ScannerConfig, TerminalConfig, load_config, parse_config
from devices.keys import sync_directory

_NUMBER = re.compile(r"[0-9]+")
_HEADER = re.compile(r"^\s*\[", re.MULTILINE)
_SCANNERS = re.compile(r"^\s*\[\[\s*scanners\s*\]\]\s*(?:#.*)?$", re.MULTILINE)


def block_of(kind: str, name: str, path: str, settings: dict[str, str]) -> str:
    """The scanner's table. Values are written as numbers and truths where they look like such."""
    fields = {"name": _quoted(name), "kind": _quoted(kind), "path": _quoted(path)}
    fields |= {setting: _value(text) for setting, text in settings.items()}
    return "\n[[scanners]]\n" + "".join(f"{field} = {value}\n" for field, value in fields.items())


def with_scanner(file: Path, block: str, *, replace: bool) -> tuple[str, ScannerConfig]:
    """The file's text with the scanner in it, checked as the daemon would. Raises `ConfigFault`, `OSError`.

    `replace`: the scanner of the same name leaves.
    """
    before = load_config(file)
    text = file.read_text("utf-8")
    scanner = alone(block, file)
    others = [one for one in before.scanners if one.name != scanner.name]
    if len(others) < len(before.scanners):
        if not replace:
            raise ConfigFault(f"{file}: there is a scanner `{scanner.name}` already: choose another name, or --replace")
        text = _without(text, scanner.name)
    text = text.rstrip("\n") + "\n" + block
    after = parse_config(text.encode(), file)
    if after != msgspec.structs.replace(before, scanners=[*others, scanner]):
        raise ConfigFault(f"{file} is written in a way that is not changed safely: put this into it yourself\n{block}")
    return text, scanner


def write_over(file: Path, text: str) -> None:
    """Whole or not at all, with the owner and rights the file had."""
    about = file.stat()
    part = file.with_name(file.name + ".part")
    fd = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, about.st_mode & 0o777)
    with open(fd, "w", encoding="utf-8") as written:
        if os.geteuid() == 0:
            os.chown(fd, about.st_uid, about.st_gid)
        written.write(text)
        written.flush()
        os.fsync(fd)
    part.rename(file)
    sync_directory(file.absolute().parent)


def alone(block: str, file: Path) -> ScannerConfig:
    """The scanner as the block alone has it, so that its own faults are told first. Raises `ConfigFault`."""
    head = 'gateways = ["http://gateway"]\nterminal = 1\nstate_directory = "state"\n'
    config: TerminalConfig = parse_config((head + block).encode(), file)
    return config.scanners[0]


def _without(text: str, name: str) -> str:
    named = re.compile(rf"^\s*name\s*=\s*[\"']{re.escape(name)}[\"']\s*(?:#.*)?$", re.MULTILINE)
    for found in _SCANNERS.finditer(text):
        end = next((one.start() for one in _HEADER.finditer(text, found.end())), len(text))
        if named.search(text, found.end(), end):
            return text[: found.start()] + text[end:]
    return text


def _value(text: str) -> str:
    return text if _NUMBER.fullmatch(text) or text in ("true", "false") else _quoted(text)


def _quoted(text: str) -> str:
    """A TOML basic string: JSON's escapes are TOML's, but for DEL."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
