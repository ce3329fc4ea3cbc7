"""What QEMU gives a test inside of its guest: its monitor, and the far end of its USB serial adapter."""

import json
import os
import select
from pathlib import Path
from typing import Any, Self

from waiting import DEADLINE_S, until_sync

ADAPTER_LINK = Path("/dev/serial/by-id/usb-QEMU_QEMU_USB_SERIAL_TG-FTDI-1-if00-port0")
ADAPTER_DEVICE = {"driver": "usb-serial", "id": "adapter", "chardev": "adapter", "always-plugged": True}


class VirtioPort:
    """One end of a pipe; the other is a socket of QEMU."""

    def __init__(self, name: str) -> None:
        found = [path.parent.name for path in Path("/sys/class/virtio-ports").glob("*/name") if _text(path) == name]
        self._port = os.open(f"/dev/{found[0]}", os.O_RDWR | os.O_NONBLOCK)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        os.close(self._port)

    def write(self, octets: bytes) -> None:
        while octets:
            _, ready, _ = select.select([], [self._port], [], DEADLINE_S)
            assert ready, "QEMU takes nothing"
            octets = octets[os.write(self._port, octets) :]

    def read(self) -> bytes:
        """What has come until now."""
        ready, _, _ = select.select([self._port], [], [], 0)
        return os.read(self._port, 65536) if ready else b""


class Monitor(VirtioPort):
    """QEMU machine protocol: https://www.qemu.org/docs/master/interop/qmp-spec.html"""

    def __init__(self) -> None:
        super().__init__("monitor")
        self._buffer = b""
        self.execute("qmp_capabilities")

    def execute(self, command: str, **arguments: object) -> None:
        answer = self.ask(command, **arguments)
        assert "return" in answer, answer

    def ask(self, command: str, **arguments: object) -> dict[str, Any]:
        """`return` or `error`, past the greeting and what QEMU tells unasked."""
        self.write(json.dumps({"execute": command, "arguments": arguments}).encode() + b"\n")
        while not {"return", "error"} & (answer := self._line()).keys():
            pass
        return answer

    def _line(self) -> dict[str, Any]:
        def whole() -> bool:
            self._buffer += self.read()
            return b"\n" in self._buffer

        until_sync(whole, "an answer of QEMU")
        line, _, self._buffer = self._buffer.partition(b"\n")
        answer: dict[str, Any] = json.loads(line)
        return answer


class Adapter(VirtioPort):
    """A scanner on a USB serial adapter (FTDI), by code that is not ours on both sides of the USB cable."""

    def __init__(self, monitor: Monitor) -> None:
        self._monitor = monitor
        self.path = ADAPTER_LINK
        until_sync(self.path.exists, f"udev's link {self.path}")
        super().__init__("adapter")
        self.read()

    def unplug(self) -> None:
        self._monitor.execute("device_del", id="adapter")
        until_sync(lambda: not self.path.is_symlink(), "the adapter's link to go")

    def plug(self) -> None:
        until_sync(self._is_added, "QEMU to let go of the adapter that was pulled out")
        until_sync(self.path.exists, f"udev's link {self.path}")

    def _is_added(self) -> bool:
        """A device that was removed keeps its socket for a moment more."""
        answer = self._monitor.ask("device_add", **ADAPTER_DEVICE, serial="TG-FTDI-1")
        return "return" in answer


def _text(path: Path) -> str:
    return path.read_text().strip()
