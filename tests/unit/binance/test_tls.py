"""All clients of a process share one set of certificates, which is checked."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from include.binance.tls import trusted
from simulator.http.certificates import generate_certificates


@pytest.fixture(autouse=True)
def _own_context(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("SSL_CERT_FILE", "SSL_CERT_DIR"):
        monkeypatch.delenv(name, raising=False)
    trusted.cache_clear()
    yield
    trusted.cache_clear()


def test_certificates_are_read_once_and_hosts_are_checked() -> None:
    context = trusted()
    assert context is trusted()
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)
    assert len(context.get_ca_certs()) > 100


def test_other_authorities_can_be_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As behind a proxy that replaces certificates."""
    made = generate_certificates(tmp_path, "localhost")
    assert made.authority is not None
    monkeypatch.setenv("SSL_CERT_FILE", str(made.authority))
    (authority,) = trusted().get_ca_certs()
    assert "simulator" in str(authority["subject"]).lower()
