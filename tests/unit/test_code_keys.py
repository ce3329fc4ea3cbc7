"""Code keys: rotation, the pepper, and what is wrong with bad ones."""

import pytest

from gateway.codes import CodeKeys, KeyRing, Refused, Signed
from gateway.messages import Verdict

OLD, NEW, RETIRED = 3, 200, 9
KEYS = CodeKeys(keys={OLD: b"o" * 32, NEW: b"n" * 32}, active=NEW, pepper=b"p" * 32, retired=frozenset({RETIRED}))
RING = KeyRing(KEYS)


def test_retiring_a_key_refuses_its_codes_only() -> None:
    (old,), (new,) = RING.mint(OLD, 1, 1, 1), RING.mint(NEW, 1, 1, 1)
    after = KeyRing(CodeKeys(keys={NEW: b"n" * 32}, active=NEW, pepper=b"p" * 32, retired=frozenset({OLD, RETIRED})))
    assert after.parse(new) == Signed(1, 1)
    assert after.parse(old) == Refused(Verdict.FORGED, "key id 3 is retired")


def test_another_pepper_is_another_identity() -> None:
    other = KeyRing(CodeKeys(keys=KEYS.keys, active=NEW, pepper=b"q" * 32))
    assert other.parse("ABC") != RING.parse("ABC")


@pytest.mark.parametrize(
    ("keys", "active", "pepper", "retired", "words"),
    (
        ({256: b"k" * 32}, 256, b"p" * 32, (), "code key id 256 is not in 0-255"),
        ({1: b"k" * 31}, 1, b"p" * 32, (), "code key 1 has 31 bytes, 32 expected"),
        ({1: b"k" * 32}, 1, b"p" * 32, (1,), "code key 1 is both live and retired"),
        ({1: b"k" * 32}, 2, b"p" * 32, (), "active code key 2 is not among the live keys"),
        ({1: b"k" * 32}, 1, b"p" * 16, (), "the pepper has 16 bytes, 32 expected"),
    ),
)
def test_bad_keys_are_named_without_their_bytes(
    keys: dict[int, bytes], active: int, pepper: bytes, retired: tuple[int, ...], words: str
) -> None:
    with pytest.raises(ValueError, match=f"^{words}$"):
        CodeKeys(keys=keys, active=active, pepper=pepper, retired=frozenset(retired))


def test_keys_are_not_in_their_repr() -> None:
    assert repr(KEYS) == "CodeKeys(active=200, retired=frozenset({9}))"
