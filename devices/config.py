"""One TOML file becomes one frozen `TerminalConfig`; whatever is wrong in it is named, with a suggestion."""

import difflib
import re
from pathlib import Path
from typing import Annotated, Literal, get_args
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta

from devices.attached import parse_path
from devices.framing.key_layouts import LayoutName
from devices.framing.keyboard import GAP_MS_DEFAULT as KEY_GAP_MS_DEFAULT
from devices.framing.keyboard import PERSON_MS_DEFAULT
from devices.framing.newland import LrcOver
from devices.framing.raw import GAP_MS_DEFAULT
from devices.page_config import PageConfig, ReceiptConfig, absolute, page_fault, receipt_fault
from devices.page_view import PAGE_NAME

SCANNERS_MAX = 16  # more lanes than one till has; a longer list is a mistake in a template
TYPED_SOURCE = "keyboard"  # what codes typed at the till come from, as a scanner's name
PREFIX_CHARS_MAX = 8  # STX or an identifier of up to three characters is what scanners can be set to


class ConfigFault(Exception):
    """The configuration cannot be used; the text names the file, the field and, where there is one, the likely word."""


ScannerName = Annotated[str, Meta(pattern=r"^[A-Za-z0-9._-]{1,32}$")]
DevicePath = Annotated[str, Meta(min_length=1)]  # best one that outlives the plug: /dev/serial/by-id/..., usb:...
ListenAddress = Annotated[str, Meta(pattern=r"^$|^([A-Za-z0-9.-]+|\[[0-9a-fA-F:.]+\]):[0-9]{1,5}$")]


class SerialConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="serial"):
    """One serial port. `prefix` holds the characters themselves, e.g. "\\u0002" for STX."""

    name: ScannerName
    path: DevicePath
    framing: Literal["raw", "ssi", "honeywell", "newland", "datalogic"] = "raw"
    suffix: Literal["cr", "lf", "crlf", "tab", "etx", "none"] = "cr"
    prefix: Annotated[str, Meta(max_length=PREFIX_CHARS_MAX, pattern=r"^[\x00-\xff]*$")] = ""
    gap_ms: Annotated[int, Meta(ge=5, le=1000)] = GAP_MS_DEFAULT
    baud: Annotated[int, Meta(ge=300, le=4_000_000)] = 9600
    parity: Literal["none", "even", "odd"] = "none"
    cordless: bool = False  # ssi: the scanner puts four bytes before the text, as Bluetooth ones do, and not one
    lrc: LrcOver = "any"  # newland: what the check byte covers, where the manual is believed
    label_ack: bool = False  # datalogic: the scanner waits for an ACK after each label
    not_on_file: bool = False  # datalogic: refusals as "not on file", for models that have no low tone


class KeyboardConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="keyboard"):
    """A scanner that types (keyboard wedge), read from evdev with an exclusive grab: `usb:VVVV:PPPP` or a node."""

    name: ScannerName
    path: DevicePath
    layout: LayoutName = "us"  # the country the scanner is set to; the till's own keyboard does not matter
    suffix: Literal["enter", "tab", "none"] = "enter"
    gap_ms: Annotated[int, Meta(ge=5, le=1000)] = KEY_GAP_MS_DEFAULT  # without suffix: the silence that ends a scan
    person_ms: Annotated[int, Meta(ge=5, le=1000)] = PERSON_MS_DEFAULT  # keys slower than this are a person's
    gs_key: Literal["", "f1", "f2", "f3", "f4", "f5", "f6", "f7", "f8", "f9", "f10", "f11", "f12"] = ""  # sent for GS


class HidPosConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="hid-pos"):
    """A HID POS scanner (usage page 0x8C), read from hidraw: `usb:VVVV:PPPP` or a node."""

    name: ScannerName
    path: DevicePath


Symbology = Literal["qr", "aztec", "datamatrix", "pdf417", "code128", "code39", "ean", "databar"]


class CameraConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="camera"):
    """A V4L2 camera (/dev/v4l/by-id/...), or for integrators a directory that picture files are put into.

    A picture in the directory is removed once the till has its scan in the journal, and otherwise gets `.unread` added
    to its name. `symbologies`: only these are looked for; each more costs time, and stripes look like linear ones.
    """

    name: ScannerName
    path: DevicePath
    symbologies: Annotated[tuple[Symbology, ...], Meta(min_length=1)] = ("qr",)
    width: Annotated[int, Meta(ge=160, le=4096)] = 1280  # pixels asked of the camera: it may give its nearest
    height: Annotated[int, Meta(ge=120, le=4096)] = 720


ScannerConfig = SerialConfig | KeyboardConfig | HidPosConfig | CameraConfig
KIND_DEFAULT = "serial"

FRAMINGS_OF = {  # a setting that its protocol does not have would be believed, and do nothing
    "suffix": ("raw", "datalogic"),
    "prefix": ("raw", "datalogic"),
    "gap_ms": ("raw", "datalogic"),
    "cordless": ("ssi",),
    "lrc": ("newland",),
    "label_ack": ("datalogic",),
    "not_on_file": ("datalogic",),
}


class TerminalConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Everything a till needs. Paths are absolute once loaded; `language` empty: the store's, told by the gateway."""

    gateways: Annotated[list[str], Meta(min_length=1, max_length=8)]
    terminal: Annotated[int, Meta(ge=1, lt=1 << 32)]
    state_directory: str
    language: Literal["", "en", "zh"] = ""
    ca_file: str = ""  # PEM of a private certificate authority, when the gateway's certificate comes from one
    metrics_listen: ListenAddress = ""  # host:port of /metrics for Prometheus; empty: none
    scanners: Annotated[list[ScannerConfig], Meta(max_length=SCANNERS_MAX)] = []
    page: PageConfig | None = None
    receipt: ReceiptConfig | None = None


def load_config(path: Path) -> TerminalConfig:
    """Raises `ConfigFault` for anything wrong in it, also when the file cannot be read."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ConfigFault(f"{path}: {error.strerror}") from None
    return parse_config(content, path)


def parse_config(content: bytes, path: Path) -> TerminalConfig:
    """`path` is named in errors; relative paths in the file start where it stands."""
    try:
        config = msgspec.convert(_with_kinds(msgspec.toml.decode(content)), TerminalConfig)
    except msgspec.ValidationError as error:
        raise ConfigFault(f"{path}: {_with_suggestion(str(error))}") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ConfigFault(f"{path}: not TOML: {error}") from None
    for i, gateway in enumerate(config.gateways):
        if fault := _url_fault(gateway):
            raise ConfigFault(f"{path}: {fault} - at `$.gateways[{i}]`")
    for field in ("name", "path"):
        if twice := _twice([getattr(scanner, field) for scanner in config.scanners]):
            raise ConfigFault(f"{path}: two scanners have the same {field} `{twice}` - at `$.scanners`")
    for name, whose in ((PAGE_NAME, "the cashier's page"), (TYPED_SOURCE, "codes typed by hand")):
        if name in [scanner.name for scanner in config.scanners]:
            raise ConfigFault(f"{path}: `{name}` is the name of {whose} - at `$.scanners`")
    if config.metrics_listen and not 0 <= int(config.metrics_listen.rpartition(":")[2]) < 1 << 16:
        raise ConfigFault(f"{path}: a port is at most 65535 - at `$.metrics_listen`")
    for where, fault in (
        ("page", page_fault(config.page) if config.page else ""),
        ("receipt", receipt_fault(config.receipt) if config.receipt else ""),
    ):
        if fault:
            raise ConfigFault(f"{path}: {fault} - at `$.{where}`")
    for i, scanner in enumerate(config.scanners):
        framing_fault = _framing_fault(scanner) if isinstance(scanner, SerialConfig) else ""
        if fault := framing_fault or _path_fault(scanner):
            raise ConfigFault(f"{path}: {fault} - at `$.scanners[{i}]`")
    ca_file = str(path.parent / config.ca_file) if config.ca_file else ""
    state_directory = str((path.parent / config.state_directory).absolute())
    page = config.page and absolute(config.page, path.parent)
    return msgspec.structs.replace(config, state_directory=state_directory, ca_file=ca_file, page=page)


def stream_url(gateway: str) -> str:
    """`https://host[:port][/path]` -> where the WebSocket is; ws and wss may be written as well."""
    parts = urlsplit(gateway)
    scheme = {"http": "ws", "https": "wss"}.get(parts.scheme, parts.scheme)
    return f"{scheme}://{parts.netloc}{parts.path.rstrip('/')}/v1/stream"


def _url_fault(gateway: str) -> str:
    try:
        parts = urlsplit(gateway)
        known = parts.scheme in ("http", "https", "ws", "wss") and parts.hostname and parts.port != 0
    except ValueError:
        known = False
    return "" if known else "expected an address like `https://gateway.example`"


def _path_fault(scanner: ScannerConfig) -> str:
    """Something like `usb:` that does not read on as a device would be looked for as a file, for ever."""
    path = scanner.path
    if "\0" in path or "://" in path:
        return "`path` is a device of this machine"
    if not re.match(r"(usb|bluetooth|bt|hid):", path, re.IGNORECASE):
        return ""
    if isinstance(scanner, CameraConfig):
        return f"a camera is found by a path like `/dev/v4l/by-id/...`, and it is `{path}`"
    if parse_path(path):
        return ""
    return f"expected a path like `usb:0c2e:0b61` or `usb:0c2e:0b61:SERIAL`, and it is `{path}`"


def _framing_fault(scanner: SerialConfig) -> str:
    for field in msgspec.structs.fields(scanner):
        framings = FRAMINGS_OF.get(field.name, (scanner.framing,))
        if scanner.framing not in framings and getattr(scanner, field.name) != field.default:
            return f"`{field.name}` is for framing {' or '.join(framings)}, and here it is {scanner.framing}"
    return ""


def _with_kinds(fields: dict[str, object]) -> dict[str, object]:
    """A scanner whose kind is not written is a serial one."""
    scanners = fields.get("scanners")
    if isinstance(scanners, list):
        fields["scanners"] = [{"kind": KIND_DEFAULT, **one} if isinstance(one, dict) else one for one in scanners]
    return fields


def _twice(names: list[str]) -> str:
    return next((name for i, name in enumerate(names) if name in names[:i]), "")


_STRUCTS_AT = {
    None: (TerminalConfig,),
    "scanners": get_args(ScannerConfig),
    "page": (PageConfig,),
    "receipt": (ReceiptConfig,),
}


def _with_suggestion(text: str) -> str:
    unknown = re.search(r"unknown field `([^`]*)`(?: - at `\$\.(scanners|page|receipt)\b)?", text)
    if not unknown:
        return text
    structs = _STRUCTS_AT[unknown[2]]
    known = [field for struct in structs for field in struct.__struct_fields__]
    close = difflib.get_close_matches(unknown[1], [*known, *(("kind",) if unknown[2] == "scanners" else ())], n=1)
    return f"{text}; did you mean `{close[0]}`?" if close else text
