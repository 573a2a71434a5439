"""The CA certificates for HTTPS clients, loaded once per process."""

from __future__ import annotations

import ssl
from functools import cache

import httpx


@cache
def trusted() -> ssl.SSLContext:
    """Return httpx's default context, cached: loading its 140 certificates takes 16 ms.

    ``SSL_CERT_FILE`` and ``SSL_CERT_DIR`` replace its certificates, as they do for WebSockets.
    """
    return httpx.create_ssl_context()
