"""The parts of a till's configuration that are about the cashier's page and the printer of slips."""

import ipaddress
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta

PAGE_LISTEN = "127.0.0.1:8470"
HostName = Annotated[str, Meta(pattern=r"^[A-Za-z0-9._-]{1,253}$")]  # others as browsers and certificates spell them


class PageConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[page]`. Beyond this machine the page is served by TLS, to paired devices only."""

    listen: str = PAGE_LISTEN  # address:port; 0.0.0.0 for every network the till is on
    names: Annotated[list[HostName], Meta(max_length=16)] = []  # host names it may be called by, beside its addresses
    certificate: str = ""  # PEM files; without them the till makes its own, which each phone asks about once
    key: str = ""

    @property
    def address(self) -> tuple[str, int]:
        parts = urlsplit(f"//{self.listen}")
        assert parts.hostname
        assert parts.port is not None
        return parts.hostname, parts.port

    @property
    def on_this_machine(self) -> bool:
        host, _ = self.address
        return host == "localhost" or ipaddress.ip_address(host).is_loopback


class ReceiptConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[receipt]`: a slip for each accepted voucher, on an ESC/POS printer. Needs the extra `receipt`."""

    printer: Annotated[str, Meta(min_length=1)]  # a device like /dev/usb/lp0, or tcp://192.168.1.50:9100
    columns: Literal[32, 42, 48] = 42  # characters a line: 32 on 58 mm paper, 42 or 48 on 80 mm


def page_fault(config: PageConfig) -> str:
    """What is wrong with it; empty: nothing."""
    try:
        parts = urlsplit(f"//{config.listen}")
        host, port = parts.hostname or "", parts.port
        known = port is not None and (host == "localhost" or bool(ipaddress.ip_address(host)))
    except ValueError:
        known = False
    if not known:
        return f"`listen` is an address and a port, like `{PAGE_LISTEN}` or `0.0.0.0:8443`"
    if bool(config.certificate) != bool(config.key):
        return "`certificate` and `key` belong together"
    if config.certificate and config.on_this_machine:
        return "`certificate` is for a page that other devices may open, and here it listens on this machine only"
    return ""


def receipt_fault(config: ReceiptConfig) -> str:
    if config.printer.startswith("/"):
        return ""
    try:
        parts = urlsplit(config.printer)
        known = parts.scheme == "tcp" and bool(parts.hostname) and parts.port != 0
    except ValueError:
        known = False
    return "" if known else "`printer` is a device like `/dev/usb/lp0`, or `tcp://192.168.1.50:9100`"


def absolute(config: PageConfig, directory: Path) -> PageConfig:
    """File names as they are meant from `directory`."""
    certificate, key = (str(directory / name) if name else "" for name in (config.certificate, config.key))
    return msgspec.structs.replace(config, certificate=certificate, key=key, names=[n.lower() for n in config.names])
