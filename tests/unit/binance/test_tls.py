"""All clients of a process share one set of certificates, which is checked."""

from __future__ import annotations

import ssl

from include.binance.tls import trusted


def test_certificates_are_read_once_and_hosts_are_checked() -> None:
    context = trusted()
    assert context is trusted()
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)
    assert len(context.get_ca_certs()) > 100
