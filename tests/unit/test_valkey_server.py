"""The pure parts around the private Valkey: quoting, version, restart pauses."""

import ast
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.embedded import RESTART_WINDOW_SECONDS, RESTARTS_MAX, restart_pause_s
from gateway.valkey_server import Endpoint, config_text, quoted, version_of


@given(st.binary())
def test_a_quoted_value_is_one_printable_line_that_reads_back_as_itself(value: bytes) -> None:
    line = quoted(value).decode("ascii")
    assert line.isprintable()
    assert ast.literal_eval("b" + line) == value  # the escapes used mean the same in both languages


@pytest.mark.parametrize(
    ("said", "version"),
    (
        ("Valkey server v=8.1.8 sha=00000000:1 malloc=libc bits=64 build=7eb4ebc9d7e91f4e\n", (8, 1, 8)),
        ("Redis server v=7.0.15 sha=00000000:0 malloc=jemalloc-5.3.0 bits=64 build=e08dbad3\n", (7, 0, 15)),
        ("Redis server v=255.255.255 sha=1 malloc=libc bits=64 build=1", (255, 255, 255)),
        ("curl 8.5.0 (x86_64-pc-linux-gnu)", None),
        ("", None),
    ),
)
def test_version_of_what_the_program_says(said: str, version: tuple[int, ...] | None) -> None:
    assert version_of(said) == version


def test_pauses_double_until_too_many_restarts_fall_into_one_window() -> None:
    restarts_s: list[float] = []
    pauses_s = []
    while (pause_s := restart_pause_s(restarts_s, 100.0)) is not None:
        restarts_s.append(100.0)
        pauses_s.append(pause_s)
    assert pauses_s == [0.1, 0.2, 0.4, 0.8, 1.6]
    assert len(pauses_s) == RESTARTS_MAX


def test_restarts_before_the_window_are_forgotten() -> None:
    long_ago = [0.0] * RESTARTS_MAX
    assert restart_pause_s(long_ago, RESTART_WINDOW_SECONDS - 0.001) is None
    assert restart_pause_s(long_ago, RESTART_WINDOW_SECONDS) == 0.1


def test_the_configuration_never_listens_beyond_its_endpoint() -> None:
    home = Path("/srv/tillgate/valkey")
    on_socket = config_text(home, Endpoint(unix_path="/srv/tillgate/valkey/valkey.sock")).splitlines()
    assert b'port "0"' in on_socket
    assert not any(line.startswith((b"bind", b"requirepass")) for line in on_socket)
    on_loopback = config_text(home, Endpoint(host="127.0.0.1", port=4711, password="s")).splitlines()
    assert {b'bind "127.0.0.1"', b'port "4711"', b'requirepass "s"'} <= set(on_loopback)
    assert not any(line.startswith(b"unixsocket") for line in on_loopback)


def test_an_endpoint_never_prints_its_password() -> None:
    assert "secret" not in repr(Endpoint(host="127.0.0.1", port=1, password="secret"))
