"""`tillgate voucher`: issue, import, show and void, with files that are cut off, wrong, or come twice."""

import csv
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from cli_world import Shell, open_market, serving

from gateway.codes import Hashed, KeyRing, Signed, damm, typed_code
from gateway.keyfile import KeyFile


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    made = Shell(tmp_path_factory.mktemp("vouchers") / "data")
    assert made("init").code == 0
    with serving(made.data):
        open_market(made, made.data.parent)
        yield made


@pytest.fixture
def ring(shell: Shell) -> KeyRing:
    return KeyRing(KeyFile(shell.data).load())


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def issued(shell: Shell, kind: str) -> int:
    return int(shell.json("campaign", "show", "noodles")["issued"][kind])


# --- issue ---


def test_issued_codes_are_private_real_and_new(shell: Shell, ring: KeyRing, tmp_path: Path) -> None:
    out = tmp_path / "codes.csv"
    told = shell.json("voucher", "issue", "noodles", "--count", 25, "--out", out)
    rows = rows_of(out)
    assert [int(row["serial"]) for row in rows] == list(range(told["first_serial"], told["first_serial"] + 25))
    assert [ring.parse(row["code"]) for row in rows] == [Signed(1, int(row["serial"])) for row in rows]
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    assert os.listdir(tmp_path) == ["codes.csv"]


def test_an_issue_that_was_cut_off_goes_on_and_issues_nothing_twice(shell: Shell, tmp_path: Path) -> None:
    out, before = tmp_path / "codes.csv", issued(shell, "signed")
    whole = tmp_path / "whole.csv"
    request = ("--request-id", "the order of Monday")
    shell.json("voucher", "issue", "noodles", "--count", 40, "--out", whole, *request)
    content = whole.read_text()
    note = '{"campaign":"noodles","kind":"signed","count":40,"request_id":"the order of Monday"}'
    for part in ("", "serial,c", content[: len(content) // 2], content):
        (tmp_path / "codes.csv.part").write_text(part)
        (tmp_path / "codes.csv.request").write_text(note)
        assert shell("voucher", "issue", "noodles", "--count", 40, "--out", out).code == 0
        assert out.read_text() == content
        out.unlink()
    assert issued(shell, "signed") == before + 40


def test_an_issue_does_not_write_over_anything(shell: Shell, tmp_path: Path) -> None:
    out = tmp_path / "codes.csv"
    out.write_text("mine")
    told = shell("voucher", "issue", "noodles", "--count", 1, "--out", out)
    assert told.code == 1
    assert f"{out} exists already" in told.err
    assert out.read_text() == "mine"
    (tmp_path / "other.csv.request").write_text('{"campaign":"tea","kind":"signed","count":9,"request_id":"r"}')
    told = shell("voucher", "issue", "noodles", "--count", 1, "--out", tmp_path / "other.csv")
    assert told.code == 1
    assert "unfinished issue of 9 signed codes of tea" in told.err


@pytest.mark.parametrize("flags", ((), ("--typed",)))
def test_an_issue_that_is_refused_leaves_no_files(shell: Shell, tmp_path: Path, flags: tuple[str, ...]) -> None:
    told = shell("voucher", "issue", "nothing", "--count", 1, "--out", tmp_path / "codes.csv", *flags)
    assert told.code == 1
    assert "no campaign 'nothing'" in told.err
    assert os.listdir(tmp_path) == []


def test_typed_codes_are_sixteen_digits_and_can_be_looked_up(shell: Shell, ring: KeyRing, tmp_path: Path) -> None:
    out = tmp_path / "typed.csv"
    told = shell.json("voucher", "issue", "noodles", "--count", 30, "--out", out, "--typed")
    assert (told["accepted"], told["repeated"]) == (30, 0)
    codes = [row["code"] for row in rows_of(out)]
    assert len(set(codes)) == 30
    assert all(len(code) == 16 and code.isdigit() and damm(code) == 0 for code in codes)
    assert all(isinstance(ring.parse(code), Hashed) for code in codes)
    shown = shell.json("voucher", "show", "--code", "-", stdin=codes[7] + "\n")
    assert (shown["kind"], shown["state"]) == ("typed", "unused")


def test_typed_codes_that_were_drawn_but_not_all_registered_are_registered_by_the_next_run(
    shell: Shell, tmp_path: Path
) -> None:
    out = tmp_path / "typed.csv"
    codes = [typed_code(10**14 + n) for n in range(5)]
    out.write_text("code\n" + "".join(f"{code}\n" for code in codes))
    (tmp_path / "typed.csv.request").write_text('{"campaign":"noodles","kind":"typed","count":5,"request_id":"r"}')
    told = shell.json("voucher", "issue", "noodles", "--count", 5, "--out", out, "--typed")
    assert told["accepted"] == 5
    assert [row["code"] for row in rows_of(out)] == codes
    assert os.listdir(tmp_path) == ["typed.csv"]


# --- import ---


def test_an_import_says_what_became_of_every_line_and_a_second_one_repeats_nothing(
    shell: Shell, tmp_path: Path
) -> None:
    file, bad_digit = tmp_path / "partner.txt", typed_code(77)[:-1] + str((int(typed_code(77)[-1]) + 1) % 10)
    good = [f"PARTNER-{n:05d}" for n in range(1500)]
    lines = [*good[:700], "T1SHORT", bad_digit, good[3], "", *good[700:], "caf\udce9"]
    file.write_bytes("\n".join(lines).encode("utf-8", "surrogateescape"))
    before = issued(shell, "foreign")

    dry = shell("voucher", "import", "noodles", file, "--dry-run", "--json")
    assert dry.code == 3
    assert (dry.json["importable"], dry.json["rejected"]) == (1500, 4)
    assert issued(shell, "foreign") == before

    for accepted, repeated in ((1500, 0), (0, 1500)):
        told = shell("voucher", "import", "noodles", file, "--json")
        assert told.code == 3
        assert (told.json["accepted"], told.json["repeated"], told.json["rejected"]) == (accepted, repeated, 4)
        assert issued(shell, "foreign") == before + 1500
    rejects = tmp_path / "partner.txt.rejects.csv"
    assert [(row["line"], row["reason"]) for row in rows_of(rejects)] == [
        ("701", "begins with T1, which is reserved for signed codes"),
        ("702", "check digit does not match: one of the 16 digits is wrong"),
        ("703", "has the same code as line 4"),
        ("1505", "is not text in UTF-8"),
    ]
    assert stat.S_IMODE(rejects.stat().st_mode) == 0o600
    assert not any(text in told.out + told.err + rejects.read_text() for text in ("T1SHORT", bad_digit, good[3]))


def test_a_code_of_another_campaign_is_rejected_by_its_line(shell: Shell, tmp_path: Path) -> None:
    shell("campaign", "create", "tea", "--file", shell.data.parent / "offer.toml", "--title", "Tea")
    first, second = tmp_path / "first.csv", tmp_path / "second.csv"
    first.write_text("coupon_no\nSHARED-1\n")
    second.write_text("coupon_no\nOWN-1\nSHARED-1\n")
    assert shell("voucher", "import", "noodles", first, "--column", "Coupon_No").code == 0
    told = shell("voucher", "import", "tea", second, "--column", "coupon_no", "--json")
    assert (told.code, told.json["accepted"], told.json["rejected"]) == (3, 1, 1)
    (reject,) = rows_of(Path(told.json["rejects"]))
    assert reject["line"] == "3"
    assert "another campaign" in reject["reason"]


def test_long_codes_are_sent_in_requests_that_fit(shell: Shell, tmp_path: Path) -> None:
    file = tmp_path / "long.txt"
    separators = "\x1d" * 4000  # JSON writes each of them with six letters
    file.write_text("".join(f"{n:04d}{separators}x\n" for n in range(300)))
    assert shell.json("voucher", "import", "noodles", file)["accepted"] == 300


def test_a_file_that_is_not_there_is_named(shell: Shell, tmp_path: Path) -> None:
    told = shell("voucher", "import", "noodles", tmp_path / "none.csv")
    assert told.code == 1
    assert f"{tmp_path / 'none.csv'}: No such file" in told.err


# --- show and void ---


def test_a_voided_voucher_says_so_and_cannot_be_voided_by_a_wrong_id(shell: Shell, tmp_path: Path) -> None:
    out = tmp_path / "codes.csv"
    first = shell.json("voucher", "issue", "noodles", "--count", 2, "--out", out)["first_serial"]
    assert shell.json("voucher", "void", f"1-{first}", "--reason", "printed twice")["verdict"] == "voided"
    assert shell.json("voucher", "void", f"1-{first}", "--reason", "again")["verdict"] == "voided"
    shown = shell.json("voucher", "show", f"1-{first}")
    assert (shown["state"], shown["holder"]["kind"]) == ("voided", "voided")
    assert shell.json("voucher", "show", f"1-{first + 1}")["state"] == "unused"
    for wrong in ("1-99999999", "xx", "1-"):
        assert shell("voucher", "void", wrong, "--reason", "x").code == 1
    assert "printed twice" in shell("log", "tail", "-n", 20, "--json").out


def test_a_file_of_codes_is_voided_line_by_line(shell: Shell, tmp_path: Path) -> None:
    out = tmp_path / "codes.csv"
    first = shell.json("voucher", "issue", "noodles", "--count", 40, "--out", out)["first_serial"]
    with out.open("a") as file:
        file.write("0,T1NOCODE\n9,NOBODYS-CODE\n")
    for _ in range(2):
        told = shell("voucher", "void", "--codes", out, "--reason", "leaked", "--json")
        assert (told.code, told.json["voided"], told.json["rejected"]) == (3, 40, 2)
    assert [row["line"] for row in rows_of(Path(told.json["rejects"]))] == ["42", "43"]
    assert "T1NOCODE" not in Path(told.json["rejects"]).read_text()
    assert shell.json("voucher", "show", f"1-{first + 39}")["state"] == "voided"
    ids = tmp_path / "ids.txt"
    ids.write_text(f"1-{first}\n")
    assert shell.json("voucher", "void", "--ids", ids, "--reason", "x")["voided"] == 1


def test_a_code_never_stands_on_the_command_line(shell: Shell) -> None:
    told = shell("voucher", "show", "--code", "T1ABC")
    assert told.code == 2
    assert "--code -" in told.err
    assert "T1ABC" not in told.err
    assert shell("voucher", "show", "--code", "-").code == 2, "standard input is empty"
    assert shell("voucher", "void", "1-1", "--code", "-", "--reason", "x").code == 2, "one way to name a voucher"
    assert shell("voucher", "show").code == 2
