"""The page's own certificate: made once, kept, and made anew when it is of no use any more."""

import ssl
from pathlib import Path

import pytest

from devices.page_config import PageConfig
from devices.page_tls import tls_files

BEYOND = PageConfig(listen="0.0.0.0:8443", names=["till7.shop"])


def test_it_is_made_once_and_kept(tmp_path: Path) -> None:
    certificate, key = tls_files(BEYOND, tmp_path)
    ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key)
    before = Path(certificate).read_bytes()
    assert tls_files(BEYOND, tmp_path) == (certificate, key)
    assert Path(certificate).read_bytes() == before
    assert Path(key).stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("left", (b"", b"-----BEGIN CERTIFICATE-----\nAAAA"))
def test_what_a_power_cut_left_of_it_is_made_anew(tmp_path: Path, left: bytes) -> None:
    certificate, _ = tls_files(BEYOND, tmp_path)
    Path(certificate).write_bytes(left)
    ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(*tls_files(BEYOND, tmp_path))
