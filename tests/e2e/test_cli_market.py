"""`tillgate merchant`, `store`, `alliance`, `campaign`, `terminal`: who takes part, in what, and with which device."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from cli_world import OFFER, Shell, open_market, serving, spawn, tillgate

from gateway.keyfile import read_secret


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    made = Shell(tmp_path_factory.mktemp("market") / "data")
    assert made("init").code == 0
    with serving(made.data):
        open_market(made, made.data.parent)
        yield made


def test_parties_are_listed_as_they_were_added(shell: Shell) -> None:
    assert shell("merchant", "add", "tea-house", "--title", "茶馆 Tea House").code == 0
    assert shell("alliance", "define", "east-side", "noodle-king", "tea-house").code == 0
    assert {row["merchant"] for row in shell.json("merchant", "list")} >= {"noodle-king", "tea-house"}
    assert shell.json("alliance", "list") == [{"alliance": "east-side", "merchants": ["noodle-king", "tea-house"]}]
    assert shell.json("store", "list")[0] == {"store": "nk-1", "merchant": "noodle-king", "title": "Noodle King 1"}
    table = shell("merchant", "list").out.splitlines()
    assert table[0].split() == ["merchant", "title"]
    assert "tea-house    茶馆 Tea House" in table


def test_what_the_gateway_refuses_is_told_by_field(shell: Shell) -> None:
    for args, said in (
        (("merchant", "add", "noodle-king", "--title", "Again"), "merchant: noodle-king exists already"),
        (("store", "open", "x-1", "--merchant", "nobody", "--title", "X"), "merchant: there is no merchant 'nobody'"),
        (("alliance", "define", "west", "nobody"), "merchants[0]: there is no merchant 'nobody'"),
        (("campaign", "show", "no/such?campaign"), "there is no campaign 'no/such?campaign'"),
        (("terminal", "offer", "--store", "nowhere", "--label", "x"), "store: there is no store 'nowhere'"),
    ):
        told = shell(*args)
        assert (told.code, told.out) == (1, "")
        assert said in told.err


# --- campaigns ---


def test_a_campaign_from_a_file_with_a_flag_over_it_and_its_whole_life(shell: Shell, tmp_path: Path) -> None:
    file = tmp_path / "offer.toml"
    file.write_text(OFFER)
    made = shell.json(
        *("campaign", "create", "soup", "--file", file, "--value", "3.00 CNY", "--store", "nk-1"),
        *("--dispute", "0s", "--reversal-window", "0s"),
    )
    assert (made["state"], made["offer"]["value_minor"], made["offer"]["title"]) == ("open", 300, "Autumn noodles")
    for verb, state in (("pause", "paused"), ("resume", "open"), ("close", "closed"), ("purge", "purged")):
        assert shell.json("campaign", verb, "soup")["state"] == state
        assert shell.json("campaign", "show", "soup")["state"] == state
    told = shell("campaign", "resume", "soup")
    assert told.code == 1
    assert "soup is closed" in told.err
    assert {row["slug"]: row["state"] for row in shell.json("campaign", "list")}["soup"] == "purged"


def test_a_campaign_is_shown_to_people_in_their_units(shell: Shell) -> None:
    lines = dict(line.split(maxsplit=1) for line in shell("campaign", "show", "noodles").out.splitlines())
    assert lines["reversal_window"] == "15m"
    assert lines["dispute"] == "90d"
    assert lines["starts"] == "2024-12-31 16:00:00Z"
    assert lines["issued"] == "signed 0, typed 0, foreign 0"


@pytest.mark.parametrize(
    ("text", "said"),
    (
        (OFFER.replace("kind", "sort"), "sort: unknown field"),
        (OFFER.replace('"12.50 CNY"', "12.5"), "value: must be text like"),
        (OFFER + "offline = { count = 1, value = '1.00 CNY' }\n", "offline.minutes: is missing"),
        (OFFER.replace("=", ":", 1), "is not TOML: "),
    ),
)
def test_a_fault_in_the_file_is_named_with_the_file(shell: Shell, tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "offer.toml"
    file.write_text(text)
    told = shell("campaign", "create", "bad", "--file", file)
    assert told.code == 2
    assert str(file) in told.err
    assert said in told.err


def test_a_fault_in_a_flag_is_named_as_the_flag(shell: Shell, tmp_path: Path) -> None:
    file = tmp_path / "offer.toml"
    file.write_text(OFFER)
    told = shell("campaign", "create", "bad", "--file", file, "--time-zone", "Mars/Olympus")
    assert told.code == 2
    assert "--time-zone: must be an IANA time zone" in told.err
    assert "line 2" in tillgate("campaign", "create", "bad", "--file", _broken(tmp_path)).err


def _broken(directory: Path) -> Path:
    file = directory / "broken.toml"
    file.write_text("title = 'x'\nkind = \n")
    return file


# --- terminals ---


def test_a_terminal_enrols_once_is_listed_and_is_revoked(shell: Shell, tmp_path: Path) -> None:
    offered = shell.json("terminal", "offer", "--store", "nk-1", "--label", "till 1")
    url = json.loads((shell.data / "gateway.json").read_text())["url"]
    config = tmp_path / "till" / "terminal.toml"
    told = tillgate(
        *("terminal", "enrol", "--url", url, "--token", "-", "--config", config, "--json"),
        stdin=offered["token"] + "\n",
    )
    assert told.json["terminal"] == offered["terminal"]
    assert f"terminal = {offered['terminal']}" in config.read_text()
    assert read_secret(config.parent / "terminal-state" / "device.key")
    again = tillgate("terminal", "enrol", "--url", url, "--token", offered["token"], "--config", tmp_path / "b.toml")
    assert again.code == 1
    assert offered["token"] not in again.err
    rows = {row["terminal"]: row for row in shell.json("terminal", "list")}
    assert rows[offered["terminal"]]["enrolled"] is True
    assert shell.json("terminal", "revoke", offered["terminal"])["revoked"] is True
    assert "is revoked" in shell("terminal", "unlock", offered["terminal"]).err


def test_an_offer_can_be_scanned_from_the_screen(shell: Shell) -> None:
    told = shell("terminal", "offer", "--store", "nk-1", "--label", "till 2", "--qr", "--json")
    lines = told.err.splitlines()
    assert told.json["token"].startswith("te_")
    assert len({len(line) for line in lines}) == 1
    assert set("".join(lines)) == set("█▀▄ ")


def test_a_terminal_without_a_configuration_says_so(tmp_path: Path) -> None:
    process = spawn("terminal", "--config", tmp_path / "none.toml")
    _, err = process.communicate(timeout=20)
    assert process.returncode == 1
    assert f"{tmp_path / 'none.toml'}: No such file" in err
