"""The udev rules of scanners: each line well formed as udev(7) has it, nobody else let in, and every jump has an end.

`udevadm verify` (systemd 254 and later) reads them as well where it is there.
"""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

DIRECTORY = Path(__file__).parents[2] / "ops" / "udev"
RULES = sorted(DIRECTORY.glob("*.rules"))
GROUP = "tillgate-scanners"
PAIR = re.compile(r'([A-Z]+(?:\{[^}]+\})?)(==|!=|\+=|-=|:=|=)"([^"]*)"')
MATCHED = {
    "ACTION",
    "DEVPATH",
    "KERNEL",
    "KERNELS",
    "SUBSYSTEM",
    "SUBSYSTEMS",
    "DRIVERS",
    "ATTR",
    "ATTRS",
    "ENV",
    "TAG",
}
ASSIGNED = {"NAME", "SYMLINK", "OWNER", "GROUP", "MODE", "ENV", "TAG", "LABEL", "GOTO", "IMPORT", "OPTIONS"}

Pair = tuple[str, str, str]


def lines(path: Path, *, examples: bool = False) -> list[tuple[int, list[Pair]]]:
    """Number and pairs of each rule; `examples`: of those that are commented out."""
    found = []
    for number, line in enumerate(path.read_text().splitlines(), 1):
        mark = "# " if examples else ""
        text = line.removeprefix(mark)
        if line.startswith(mark) and not text.startswith("#") and "=" in text and text[:1].isupper() and '"' in text:
            found.append((number, pairs(text)))
        else:
            assert examples or not line.strip() or line.startswith("#"), f"{path.name}:{number} is no rule"
    return found


def pairs(text: str) -> list[Pair]:
    parts = [PAIR.fullmatch(part.strip()) for part in re.split(r',(?=(?:[^"]*"[^"]*")*[^"]*$)', text)]
    assert all(parts), f"not well formed: {text}"
    return [(part[1], part[2], part[3]) for part in parts if part]


EVERY = [(path, number, rule) for path in RULES for ex in (False, True) for number, rule in lines(path, examples=ex)]


def test_there_are_rules_before_those_of_the_seat() -> None:
    assert [path.name for path in RULES] == ["70-tillgate-scanners.rules"]
    assert len(EVERY) > 10


@pytest.mark.parametrize(("path", "number", "rule"), EVERY, ids=lambda value: str(value) if value is int else None)
def test_each_rule_is_well_formed(path: Path, number: int, rule: list[Pair]) -> None:
    for key, operator, value in rule:
        name = key.partition("{")[0]
        assert name in (MATCHED if operator in ("==", "!=") else ASSIGNED), key
        if "idVendor" in key or "idProduct" in key:
            assert re.fullmatch(r"[0-9a-f]{4}(\|[0-9a-f]{4})*", value), "sysfs has four lower-case digits"
        if name == "KERNELS":
            assert re.fullmatch(r"[0-9A-F:*|]+", value), "names of HID devices have capitals"
    does = [operator for _, operator, _ in rule if operator not in ("==", "!=")]
    assert does, f"{path.name}:{number} does nothing"


def test_nobody_else_is_let_in() -> None:
    for _, number, rule in EVERY:
        assigned = {key: value for key, operator, value in rule if operator == "="}
        assert assigned.get("MODE", "0660") == "0660", number
        assert assigned.get("GROUP", GROUP) == GROUP, number
        assert ("MODE" in assigned) == ("GROUP" in assigned), number
        assert not any(key == "TAG" and value == "uaccess" for key, _, value in rule), "whoever sits at the screen"


@pytest.mark.parametrize("subsystem", ("hidraw", "input", "tty"))
def test_every_kind_of_node_gets_its_group_and_links(subsystem: str) -> None:
    rules = [rule for _, _, rule in EVERY if ("SUBSYSTEM", "==", subsystem) in rule]
    assert any(("GROUP", "=", GROUP) in rule for rule in rules)
    links = [value for rule in rules for key, operator, value in rule if (key, operator) == ("SYMLINK", "+=")]
    assert [link.rpartition("{")[2] for link in links] == ["ID_SERIAL}", "ID_PATH}"], "two alike have their sockets"


def test_modems_and_desktops_leave_them_alone() -> None:
    assigned = {(key, value) for _, _, rule in EVERY for key, operator, value in rule if operator == "="}
    assert {"ENV{ID_MM_DEVICE_IGNORE}", "ENV{ID_MM_PORT_IGNORE}", "ENV{LIBINPUT_IGNORE_DEVICE}"} <= {
        k for k, _ in assigned
    }


@pytest.mark.parametrize("path", RULES, ids=lambda path: path.name)
def test_every_jump_has_an_end_behind_it(path: Path) -> None:
    ends = {value: number for number, rule in lines(path) for key, _, value in rule if key == "LABEL"}
    jumps = [(value, number) for number, rule in lines(path) for key, _, value in rule if key == "GOTO"]
    assert jumps
    assert all(number < ends[label] for label, number in jumps)


def test_the_deployment_makes_the_group() -> None:
    operations = DIRECTORY.parent
    assert f"g {GROUP} " in (operations / "systemd" / "tillgate.sysusers").read_text()
    assert GROUP in (operations / "systemd" / "tillgate-terminal.service").read_text()


def test_udevadm_agrees() -> None:
    udevadm = shutil.which("udevadm")
    known = udevadm and "verify" in subprocess.run([udevadm, "--help"], capture_output=True, text=True).stdout
    if udevadm and known:
        run = subprocess.run([udevadm, "verify", "--resolve-names=never", *RULES], capture_output=True, text=True)
        assert run.returncode == 0, run.stdout + run.stderr
