"""Certificates for TLS: the user's own, or generated ones for the exchange's host names."""

import ipaddress
import os
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

EXCHANGE_HOSTS = (
    "*.binance.com", "*.binance.vision", "*.amazonaws.com", "localhost",
)  # fmt: skip
"""Names in a generated certificate, beside the simulator's own address."""
_VALID = timedelta(days=30)


class CertificateError(ValueError):
    """The certificate or key cannot be used."""


class CertificateFiles(NamedTuple):
    """PEM files of a server; clients need `authority` to trust it, None if it is the user's own."""

    certificate: Path
    key: Path
    authority: Path | None = None


def tls_context(files: CertificateFiles) -> ssl.SSLContext:
    """Return the context of a TLS server.

    Raises:
        CertificateError: a file is missing or unusable.
    """
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(files.certificate, files.key)
    except OSError as error:  # ssl.SSLError is one
        raise CertificateError(
            f"cannot use {files.certificate} with the key {files.key}: {error.strerror}; "
            "both must be PEM files, and the key without a passphrase"
        ) from error
    return context


def generate_certificates(folder: Path, host: str) -> CertificateFiles:
    """Write a new authority and a server certificate signed by it to a folder.

    The authority's key is not kept, so it cannot sign another certificate.

    Raises:
        CertificateError: the folder cannot be written.
    """
    now = datetime.now(UTC)
    authority_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    authority_name, name = (
        x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])
        for text in ("Candelabra simulator, for tests only", "Candelabra simulator")
    )

    def builder(subject: x509.Name, public: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(authority_name)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + _VALID)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key()),
                critical=False,
            )
        )

    authority = (
        builder(authority_name, authority_key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .sign(authority_key, hashes.SHA256())
    )
    certificate = (
        builder(name, key.public_key())
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName(_names(host)), critical=False)
        .sign(authority_key, hashes.SHA256())
    )
    files = CertificateFiles(
        folder / "simulator.pem", folder / "simulator-key.pem", folder / "simulator-ca.pem"
    )
    pem = serialization.Encoding.PEM
    private = key.private_bytes(
        pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _write(files.key, private)
        _write(files.certificate, certificate.public_bytes(pem))
        _write(folder / "simulator-ca.pem", authority.public_bytes(pem))
    except OSError as error:
        raise CertificateError(
            f"cannot write certificates to {folder}: {error.strerror}; name a writable folder"
        ) from error
    return files


def _write(path: Path, content: bytes) -> None:
    """Replace a file; only its owner may read it, because one of them is a private key."""
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)


def _names(host: str) -> list[x509.GeneralName]:
    names: list[x509.GeneralName] = [x509.DNSName(one) for one in EXCHANGE_HOSTS]
    for address in dict.fromkeys(("127.0.0.1", host)):
        try:
            names.append(x509.IPAddress(ipaddress.ip_address(address)))
        except ValueError:
            names.append(x509.DNSName(address))
    return names


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
