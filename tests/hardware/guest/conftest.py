"""The guest's own fixtures. Outside of the guest nothing here is collected: `make test-hardware` starts it."""

import os
from collections.abc import Iterator

import pytest
from qemu_ports import Adapter, Monitor
from usb_gadgets import Gadget, Gadgets

if os.environ.get("TILLGATE_GUEST") != "1":
    collect_ignore_glob = ["test_*.py"]


@pytest.fixture(scope="session")
def monitor() -> Iterator[Monitor]:
    with Monitor() as opened:
        yield opened


@pytest.fixture
def adapter(monitor: Monitor) -> Iterator[Adapter]:
    """The far end of QEMU's USB serial adapter, plugged in and silent."""
    with Adapter(monitor) as opened:
        yield opened


@pytest.fixture
def gadgets() -> Iterator[Gadgets]:
    made = Gadgets()
    yield made
    made.remove()


@pytest.fixture
def gadget(gadgets: Gadgets) -> Gadget:
    return gadgets.new("TG-0001")
