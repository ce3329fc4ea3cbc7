"""What the guest is made of: Debian's stock kernel, its modules, busybox and udev, taken out of their packages.

Nothing is installed and nothing needs root: `apt-get download` checks the signatures, `dpkg-deb` unpacks, and the few
files that the guest needs are kept in the user's cache (`~/.cache/tillgate/hardware`, about 25 MB). The kernel of the
machine itself would do for nobody: a container has none, and a cloud kernel has no USB gadgets.
"""

import gzip
import lzma
import os
import re
import shlex
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from source_tree import ROOT

FORMAT = "1"  # of the directory below; another one is unpacked anew
KERNEL_META = "linux-image-amd64"
SMALL_PACKAGES = ("busybox-static", "udev", "libkmod2")
MODULES = (  # loaded in this order, each after those it depends on; the value is what insmod gets behind the name
    *("virtio_pci", "9pnet_virtio", "9p", "overlay", "virtio_console"),
    *("evdev", "uinput", "uhid", "hid-generic", "usbhid", "xhci-pci"),
    *("libcomposite", "usb_f_acm", "usb_f_hid", "cdc-acm", "ftdi_sio", "vivid", "dummy_hcd"),
)
PARAMETERS = {"dummy_hcd": "num=4", "vivid": "n_devs=1 node_types=0x1 num_inputs=1 input_types=0"}
UDEV_RULES = ("50-udev-default", "60-evdev", "60-input-id", "60-persistent-input", "60-persistent-v4l", "60-serial")


class KitFault(Exception):
    """The guest cannot be put together here; the text says what is missing and the command that brings it."""


def cache_directory() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tillgate" / "hardware"


def kit() -> Path:
    """The newest kit in the cache; unpacked now if there is none. Raises `KitFault`."""
    found = sorted(path.parent for path in cache_directory().glob(f"{FORMAT}-*/complete"))
    return found[-1] if found else fetch()


def fetch() -> Path:
    """Download the packages that are current now, and keep what is needed of them."""
    kernel = _newest_kernel()
    wanted = cache_directory() / f"{FORMAT}-{kernel}"
    if (wanted / "complete").exists():
        return wanted
    print(f"Downloading {kernel} (70 MB), {', '.join(SMALL_PACKAGES)} into {wanted} (once) ...", flush=True)
    wanted.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=wanted.parent) as scratch:
        _download(Path(scratch), kernel, *SMALL_PACKAGES)
        made = Path(scratch) / "kit"
        _pick(Path(scratch) / "root", made)
        shutil.rmtree(wanted, ignore_errors=True)
        made.rename(wanted)
    return wanted


def _newest_kernel() -> str:
    if not (shutil.which("apt-cache") and shutil.which("dpkg-deb")):
        raise KitFault("it needs the kernel of Debian: apt-get and dpkg-deb are not here")
    depends = subprocess.run(["apt-cache", "depends", KERNEL_META], capture_output=True, text=True, check=False).stdout
    found = re.search(r"Depends: (linux-image-\d\S+)", depends)
    if not found:
        raise KitFault(f"apt knows no package {KERNEL_META}: on Debian, `sudo apt-get update`")
    return found[1]


def _download(scratch: Path, *packages: str) -> None:
    run = subprocess.run(["apt-get", "download", *packages], cwd=scratch, capture_output=True, text=True, check=False)
    if run.returncode:
        raise KitFault(f"`apt-get download {' '.join(packages)}` failed: {run.stderr.strip()}")
    for package in sorted(scratch.glob("*.deb")):
        subprocess.run(["dpkg-deb", "-x", package, scratch / "root"], check=True)


def _pick(root: Path, made: Path) -> None:
    for directory in ("modules", "udev/rules.d"):
        (made / directory).mkdir(parents=True)
    shutil.copy(next(root.glob("boot/vmlinuz-*")), made / "vmlinuz")
    for number, path in enumerate(modules_in_order(root)):
        octets = lzma.decompress(path.read_bytes()) if path.suffix == ".xz" else path.read_bytes()
        (made / "modules" / f"{number:02}-{_name_of(path)}").write_bytes(octets)
    for pattern, name in (
        ("bin/busybox", "busybox"),
        ("bin/udevadm", "udev/udevadm"),
        ("*/libkmod.so.2", "udev/libkmod.so.2"),
    ):
        shutil.copy(next(path for path in root.rglob(pattern) if path.is_file()), made / name)
    (made / "udev" / "systemd-udevd").symlink_to("udevadm")  # one program; its name says which
    for name in UDEV_RULES:
        shutil.copy(next(root.rglob(f"{name}.rules")), made / "udev" / "rules.d")
    (made / "complete").touch()


def modules_in_order(root: Path) -> list[Path]:
    """Files of all MODULES and what they depend on, each after its dependencies, which stand in its `.modinfo`."""
    files = {_name_of(path): path for pattern in ("*.ko", "*.ko.xz") for path in root.rglob(pattern)}
    built_in = {_name_of(Path(line)) for path in root.rglob("modules.builtin") for line in path.read_text().split()}
    ordered: dict[str, Path] = {}

    def add(name: str) -> None:
        if name in ordered or name in built_in:
            return
        if name not in files:
            raise KitFault(f"this kernel has no module {name}")
        for needed in _depends_of(files[name]):
            add(needed)
        ordered[name] = files[name]

    for name in MODULES:
        add(name.replace("-", "_"))
    return list(ordered.values())


def _name_of(path: Path) -> str:
    return path.name.partition(".ko")[0].replace("-", "_")


def _depends_of(module: Path) -> list[str]:
    octets = lzma.decompress(module.read_bytes()) if module.suffix == ".xz" else module.read_bytes()
    found = re.search(rb"\0depends=([^\0]*)\0", octets)
    return found[1].decode().replace("-", "_").split(",") if found and found[1] else []


def initramfs(kit: Path, environment: dict[str, str]) -> bytes:
    """A compressed archive: init.sh, busybox, the modules, and `environment` as shell variables that init.sh reads."""
    settings = "".join(f"{name}={shlex.quote(text)}\n" for name, text in environment.items())
    entries = [(name, stat.S_IFDIR | 0o755, b"") for name in ("modules", "dev", "proc", "host", "upper", "tree")]
    entries += [
        ("init", stat.S_IFREG | 0o755, (ROOT / "tests/hardware/init.sh").read_bytes()),
        ("busybox", stat.S_IFREG | 0o755, (kit / "busybox").read_bytes()),
        ("settings", stat.S_IFREG | 0o644, settings.encode()),
        ("parameters", stat.S_IFREG | 0o644, "".join(f"{n} {p}\n" for n, p in PARAMETERS.items()).encode()),
    ]
    for path in sorted((kit / "modules").iterdir()):
        entries.append((f"modules/{path.name}", stat.S_IFREG | 0o644, path.read_bytes()))
    return gzip.compress(b"".join(_cpio(entries)), compresslevel=1)


def _cpio(entries: list[tuple[str, int, bytes]]) -> Iterator[bytes]:
    """The `newc` format: kernel documentation, driver-api/early-userspace/buffer-format."""
    for number, (name, mode, octets) in enumerate([*entries, ("TRAILER!!!", 0, b"")], 1):
        fields = (number, mode, 0, 0, 1, 0, len(octets), 0, 0, 0, 0, len(name) + 1, 0)
        head = b"070701" + b"".join(b"%08x" % field for field in fields) + name.encode() + b"\0"
        yield head + bytes(-len(head) % 4)
        yield octets + bytes(-len(octets) % 4)
