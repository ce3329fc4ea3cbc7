"""`make test-hardware`: the tests in guest/ against a real kernel with USB, in a virtual machine of its own.

QEMU emulates everything, the processor as well (a KVM that is there need not work, and a minute is short enough), and
boots Debian's kernel into the host's own tree, shared read-only: the guest runs the same Python, the same environment
and the same source as everything else, and can change none of it. Guest tests reach QEMU's monitor and the far end of
its USB serial adapter through virtio ports, so that a test can press a key, pull a plug and hear a beep by itself.

Ends with pytest's exit code. Where it cannot run, it says what is missing and how to get it, and ends with 0; with
HARDWARE_REQUIRED=1 with 1.
"""

import argparse
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from kit import KitFault, fetch, initramfs, kit
from source_tree import ROOT

QEMU = "qemu-system-x86_64"
LIMIT_S = 900  # the run takes about two minutes; a machine that is busy with other things may take several times that
# The kernel's tests of its ciphers were seen to hang an emulated processor for good. What hangs for two minutes ends.
HUNG = "cryptomgr.notests panic=-1 softlockup_panic=1 watchdog_thresh=60"
MEMORY = "1G"  # the tests need 300 MB; what the guest writes is in memory too


def main() -> int:
    options = argparse.ArgumentParser(prog="make test-hardware", description=__doc__.partition("\n")[0])
    options.add_argument("--fetch", action="store_true", help="only bring the kernel and the programs of the guest")
    options.add_argument("--keep", type=Path, help="where console.txt, junit.xml and dmesg.txt go")
    options.add_argument("pytest", nargs="*", help="words for pytest, after --")
    chosen = options.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by SIGTERM"))  # so that the machine ends with us
    try:
        if chosen.fetch:
            print(f"The guest of the hardware tests is in {fetch()}")
            return 0
        return _run(kit_or_reason(), chosen.pytest, chosen.keep)
    except KitFault as fault:
        required = os.environ.get("HARDWARE_REQUIRED") == "1"
        print(f"{'FAILED' if required or chosen.fetch else 'SKIPPED'}: hardware tests: {fault}")
        return int(required or chosen.fetch)


def kit_or_reason() -> Path:
    if not shutil.which(QEMU):
        raise KitFault(f"{QEMU} is not installed: sudo apt-get install qemu-system-x86")
    return kit()


def _run(parts: Path, words: list[str], keep: Path | None) -> int:
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="tillgate-hw-") as scratch:
        directory = Path(scratch)
        out = directory / "out"
        out.mkdir()
        guest = {
            "SHELL": "/bin/sh",
            "PROJECT": str(ROOT),
            "PYTHON": sys.executable,
            "KIT": str(parts),
            "PYTEST_WORDS": shlex.join(words),
        }
        (directory / "initramfs").write_bytes(initramfs(parts, guest))
        timed_out = _boot(parts, directory, out / "console.txt")
        if not timed_out and not (out / "started").exists():
            print("The guest hung before its tests began, as emulated processors rarely do; once more.")
            timed_out = _boot(parts, directory, out / "console.txt")
        code = int((out / "exit").read_text()) if (out / "exit").exists() else 1
        if keep:
            shutil.copytree(out, keep, dirs_exist_ok=True)
        if not (out / "exit").exists():
            why = f"no end within {LIMIT_S} s" if timed_out else "the guest ended before its tests did"
            print(f"FAILED: {why}; its console is above")
    print(f"hardware tests: exit code {code}, {time.monotonic() - began:.0f} s in all")
    return code


def _boot(parts: Path, directory: Path, console: Path) -> bool:
    """Show the guest's console until it is off. True: it had to be ended, because its time was up."""
    machine = subprocess.Popen(
        qemu_command(parts, directory), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    assert machine.stdout
    timed_out = threading.Event()
    watchdog = threading.Timer(LIMIT_S, lambda: (timed_out.set(), machine.kill()))
    watchdog.start()
    try:
        with open(console, "wb") as log:
            for line in machine.stdout:
                log.write(line)
                sys.stdout.write(line.decode("utf-8", "replace").replace("\r", ""))
                sys.stdout.flush()
    finally:
        watchdog.cancel()
        machine.kill()
        machine.wait()
    return timed_out.is_set()


def qemu_command(parts: Path, directory: Path) -> list[str]:
    def share(tag: str, path: str, more: str = "") -> list[str]:
        return [
            *("-fsdev", f"local,id={tag},path={path},security_model=none,multidevs=remap{more}"),
            *("-device", f"virtio-9p-pci,fsdev={tag},mount_tag={tag}"),
        ]

    def both_ends(name: str) -> list[str]:
        """A socket that QEMU listens on and connects to: the second end is a port of the guest."""
        return [
            *("-chardev", f"socket,id={name},path={directory / name},server=on,wait=off"),
            *("-chardev", f"socket,id={name}-port,path={directory / name}"),
            *("-device", f"virtserialport,chardev={name}-port,name={name}"),
        ]

    return [
        *("nice", "-n", "10", QEMU, "-machine", "q35,accel=tcg", "-cpu", "max", "-smp", "2", "-m", MEMORY),
        *("-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-serial", "stdio"),
        *("-kernel", str(parts / "vmlinuz"), "-initrd", str(directory / "initramfs")),
        *("-append", f"console=ttyS0 quiet loglevel=3 mitigations=off {HUNG}"),
        *share("host", "/", ",readonly=on"),
        *share("out", str(directory / "out")),
        *("-device", "virtio-serial-pci", "-device", "qemu-xhci,id=xhci"),
        *both_ends("monitor"),
        *("-mon", "chardev=monitor,mode=control"),
        *both_ends("adapter"),
        *("-device", "usb-serial,id=adapter,chardev=adapter,always-plugged=on,serial=TG-FTDI-1"),
    ]


if __name__ == "__main__":
    sys.exit(main())
