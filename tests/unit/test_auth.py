"""Tokens and device keys: who is let in, and that nobody else is."""

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from eventstore import events as e
from eventstore.events import Control
from gateway.auth import BEARER_PREFIX, ENROLMENT_PREFIX, Asker, Auth, Stranger, is_signed, token_of
from gateway.directory import Directory
from gateway.messages import HELLO_CONTEXT
from gateway.roles import Principal

PEPPER = bytes(range(32))
NONCE = b"n" * 32
DEVICE = Ed25519PrivateKey.from_private_bytes(b"d" * 32)
BEARER = token_of(BEARER_PREFIX, b"b" * 32)
TILL_BEARER = token_of(BEARER_PREFIX, b"t" * 32)
ENROLMENT = token_of(ENROLMENT_PREFIX, b"e" * 32)


def hashed(token: str) -> bytes:
    found = Auth(PEPPER, Directory()).token_hash(token)
    assert found is not None
    return found


class Deployment:
    """One merchant, one store, terminal 1 offered, one operator token, one token bound to terminal 1."""

    def __init__(self) -> None:
        self.directory = Directory()
        self.auth = Auth(PEPPER, self.directory)
        self.write(
            e.MerchantAdded(merchant="m1", title="M"),
            e.StoreOpened(store="s1", merchant="m1", title="S"),
            e.TerminalOffered(terminal=1, store="s1", label="T", token_hash=hashed(ENROLMENT), expires_ms=1000),
            e.TokenCreated(token_id="k1", token_hash=hashed(BEARER), role="operator", scope="", label="ops"),
            e.TokenCreated(token_id="k2", token_hash=hashed(TILL_BEARER), role="terminal", scope="1", label="till"),
        )

    def write(self, *events: e.ControlEvent) -> None:
        self.directory.apply(Control("test", events), self.directory.control_seq + 1, 5)

    def enrol(self) -> None:
        self.write(e.TerminalEnrolled(terminal=1, public_key=DEVICE.public_key().public_bytes_raw()))

    def prove(self, signature: bytes, nonce: bytes = NONCE) -> object:
        return self.auth.proven(1, nonce, signature)


def test_a_token_is_known_by_its_hash() -> None:
    known = Deployment().auth.bearer(f"Bearer {BEARER}")
    assert known == Asker(Principal("operator"), "token k1")


def test_a_token_bound_to_a_terminal_acts_as_that_terminal() -> None:
    known = Deployment().auth.bearer(f"bearer  {TILL_BEARER} ")
    assert known == Asker(Principal("terminal", "m1", 1, "s1"), "token k2")


def test_a_revoked_token_is_unknown() -> None:
    deployment = Deployment()
    deployment.write(e.TokenRevoked(token_id="k1"))
    assert isinstance(deployment.auth.bearer(f"Bearer {BEARER}"), Stranger)


def test_a_token_of_a_revoked_terminal_is_unknown() -> None:
    deployment = Deployment()
    deployment.write(e.TerminalRevoked(terminal=1))
    assert isinstance(deployment.auth.bearer(f"Bearer {TILL_BEARER}"), Stranger)


@pytest.mark.parametrize(
    "header",
    (
        None,
        "",
        "Bearer",
        BEARER,
        f"Basic {BEARER}",
        f"Bearer {BEARER[:-1]}",
        f"Bearer {BEARER}A",
        f"Bearer {BEARER.lower()}",
        f"Bearer {ENROLMENT}",
        f"Bearer {token_of(BEARER_PREFIX, b'x' * 32)}",
    ),
)
def test_anything_else_is_a_stranger_and_is_not_quoted(header: str | None) -> None:
    answer = Deployment().auth.bearer(header)
    assert isinstance(answer, Stranger)
    assert BEARER[3:] not in answer.why


@given(st.text())
def test_any_header_gets_an_answer(header: str) -> None:
    assert isinstance(Deployment().auth.bearer(header), Stranger)


def test_the_pepper_and_the_kind_of_token_are_in_the_hash() -> None:
    assert Auth(bytes(32), Directory()).token_hash(BEARER) != hashed(BEARER)
    assert hashed(token_of(ENROLMENT_PREFIX, b"b" * 32)) != hashed(BEARER)


def test_an_enrolment_token_is_good_until_it_expires() -> None:
    auth = Deployment().auth
    terminal = auth.enrolling(ENROLMENT, 999)
    assert terminal is not None
    assert terminal.number == 1
    assert auth.enrolling(ENROLMENT, 1000) is None
    assert auth.enrolling(BEARER, 0) is None


def test_an_enrolment_token_is_good_once() -> None:
    deployment = Deployment()
    deployment.enrol()
    assert deployment.auth.enrolling(ENROLMENT, 6) is None


def test_the_device_proves_itself_with_its_own_key() -> None:
    deployment = Deployment()
    signature = DEVICE.sign(HELLO_CONTEXT + NONCE)
    assert isinstance(deployment.prove(signature), Stranger), "it is not enrolled yet"
    deployment.enrol()
    assert deployment.prove(signature) is deployment.directory.terminals[1]
    assert isinstance(deployment.prove(signature, b"other" + NONCE[5:]), Stranger)
    assert isinstance(deployment.prove(DEVICE.sign(NONCE)), Stranger), "without the context it could mean anything"
    assert isinstance(deployment.auth.proven(2, NONCE, signature), Stranger)
    deployment.write(e.TerminalRevoked(terminal=1))
    assert deployment.prove(signature) == Stranger("terminal 1 was revoked")


@given(st.binary(max_size=80), st.binary(max_size=80))
def test_no_bytes_at_all_break_the_check(public_key: bytes, signature: bytes) -> None:
    assert not is_signed(public_key, NONCE, signature)
