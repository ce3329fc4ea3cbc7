"""The console's files: third-party ones as recorded, objectives as promised, texts in both languages."""

import importlib.util
import re
import tomllib
from pathlib import Path

from source_tree import ROOT

from gateway.console_board import FAST_S, OBJECTIVES, TAIL_S
from gateway.console_files import IMPORTS, Files
from gateway.console_system import shown
from gateway.settings import Config

CONSOLE = ROOT / "gateway" / "console"


def test_third_party_files_are_the_ones_that_were_taken_in() -> None:
    spec = importlib.util.spec_from_file_location("vendor_console", ROOT / "ops" / "vendor_console.py")
    assert spec is not None
    assert spec.loader is not None
    vendor = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(vendor)
    assert vendor.faults() == []
    for name in ("preact", "htm", "uplot"):
        assert (CONSOLE / "vendor" / f"{name}.LICENSE").stat().st_size > 1000


def test_the_budgets_shown_are_those_that_are_promised() -> None:
    promised = tomllib.loads((ROOT / "ops" / "slo.toml").read_text())
    fast, tail = promised["latency"]
    assert OBJECTIVES["availability"] == promised["availability"]["objective"]
    assert (OBJECTIVES["fast"], FAST_S) == (fast["objective"], fast["seconds"])
    assert (OBJECTIVES["tail"], TAIL_S) == (tail["objective"], tail["seconds"])


def _scripts() -> list[Path]:
    return sorted(CONSOLE.glob("*.js"))


def test_every_text_is_there_in_both_languages() -> None:
    source = (CONSOLE / "i18n.js").read_text()
    rows = re.findall(r'(\w+): \["((?:[^"\\]|\\.)*)",\s*"((?:[^"\\]|\\.)*)"\]', source)
    texts = {name: (english, chinese) for name, english, chinese in rows}
    assert len(texts) > 200
    for name, (english, chinese) in texts.items():
        assert sorted(re.findall(r"\{\d\}", english)) == sorted(re.findall(r"\{\d\}", chinese)), name
    used = {name for path in _scripts() for name in re.findall(r'\bt\("(\w+)"', path.read_text())}
    assert used - texts.keys() == set()


def test_no_script_makes_markup_of_text() -> None:
    for path in _scripts():
        found = re.findall(
            r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|dangerously|\beval\b", path.read_text()
        )
        assert not found, f"{path.name}: {found}"


def test_nothing_is_loaded_from_elsewhere() -> None:
    for path in (*_scripts(), CONSOLE / "index.html", CONSOLE / "style.css"):
        assert not re.findall(r"https?://|@import|url\(", path.read_text()), path.name
    assert {CONSOLE / at for at in IMPORTS.values()} <= set(CONSOLE.rglob("*.mjs"))
    assert "script-src 'self' 'sha256-" in Files().policy


def test_every_setting_is_shown_and_none_is_a_secret() -> None:
    rows = shown(Config())
    assert rows["server.port"] == "8080"
    assert not [key for key in rows if re.search(r"password$|token|secret", key)], (
        "a secret is set by the path of a file"
    )
