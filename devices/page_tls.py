"""The page's certificate: the configured one, or one made here, which a phone asks about once and then remembers."""

import datetime
import os
import socket
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from devices.page_config import PageConfig

DAYS = 800  # iOS takes none that is valid for more than 825 (TN: "Requirements for trusted certificates")
NAMES = ("page.crt", "page-tls.key")


def tls_files(config: PageConfig, directory: Path) -> tuple[str, str]:
    """Paths of certificate and key, PEM; made in `directory` if none is configured. Raises `OSError`."""
    if config.certificate:
        return config.certificate, config.key
    certificate, key = (directory / name for name in NAMES)
    if not _is_good(certificate):
        _write(certificate, key, ["localhost", socket.gethostname(), *config.names])
    return str(certificate), str(key)


def _is_good(certificate: Path) -> bool:
    """Ours may be made anew at any time: one that has ended, or that a power cut has left empty, is as good as none."""
    try:
        ends = x509.load_pem_x509_certificate(certificate.read_bytes()).not_valid_after_utc
    except (FileNotFoundError, ValueError):
        return False
    return ends > datetime.datetime.now(datetime.UTC)


def _write(certificate: Path, key: Path, names: list[str]) -> None:
    secret = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[1])])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(secret.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))  # clocks of phones differ
        .not_valid_after(now + datetime.timedelta(days=DAYS))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .sign(secret, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    key_octets = secret.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    _replace(key, key_octets)
    _replace(certificate, made.public_bytes(pem))


def _replace(path: Path, octets: bytes) -> None:
    part = path.with_name(path.name + ".part")
    part.unlink(missing_ok=True)
    fd = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(fd, "wb") as file:
        file.write(octets)
        file.flush()
        os.fsync(fd)
    part.replace(path)
