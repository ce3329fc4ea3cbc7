"""How the guest is put together, and what is said where that cannot be. The tests in it: `make test-hardware`."""

import gzip
import os
import subprocess
import sys
from pathlib import Path

import pytest
from kit import MODULES, KitFault, initramfs, modules_in_order
from source_tree import ROOT


def module(directory: Path, name: str, *depends: str) -> None:
    path = directory / "lib/modules/6.1/kernel" / f"{name}.ko"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"\x7fELF\0license=GPL\0depends=" + ",".join(depends).encode() + b"\0name=x\0")


def test_a_module_is_loaded_after_what_it_depends_on(tmp_path: Path) -> None:
    for name in MODULES:
        module(tmp_path, name, *{"hid-generic": ("hid",), "usbhid": ("hid", "usbcore")}.get(name, ()))
    module(tmp_path, "hid")
    (tmp_path / "modules.builtin").write_text("kernel/drivers/usb/core/usbcore.ko\n")
    names = [path.stem for path in modules_in_order(tmp_path)]
    assert names.index("hid") == names.index("hid-generic") - 1
    assert [name for name in names if name != "hid"] == list(MODULES)


def test_a_kernel_without_a_module_is_named(tmp_path: Path) -> None:
    with pytest.raises(KitFault, match="no module virtio_pci"):
        modules_in_order(tmp_path)


def test_the_archive_is_one_that_the_kernel_reads(tmp_path: Path) -> None:
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules/00-x").write_bytes(b"odd")
    (tmp_path / "busybox").write_bytes(b"program")
    octets = gzip.decompress(initramfs(tmp_path, {"PROJECT": "/a b'c"}))
    found, at = {}, 0
    while octets[at : at + 6] == b"070701":
        fields = [int(octets[at + 6 + 8 * i : at + 14 + 8 * i], 16) for i in range(13)]
        name = octets[at + 110 : at + 110 + fields[11] - 1].decode()
        start = at + (110 + fields[11] + 3) // 4 * 4
        found[name] = octets[start : start + fields[6]]
        at = start + (fields[6] + 3) // 4 * 4
    assert at == len(octets)
    assert (found["modules/00-x"], found["busybox"]) == (b"odd", b"program")
    assert found["settings"] == b"""PROJECT='/a b'"'"'c'\n"""
    assert found["init"].startswith(b"#!/busybox sh")
    assert list(found)[-1] == "TRAILER!!!"


@pytest.mark.parametrize(("required", "code", "word"), (("0", 0, "SKIPPED"), ("1", 1, "FAILED")))
def test_where_it_cannot_run_it_says_what_to_install(tmp_path: Path, required: str, code: int, word: str) -> None:
    environment = {**os.environ, "PATH": str(tmp_path), "HARDWARE_REQUIRED": required}
    command = [sys.executable, ROOT / "tests/hardware/run.py"]
    run = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert (run.returncode, run.stdout.partition(":")[0]) == (code, word), run
    assert "sudo apt-get install qemu-system-x86" in run.stdout
