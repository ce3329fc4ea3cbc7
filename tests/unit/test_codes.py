"""Signed, typed and foreign codes: format, noise, refusals, and what must never leak."""

import base64
import re
from hashlib import blake2b

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from gateway.codes import (
    CAMPAIGN_MAX,
    SERIAL_MAX,
    CodeKeys,
    Hashed,
    KeyRing,
    Refused,
    Signed,
    damm,
    import_spelling,
    normalise,
    typed_code,
)
from gateway.messages import CODE_CHARS_MAX, Verdict

OLD, NEW, RETIRED = 3, 200, 9
KEYS = CodeKeys(keys={OLD: b"o" * 32, NEW: b"n" * 32}, active=NEW, pepper=b"p" * 32, retired=frozenset({RETIRED}))
RING = KeyRing(KEYS)
ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUV"
WHYS = re.compile(  # every refusal in words; nothing else, so no part of a code, can stand in one
    r"the scan is empty"
    r"|has \d+ characters, at most 4296 are allowed"
    r"|has \d+ characters, 34 expected: (some are missing|there are too many)"
    r"|character \d+ is a control or invisible character"
    r"|character \d+ is not a letter or digit of this code \(0-9, A-V\)"
    r"|check digit does not match: one of the 16 digits is wrong"
    r"|signature does not match"
    r"|unknown key id \d{1,3}"
    r"|key id \d{1,3} is retired"
)

key_ids = st.sampled_from([OLD, NEW])
campaigns = st.integers(0, CAMPAIGN_MAX)
serials = st.integers(0, SERIAL_MAX)


def one(campaign: int, serial: int, key_id: int = NEW) -> str:
    (code,) = RING.mint(key_id, campaign, serial, 1)
    return code


def signed_by_hand(key_id: int, key: bytes, campaign: int, serial: int) -> str:
    """The format once more, from its description and the standard library's own base32hex."""
    body = bytes((key_id,)) + campaign.to_bytes(4, "big") + serial.to_bytes(5, "big")
    mac = blake2b(body, key=key, digest_size=10, person=b"tillgate-sign-1").digest()
    return "T1" + base64.b32hexencode(body + mac).decode()


def hashed(text: str) -> bytes:
    return blake2b(text.encode(), key=KEYS.pepper, digest_size=16, person=b"tillgate-code-1").digest()


# --- signed ---------------------------------------------------------------------------------------


def test_signed_golden() -> None:
    assert one(7, 123456) == "T1P000000700003OI0GBEIHF61MT4HLVMF"
    assert RING.parse("T1P000000700003OI0GBEIHF61MT4HLVMF") == Signed(7, 123456)


@given(key_ids, campaigns, serials)
@example(OLD, 0, 0)
@example(NEW, CAMPAIGN_MAX, SERIAL_MAX)
def test_parse_of_mint_is_the_same(key_id: int, campaign: int, serial: int) -> None:
    code = one(campaign, serial, key_id)
    assert code == signed_by_hand(key_id, KEYS.keys[key_id], campaign, serial)
    assert RING.parse(code) == Signed(campaign, serial)


def test_mint_counts_up_and_stops() -> None:
    codes = list(RING.mint(OLD, 5, 1020, 10))
    assert [RING.parse(code) for code in codes] == [Signed(5, serial) for serial in range(1020, 1030)]
    assert list(RING.mint(OLD, 5, SERIAL_MAX, 1)) == [one(5, SERIAL_MAX, OLD)]
    assert list(RING.mint(OLD, 5, 7, 0)) == []


@pytest.mark.parametrize(
    ("key_id", "campaign", "first", "count", "words"),
    (
        (RETIRED, 1, 0, 1, "code key 9 is not live"),
        (-1, 1, 0, 1, "code key -1 is not live"),
        (256, 1, 0, 1, "code key 256 is not live"),
        (NEW, CAMPAIGN_MAX + 1, 0, 1, "campaign 4294967296 is not in"),
        (NEW, -1, 0, 1, "campaign -1 is not in"),
        (NEW, 1, SERIAL_MAX, 2, "2 serials from 1099511627775 on do not fit"),
        (NEW, 1, -1, 1, "1 serials from -1 on do not fit"),
        (NEW, 1, 0, -1, "-1 serials from 0 on do not fit"),
    ),
)
def test_mint_refuses_before_the_first_code(key_id: int, campaign: int, first: int, count: int, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        RING.mint(key_id, campaign, first, count)


def test_every_single_substitution_fails() -> None:
    code = one(7, 123456)
    for place, right in enumerate(code):
        for wrong in ALPHABET.replace(right, ""):
            found = RING.parse(code[:place] + wrong + code[place + 1 :])
            if place < 2:
                assert isinstance(found, Hashed)  # no longer begins with T1: a foreign code nobody imported
            else:
                assert isinstance(found, Refused)
                assert found.verdict is Verdict.FORGED


@given(campaigns, serials, st.integers(0, 33), st.characters())
def test_any_other_character_anywhere_never_verifies(campaign: int, serial: int, place: int, other: str) -> None:
    code = one(campaign, serial)
    changed = code[:place] + other + code[place + 1 :]
    assume(normalise(changed).upper() != code)  # the same character in lower case or full width is the same
    assert not isinstance(RING.parse(changed), Signed)


@given(campaigns, serials, st.integers(2, 33), st.sampled_from(["_", " ", "+", "-", "\u0664", "\uff3f"]))
def test_what_int_would_tolerate_is_refused(campaign: int, serial: int, place: int, extra: str) -> None:
    code = one(campaign, serial)
    for changed in (code[:place] + extra + code[place:], code[:place] + extra + code[place + 1 :]):
        if normalise(changed) != code:  # a blank at the very end is noise
            assert isinstance(RING.parse(changed), Refused)


@pytest.mark.parametrize(
    ("text", "verdict", "why"),
    (
        ("T1", Verdict.UNREADABLE, "has 2 characters, 34 expected: some are missing"),
        ("T1" + "A" * 31, Verdict.UNREADABLE, "has 33 characters, 34 expected: some are missing"),
        ("T1" + "A" * 33, Verdict.UNREADABLE, "has 35 characters, 34 expected: there are too many"),
        (
            "T1-shirt",
            Verdict.UNREADABLE,
            "character 3 is not a letter or digit of this code (0-9, A-V)",
        ),
        (
            "T1" + "A" * 10 + "W" + "A" * 21,
            Verdict.UNREADABLE,
            "character 13 is not a letter or digit of this code (0-9, A-V)",
        ),
        (signed_by_hand(8, b"x" * 32, 1, 1), Verdict.FORGED, "unknown key id 8"),
        (signed_by_hand(RETIRED, b"x" * 32, 1, 1), Verdict.FORGED, "key id 9 is retired"),
        (signed_by_hand(NEW, b"o" * 32, 1, 1), Verdict.FORGED, "signature does not match"),
        ("", Verdict.UNREADABLE, "the scan is empty"),
        ("]Q1\r\n", Verdict.UNREADABLE, "the scan is empty"),
        ("AB\tCD", Verdict.UNREADABLE, "character 3 is a control or invisible character"),
        ("AB\x1d\ud800", Verdict.UNREADABLE, "character 4 is a control or invisible character"),
        ("x" * 4297, Verdict.UNREADABLE, "has 4297 characters, at most 4296 are allowed"),
        (
            "1234-5678-9012-3456",
            Verdict.UNREADABLE,
            "check digit does not match: one of the 16 digits is wrong",
        ),
    ),
)
def test_refusals_name_what_and_where(text: str, verdict: Verdict, why: str) -> None:
    assert RING.parse(text) == Refused(verdict, why)


# --- noise ----------------------------------------------------------------------------------------

NOISES = [
    "{}\r",
    "{}\n",
    "{}\r\n",
    "{}\t",
    "  {}  ",
    "{}\x00\x00",
    "\x00{}",
    "{}\x1d",
    "\x1d{}",
    "\x02{}\x03",
    "\ufeff{}",
    "\u3000{}\u3000",
    "]Q1{}\r",
    "]C1\x1d{}\x1d\r\n",
    "]e0{}",
    "]d2{}",
    "]zC{}",
    "\r\n]Q3{}",
    "]Q2\\000026{}",
    "\uff3dQ\uff11{}",
]


def full_width(text: str) -> str:
    return "".join(chr(ord(char) + 0xFEE0) if "!" <= char <= "~" else char for char in text)


@pytest.mark.parametrize("noise", NOISES)
def test_noise_changes_nothing(noise: str) -> None:
    code = one(7, 123456)
    for spelling in (code, code.lower(), full_width(code)):
        assert RING.parse(noise.format(spelling)) == Signed(7, 123456)
    for text in (typed_code(1), "Ab-12\x1d34", "8112106141410222\x1d123456"):
        found = RING.parse(text)
        assert isinstance(found, Hashed)
        assert RING.parse(noise.format(text)) == found


@pytest.mark.parametrize(
    "text", ("abcXYZ", "a b", "a\x1db", "a\\000026", "[x]Q1", "]Q", "]qg", "码券 12", "8112\x1d00")
)
def test_foreign_text_is_kept(text: str) -> None:
    assert normalise(text) == text
    assert RING.parse(text) == Hashed(hashed(text), "foreign")


noisy_text = st.text(st.sampled_from(list("]QC1e0\\026T \r\n\t\x00\x1d\u3000\ufeff\uff3d\uff11\uff34-aZ")), max_size=30)


def test_every_full_width_character_is_folded() -> None:
    printable = "".join(map(chr, range(0x21, 0x7F)))
    assert normalise(full_width(printable)) == printable


@given(st.one_of(st.text(), noisy_text))
def test_normalise_is_idempotent(text: str) -> None:
    assert normalise(normalise(text)) == normalise(text)


# --- typed ----------------------------------------------------------------------------------------


def test_damm_known_value() -> None:
    assert damm("572") == 4
    assert damm("5724") == 0


def test_damm_table_finds_every_error() -> None:
    """By its algebra, so for every length: a wrong digit or a swap always leaves another interim digit."""
    steps = [[damm_step(interim, digit) for digit in range(10)] for interim in range(10)]
    for interim in range(10):
        assert sorted(steps[interim]) == list(range(10))
        assert sorted(steps[other][interim] for other in range(10)) == list(range(10))
        assert steps[interim][interim] == 0
        for x in range(10):
            for y in range(x):
                assert steps[steps[interim][x]][y] != steps[steps[interim][y]][x]


def damm_step(interim: int, digit: int) -> int:
    """One step of the check from any interim digit, reached through a first digit of the code."""
    first = next(str(n) for n in range(10) if damm(str(n)) == interim)
    return damm(first + str(digit))


@given(st.integers(0, 10**15 - 1))
@example(0)
@example(10**15 - 1)
@settings(max_examples=20)
def test_typed_mistakes_are_unreadable(number: int) -> None:
    code = typed_code(number)
    assert RING.parse(code) == Hashed(hashed(code), "typed")
    wrong = {code[:n] + digit + code[n + 1 :] for n in range(16) for digit in "0123456789"}
    wrong |= {code[:n] + code[n + 1] + code[n] + code[n + 2 :] for n in range(15)}
    for mistyped in wrong - {code}:
        found = RING.parse(mistyped)
        assert isinstance(found, Refused)
        assert found.verdict is Verdict.UNREADABLE


@pytest.mark.parametrize("gap", (" ", "-", " - ", "\u2014", "\u3000", "\uff0d"))
def test_typed_groups(gap: str) -> None:
    code = typed_code(123456789012345)
    grouped = gap.join(code[n : n + 4] for n in range(0, 16, 4))
    assert RING.parse(grouped) == RING.parse(code) == Hashed(hashed(code), "typed")


def test_other_lengths_of_digits_are_foreign() -> None:
    for text in ("1", "123456789012345", "12345678901234567", "1" * CODE_CHARS_MAX):
        assert RING.parse(text) == Hashed(hashed(text), "foreign")


# --- import ---------------------------------------------------------------------------------------


def test_import_spelling() -> None:
    assert import_spelling(" 0000 0000-0000 0013\n") == ("typed", typed_code(1))
    assert import_spelling("group-buy 12\n") == ("foreign", "group-buy 12")
    assert import_spelling("12-GROUP/7") == ("foreign", "12-GROUP/7")
    wrong_digit = import_spelling("1234567890123456")
    assert isinstance(wrong_digit, Refused)
    assert wrong_digit.why.startswith("check digit does not match")
    for ours in (one(1, 1), "t1-shirt"):
        found = import_spelling(ours)
        assert found == Refused(Verdict.UNREADABLE, "begins with T1, which is reserved for signed codes")


@given(st.one_of(st.text(max_size=40), noisy_text, st.from_regex(r"[0-9 -]{16,20}", fullmatch=True)))
def test_import_and_scan_agree(text: str) -> None:
    imported, scanned = import_spelling(text), RING.parse(text)
    if isinstance(imported, tuple):
        entry, spelling = imported
        assert scanned == Hashed(RING.identity(spelling), entry)
    else:
        assert not isinstance(scanned, Hashed)


# --- anything at all ------------------------------------------------------------------------------

any_text = st.one_of(
    st.text(),
    noisy_text,
    st.text(st.characters(exclude_categories=()), max_size=60),
    st.text(min_size=1, max_size=40).map(lambda text: "T1" + text),
    st.text(ALPHABET, min_size=30, max_size=34).map(lambda text: "T1" + text),
    st.builds(lambda text, times: text * times, st.text(min_size=1, max_size=50), st.integers(1, 100)),
)


@given(any_text)
def test_any_text_gives_a_value_and_refusals_quote_nothing(text: str) -> None:
    found = RING.parse(text)
    if isinstance(found, Refused):
        assert found.verdict in (Verdict.UNREADABLE, Verdict.FORGED)
        assert WHYS.fullmatch(found.why)
    elif isinstance(found, Hashed):
        assert len(found.keyed_hash) == 16
        assert 1 <= len(normalise(text)) <= CODE_CHARS_MAX
