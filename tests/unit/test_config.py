"""The configuration: which value wins, what is refused, and what the refusal says."""

import contextlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.config import SETTINGS, BadConfig, decode, flag_of, read, variable_of
from gateway.settings import Config


def faults(
    content: dict[str, Any] | None = None,
    environ: dict[str, str] | None = None,
    flags: dict[str, str] | None = None,
) -> tuple[str, ...]:
    with pytest.raises(BadConfig) as caught:
        decode(content or {}, "till.toml", environ or {}, flags or {})
    return caught.value.faults


def test_nothing_set_is_a_gateway_on_loopback_with_its_own_valkey() -> None:
    loaded = decode({}, "", {}, {})
    assert loaded.config == Config()
    assert loaded.config.server.host == "127.0.0.1"
    assert set(loaded.origins.values()) == {"default"}


def test_flags_win_over_the_environment_which_wins_over_the_file() -> None:
    loaded = decode(
        {"data": "/d", "server": {"host": "0.0.0.0", "port": 1, "tls_cert": "c", "tls_key": "k"}},
        "till.toml",
        {"TILLGATE_SERVER__PORT": "2", "TILLGATE_SERVER__HOST": "::1", "HOME": "/h", "TILLGATE_URL": "u"},
        {"server.port": "3"},
    )
    assert (loaded.config.server.port, loaded.config.server.host, loaded.config.data_dir) == (3, "::1", "/d")
    origins = loaded.origins
    assert (origins["server.port"], origins["server.host"]) == ("--server-port", "TILLGATE_SERVER__HOST")
    assert (origins["data"], origins["drain_seconds"]) == ("till.toml", "default")


@pytest.mark.parametrize("key", SETTINGS)
def test_every_setting_has_a_variable_and_a_flag_of_its_own(key: str) -> None:
    shared = "postgresql://till@/log"
    example = {"server.tls_cert": "a", "valkey.url": "unix:///s", "log.url": shared, "messages.form": "json"}.get(
        key, "1"
    )
    also = {"server.tls_cert": "x", "server.tls_key": "x", "valkey.url": "unix:///s", "log.url": shared}
    also.pop(key, None)
    loaded = decode({}, "", {variable_of(key): example}, also)
    assert loaded.origins[key] == variable_of(key)
    assert len({flag_of(other) for other in SETTINGS}) == len(SETTINGS)


@pytest.mark.parametrize(
    ("content", "environ", "flags", "parts"),
    (
        ({"server": {"prot": 1}}, {}, {}, ("server.prot", "till.toml", "mean server.port?")),
        ({"port": 1}, {}, {}, ("port (from till.toml)", "mean server.port?")),
        ({"pinkness": 1}, {}, {}, ("pinkness", "Remove it", "valkey.url")),
        ({"server": 3}, {}, {}, ("server (from till.toml)", "no such setting")),
        ({}, {"TILLGATE_SERVER__PROT": "1"}, {}, ("TILLGATE_SERVER__PROT: there is no", "mean TILLGATE_SERVER__PORT?")),
        ({}, {}, {"server.pot": "1"}, ("--server-pot", "mean --server-port?")),
        ({"server": {"port": "80"}}, {}, {}, ("server.port", "till.toml", "'80' is not a port", "server.port = 8080")),
        ({}, {"TILLGATE_SERVER__PORT": "99999"}, {}, ("'99999'", "65535", "TILLGATE_SERVER__PORT=8080")),
        ({}, {}, {"drain_seconds": "soon"}, ("drain_seconds", "--drain-seconds", "'soon'")),
        ({"drain_seconds": float("nan")}, {}, {}, ("drain_seconds", "till.toml")),
        ({"data": ""}, {}, {}, ("data", "data directory")),
        ({"server": {"tls_cert": "c"}}, {}, {}, ("server.tls_key", "server.tls_cert", "both or neither")),
        ({"valkey": {"url": "http://x"}}, {}, {}, ("valkey.url", "till.toml", "redis://")),
        ({"valkey": {"url": "redis://u:hunter2@x"}}, {}, {}, ("valkey.url", "valkey.password_file")),
        ({"valkey": {"url": "redis://["}}, {}, {}, ("valkey.url", "no URL")),
        ({"valkey": {"password_file": "p"}}, {}, {}, ("valkey.password_file", "valkey.url")),
        ({"log": {"url": "mysql://x/y"}}, {}, {}, ("log.url", "till.toml", "postgresql://")),
        ({"log": {"url": "postgresql://x"}}, {}, {}, ("log.url", "/database")),
        ({"log": {"url": "nats://a:4222/x"}}, {}, {}, ("log.url", "monitoring port")),
        ({"log": {"url": "nats://a:4222,b/x?monitor=8222"}}, {}, {}, ("log.url", "'b' is no host:port")),
        ({"log": {"url": "nats://a:4222?monitor=8222"}}, {}, {}, ("log.url", "names no log", "/tillgate?replicas=3")),
        ({"log": {"url": "nats://a:4222/x?monitor=8222&replicas=2"}}, {}, {}, ("log.url", "replicas = '2'")),
        ({"log": {"url": "nats://a:4222/x?monitor=8222&trust=1"}}, {}, {}, ("log.url", "'trust' is no option")),
        ({"log": {"url": "nats://u:hunter2@a:4222/x?monitor=8222"}}, {}, {}, ("log.url", "log.password_file")),
        ({"log": {"url": "postgresql://["}}, {}, {}, ("log.url", "no URL")),
        ({"log": {"url": "postgresql://u:hunter2@x/y"}}, {}, {}, ("log.url", "log.password_file")),
        ({"log": {"url": "postgresql://u@x/y?password=hunter2"}}, {}, {}, ("log.url", "log.password_file")),
        ({"log": {"password_file": "p"}}, {}, {}, ("log.password_file", "log.url")),
        ({"workers": 3}, {}, {}, ("workers", "till.toml", "3 processes", "log.url = 'postgresql://...'")),
        ({"log": {"url": "postgresql://x/y"}}, {"TILLGATE_WORKERS": "2"}, {}, ("TILLGATE_WORKERS", "valkey.url")),
    ),
)
def test_what_is_wrong_is_named_with_its_origin_and_the_fix(
    content: dict[str, Any], environ: dict[str, str], flags: dict[str, str], parts: tuple[str, ...]
) -> None:
    (fault,) = faults(content, environ, flags)
    for part in parts:
        assert part in fault
    assert "hunter2" not in fault


def test_all_faults_are_told_at_once() -> None:
    assert len(faults({"server": {"port": "x", "host": 1}}, {"TILLGATE_NOPE": "1"}, {"data": ""})) == 4


_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
_names = st.sampled_from(["server", "data", "valkey", "metrics", "drain_seconds", "port", "log", "workers"]) | st.text(
    max_size=6
)


@given(st.dictionaries(_names, _values), st.dictionaries(st.text(max_size=12).map("TILLGATE_".__add__), st.text()))
def test_any_file_and_environment_is_a_config_or_a_list_of_faults(
    content: dict[str, Any], environ: dict[str, str]
) -> None:
    with contextlib.suppress(BadConfig):
        assert set(decode(content, "till.toml", environ, {}).origins) == set(SETTINGS)


def test_the_file_is_the_one_named_by_the_flag_or_the_variable(tmp_path: Path) -> None:
    named, other = tmp_path / "named.toml", tmp_path / "other.toml"
    named.write_text("data = 'one'")
    other.write_text("data = 'two'")
    assert read(named, {"TILLGATE_CONFIG": str(other)}, {}).config.data_dir == "one"
    assert read(None, {"TILLGATE_CONFIG": str(other)}, {}).config.data_dir == "two"
    assert read(None, {}, {}).config == Config()


@pytest.mark.parametrize("content", (b"data = ", b"\xff\xfe", None))
def test_a_file_that_is_missing_or_no_toml_is_named(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "bad.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(BadConfig, match=r"bad\.toml"):
        read(path, {}, {})
