"""Who asks: bearer tokens, enrolment tokens and device keys, checked against the directory. Pure.

A token is a prefix and 32 random bytes in base32 (RFC 4648 section 6, no padding). Only its hash, keyed with the
deployment's pepper, is in the log; finding that hash is the whole check, so there is no secret to compare byte by byte
and no time to measure. The two kinds of token are hashed apart: an enrolment token is never a bearer token.
"""

import base64
import re
from hashlib import blake2b

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from gateway.directory import Directory, Terminal
from gateway.messages import HELLO_CONTEXT
from gateway.roles import Principal

TOKEN_BYTES = 32
TOKEN_HASH_BYTES = 32
NONCE_BYTES = 32  # drawn anew for each connection: a recorded signature is worth nothing
BEARER_PREFIX = "tg_"
ENROLMENT_PREFIX = "te_"

_PERSONS = {BEARER_PREFIX: b"tillgate-token-1", ENROLMENT_PREFIX: b"tillgate-enrol-1"}
_token_form = re.compile(r"(tg_|te_)[A-Z2-7]{52}").fullmatch
_ABSENT = "this needs a token: send the header `Authorization: Bearer tg_...`"
_MALFORMED = "the Authorization header is not `Bearer tg_` and 52 letters and digits: is the token cut short?"
_STRANGE = "this token is unknown here or was revoked: ask for a new one (`tillgate token create`)"


class Asker(msgspec.Struct, frozen=True):
    """Somebody who proved who they are. `actor` names them in the log."""

    principal: Principal
    actor: str


class Stranger(msgspec.Struct, frozen=True):
    """Nobody we know; `why` may be told to whoever asked."""

    why: str


def token_of(prefix: str, secret: bytes) -> str:
    """The text of a new token, for TOKEN_BYTES random bytes that the caller drew."""
    assert prefix in _PERSONS
    assert len(secret) == TOKEN_BYTES
    return prefix + base64.b32encode(secret).decode().rstrip("=")


class Auth:
    """Answers who it is, as of what the directory says now."""

    def __init__(self, pepper: bytes, directory: Directory) -> None:
        """`directory` is the one that is being folded, not a copy: a revocation counts with its next question."""
        self._directory = directory
        self._primed = {
            prefix: blake2b(key=pepper, digest_size=TOKEN_HASH_BYTES, person=person)
            for prefix, person in _PERSONS.items()
        }

    def token_hash(self, token: str) -> bytes | None:
        """What the log keeps of a token; None if the text has not the form of one."""
        form = _token_form(token)
        if form is None:
            return None
        state = self._primed[form[1]].copy()
        state.update(token.encode())
        return state.digest()

    def bearer(self, header: str | None) -> Asker | Stranger:
        """Who holds the token in an `Authorization` header."""
        if not header:
            return Stranger(_ABSENT)
        scheme, _, token = header.partition(" ")
        token = token.strip()
        token_hash = self.token_hash(token)
        if scheme.lower() != "bearer" or token_hash is None or not token.startswith(BEARER_PREFIX):
            return Stranger(_MALFORMED)
        principal = self._directory.principal_of_token(token_hash)
        if principal is None:
            return Stranger(_STRANGE)
        return Asker(principal, f"token {self._directory.tokens[token_hash].token_id}")

    def enrolling(self, token: str, now_ms: int) -> Terminal | None:
        """The terminal that may enrol with this token now; None if it is unknown, used, replaced or expired."""
        token_hash = self.token_hash(token) if token.startswith(ENROLMENT_PREFIX) else None
        return None if token_hash is None else self._directory.enrolling(token_hash, now_ms)

    def proven(self, number: int, nonce: bytes, signature: bytes) -> Terminal | Stranger:
        """The terminal `number`, if `signature` over our nonce is by the key it enrolled with."""
        terminal = self._directory.terminals.get(number)
        if terminal is None or terminal.public_key is None:
            return Stranger(f"terminal {number} is not enrolled here: enrol it with a new token (`tillgate terminal`)")
        if not is_signed(terminal.public_key, nonce, signature):
            return Stranger(f"the signature is not by the key terminal {number} enrolled with")
        if terminal.revoked:
            return Stranger(f"terminal {number} was revoked")
        return terminal


def is_signed(public_key: bytes, nonce: bytes, signature: bytes) -> bool:
    """Whether this is the device's Ed25519 signature (RFC 8032) of HELLO_CONTEXT and the nonce."""
    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(signature, HELLO_CONTEXT + nonce)
    except (InvalidSignature, ValueError):  # ValueError: a public key that is none
        return False
    return True
