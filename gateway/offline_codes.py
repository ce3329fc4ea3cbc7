"""Codes that a till can tell to be genuine without a gateway: a signed code, a dot, an Ed25519 signature. Pure.

    T1 <32 base32hex characters> . <103 base32hex characters>

What stands before the dot is a whole signed code (gateway.codes), which the gateway checks by its MAC as ever. Behind
it are 64 bytes (RFC 8032) over `tillgate-offline-1\\n` and those 34 characters, spelled as one number. The 138
characters are of the QR alphanumeric set: version 6 at level M.

The signing key is derived from the code key of the same id, so there is no second secret to keep, to back up or to
replace; tills are given the public halves only, which mint nothing:

    seed = BLAKE2b-256(code key, person "tillgate-offl-1")
"""

from hashlib import blake2b

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from gateway.codes import SIGNATURE_CHARS, SIGNATURE_MARK, SIGNED_CHARS, CodeKeys, bare, normalise
from gateway.messages import OFFLINE_CONTEXT

SIGNATURE_BYTES = 64
_SEED_PERSON = b"tillgate-offl-1"
_ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUV"


class OfflineKeys:
    """Signs and checks with the keys that are derived from one set of code keys."""

    def __init__(self, keys: CodeKeys) -> None:
        self._private = {key_id: _derived(key) for key_id, key in keys.keys.items()}
        self.public_keys = {key_id: key.public_key().public_bytes_raw() for key_id, key in self._private.items()}

    def signed(self, code: str) -> str:
        """A clean signed code of a live key with its signature behind it."""
        assert len(code) == SIGNED_CHARS
        signature = self._private[_key_id(code)].sign(OFFLINE_CONTEXT + code.encode())
        return code + SIGNATURE_MARK + _spelled(int.from_bytes(signature, "big"))

    def is_signed(self, text: str) -> bool:
        """Whether a text, as a scanner sent it, is a code with a right signature by a live key."""
        code = normalise(text).upper()
        if bare(code) == code:
            return False
        key = self._private.get(_key_id(code))
        spelled = int(code[SIGNED_CHARS + 1 :], 32)
        if key is None or spelled >> 8 * SIGNATURE_BYTES:
            return False
        try:
            key.public_key().verify(spelled.to_bytes(SIGNATURE_BYTES, "big"), OFFLINE_CONTEXT + bare(code).encode())
        except InvalidSignature:
            return False
        return True


def _derived(key: bytes) -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(blake2b(key=key, digest_size=32, person=_SEED_PERSON).digest())


def _key_id(code: str) -> int:
    return int(code[2:SIGNED_CHARS], 32) >> 152


def _spelled(number: int) -> str:
    return "".join(_ALPHABET[number >> 5 * place & 31] for place in reversed(range(SIGNATURE_CHARS)))
