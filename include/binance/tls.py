"""The certificates that HTTPS clients trust, read once for all clients of a process."""

from __future__ import annotations

import ssl
from functools import cache

import httpx


@cache
def trusted() -> ssl.SSLContext:
    """httpx's own context; reading its 140 certificates takes 16 ms, which each client would."""
    return httpx.create_ssl_context(trust_env=False)
