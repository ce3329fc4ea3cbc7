"""Offline codes: their form to the letter, what the gateway makes of them, and that nothing else passes."""

import io
from hashlib import blake2b

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from gateway import qr
from gateway.codes import CodeKeys, KeyRing, Refused, Signed, spelled_by
from gateway.messages import Verdict
from gateway.offline_codes import OfflineKeys

KEYS = CodeKeys(keys={1: b"k" * 32, 2: b"m" * 32}, active=2, pepper=b"p" * 32)
RING, OFFLINE = KeyRing(KEYS), OfflineKeys(KEYS)
GOLDEN = {  # of key 1, campaign 7: a code that is printed stays good for ever
    1: "T10400000700000001A1953N9IR2A1ED3E.31LLO7FM4QAO4J7TM4NMUS5OU"
    "2EBK77R4KQ5II8VISLB1HJ548NMI7PKU5CEQU8US2CT53RKMP20QM0T61R9Q066QA5Q8A369CA2IGB",
    123456: "T10400000700003OI0SLMA6BDEJLQ4OF08.1KFV5PSN9F2MDRK6JTGEDC4FM"
    "OLU3C3SC68DQ9DBO6KDAI5B8OPSRL63HF33PD9LBO6B0M9C185V3FF8EEQR15M4UJR55324B5D8JGC",
}


def code_of(serial: int, key_id: int = 1) -> str:
    return OFFLINE.signed(next(RING.mint(key_id, 7, serial, 1)))


def test_the_form_never_changes() -> None:
    for serial, text in GOLDEN.items():
        assert code_of(serial) == text


def test_the_form_once_more_from_its_description() -> None:
    code = next(RING.mint(1, 7, 9, 1))
    seed = blake2b(key=b"k" * 32, digest_size=32, person=b"tillgate-offl-1").digest()
    signature = Ed25519PrivateKey.from_private_bytes(seed).sign(b"tillgate-offline-1\n" + code.encode())
    text = code_of(9)
    assert text.startswith(code + ".")
    assert len(text) == 138
    assert int(text[35:], 32) == int.from_bytes(signature, "big")
    Ed25519PublicKey.from_public_bytes(OFFLINE.public_keys[1]).verify(
        signature, b"tillgate-offline-1\n" + code.encode()
    )


@given(serial=st.integers(0, 2**40 - 1), key_id=st.sampled_from((1, 2)), lower=st.booleans())
def test_the_gateway_reads_it_like_the_code_it_begins_with(serial: int, key_id: int, lower: bool) -> None:
    text = code_of(serial, key_id)
    text = text.lower() if lower else text
    assert RING.parse(f"]Q3{text}\r\n") == Signed(7, serial)
    assert OFFLINE.is_signed(f"]Q3{text}\r\n")
    assert spelled_by(text.upper()) == (7, serial)


@pytest.mark.parametrize("cut", (35, 36, 100, 137))
def test_a_cut_one_is_unreadable(cut: int) -> None:
    parsed = RING.parse(code_of(5)[:cut])
    assert isinstance(parsed, Refused)
    assert parsed.verdict is Verdict.UNREADABLE


@given(place=st.integers(0, 102), letter=st.sampled_from("0123456789ABCDEFGHIJKLMNOPQRSTUV"))
def test_no_other_signature_passes(place: int, letter: str) -> None:
    text = code_of(5)
    other = text[: 35 + place] + letter + text[36 + place :]
    assert OFFLINE.is_signed(other) == (other == text)
    assert RING.parse(other) == Signed(7, 5)  # the MAC is right, and the gateway goes by that


def test_a_plain_code_and_one_of_a_strange_key_are_not_signed() -> None:
    stranger = CodeKeys(keys={9: b"z" * 32}, active=9, pepper=b"p" * 32)
    assert not OFFLINE.is_signed(code_of(5)[:34])
    assert not OFFLINE.is_signed(OfflineKeys(stranger).signed(next(KeyRing(stranger).mint(9, 7, 5, 1))))
    assert not OFFLINE.is_signed("CAKE-2024")


def test_it_is_a_qr_code_of_version_6_and_is_read_again() -> None:
    width, _ = Image.open(io.BytesIO(qr.render(code_of(5), px=1, fmt="png"))).size
    assert width == 41 + 2 * 4  # modules of version 6 (ISO/IEC 18004), and the quiet zone
    assert qr.decode(qr.render(code_of(5), px=600, fmt="png")) == [code_of(5)]
