"""Generated certificates, and files that cannot be used."""

import ssl
from pathlib import Path

import pytest

from simulator.config import SimulatorConfig
from simulator.http.certificates import (
    CertificateError,
    CertificateFiles,
    generate_certificates,
    tls_context,
)


def test_generated_files_serve_tls_and_only_their_owner_reads_them(tmp_path: Path) -> None:
    files = generate_certificates(tmp_path / "new", "localhost")
    assert isinstance(tls_context(files), ssl.SSLContext)
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "new").iterdir()} == {0o600}
    before = files.certificate.read_bytes()
    assert generate_certificates(tmp_path / "new", "localhost").certificate == files.certificate
    assert files.certificate.read_bytes() != before


def test_missing_or_foreign_files_are_named(tmp_path: Path) -> None:
    files = generate_certificates(tmp_path, "127.0.0.1")
    with pytest.raises(CertificateError, match=r"none\.pem"):
        tls_context(CertificateFiles(tmp_path / "none.pem", files.key))
    assert files.authority is not None
    with pytest.raises(CertificateError, match=r"simulator-ca\.pem"):
        tls_context(CertificateFiles(files.authority, files.key))
    (tmp_path / "file").write_text("")
    with pytest.raises(CertificateError, match="name a writable folder"):
        generate_certificates(tmp_path / "file", "127.0.0.1")


def test_settings_that_contradict_each_other_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="tls_cert and tls_key go together"):
        SimulatorConfig(tls_cert=tmp_path)
    with pytest.raises(ValueError, match="tls excludes tls_cert"):
        SimulatorConfig(tls_cert=tmp_path, tls_key=tmp_path, tls=tmp_path)
