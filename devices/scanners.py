"""Which scanner a configuration asks for. A kind is loaded only when it is used, and so are the libraries it needs."""

from collections.abc import Callable
from importlib import import_module
from typing import cast

from devices.config import CameraConfig, ConfigFault, HidPosConfig, KeyboardConfig, ScannerConfig, SerialConfig
from devices.scanner import OnPort, OnRead, Scanner

KINDS: dict[type[ScannerConfig], tuple[str, str, str]] = {  # module, its class, the extra that installs what it needs
    SerialConfig: ("devices.readers", "SerialScanner", "terminal"),
    KeyboardConfig: ("devices.keyboard", "KeyboardScanner", "terminal"),
    HidPosConfig: ("devices.hid_pos", "HidPosScanner", "terminal"),
    CameraConfig: ("devices.camera", "CameraScanner", "camera"),
}


def scanner_for(config: ScannerConfig, on_read: OnRead, on_port: OnPort) -> Scanner:
    """Not running yet. Raises `ConfigFault`, which names what to install, when a library of its kind is missing."""
    module, scanner_class, extra = KINDS[type(config)]
    try:
        make = cast(Callable[[ScannerConfig, OnRead, OnPort], Scanner], getattr(import_module(module), scanner_class))
    except ImportError as error:
        kind = config.__struct_config__.tag
        missing = f"{error.name or error} is not installed"
        raise ConfigFault(
            f"scanner `{config.name}` is of kind `{kind}`, and {missing}: pip install 'tillgate[{extra}]'"
        ) from None
    return make(config, on_read, on_port)
