"""Classify an HTTP answer of the exchange: data, retry, wait, or give up."""

from __future__ import annotations

import re
from collections.abc import Mapping

import msgspec

from include.errors import (
    CandelabraError,
    PermanentError,
    RateLimitedError,
    RefusedAddressError,
    TransientError,
    UnknownSymbolError,
)

DEFAULT_RETRY_AFTER_S = 60.0
"""Wait after a 429 or 418 without Retry-After: until the next minute's window."""

RETRIED_CODES = frozenset({-1000, -1001, -1006, -1007, -1008, -1016})
"""Error codes that are retried: unknown error, disconnected, unexpected response, timeout,
overloaded, shutting down."""

UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""Errors of decoding: not JSON, not UTF-8, nested too deeply."""

TOO_MANY_REQUESTS_CODE = -1003
INVALID_SYMBOL_CODE = -1121

_USED_WEIGHT = re.compile(r"x-mbx-used-weight(?:-(?P<number>\d+)(?P<letter>[smhd]))?", re.I)
_BODY_SHOWN = 200


class ErrorBody(msgspec.Struct, frozen=True):
    """``{"code": -1121, "msg": "Invalid symbol."}``"""

    code: int
    msg: str = ""


_ERROR_BODY = msgspec.json.Decoder(ErrorBody)


def used_weight(headers: Mapping[str, str]) -> int | None:
    """Return the weight used in this minute, from ``X-MBX-USED-WEIGHT-1M`` or the older header."""
    best: int | None = None
    for name, value in headers.items():
        match = _USED_WEIGHT.fullmatch(name)
        if match is None or not value.isdigit():
            continue
        window = (match["number"], (match["letter"] or "").lower())
        if window == ("1", "m"):
            return int(value)
        if window[0] is None:
            best = int(value)
    return best


def retry_after_s(headers: Mapping[str, str]) -> float:
    """Return the seconds that the exchange demands to wait."""
    text = headers.get("retry-after", headers.get("Retry-After", ""))
    return float(text) if text.isdigit() else DEFAULT_RETRY_AFTER_S


def error_of(
    status: int, headers: Mapping[str, str], body: bytes, *, host: str, request: str, symbol: str
) -> CandelabraError | None:
    """Return the error that an answer means; None if it is data.

    Args:
        host: the service, for messages.
        request: method and parameters, for messages.
        symbol: the exchange's symbol of the request; empty if none.
    """
    if status < 400:
        return None
    problem = _error_body(body)
    reason = f"{problem.code} {problem.msg}" if problem else _shown(body)
    where = f"{host} answered {request} with {status} ({reason})"
    code = problem.code if problem else 0
    if status in (418, 429) or code == TOO_MANY_REQUESTS_CODE:
        wait_s = retry_after_s(headers)
        what = "has banned this address" if status == 418 else "has limited this address"
        return RateLimitedError(
            f"{host} {what}: wait {wait_s:.0f} s ({reason})",
            retry_after_s=wait_s,
            banned=status == 418,
        )
    if status == 451 or (status == 403 and _mentions_region(body)):
        return RefusedAddressError(
            f"{where}: the exchange does not serve this region. Use data-api.binance.vision "
            "(spot, public data), or set HTTPS_PROXY to a proxy where it is allowed"
        )
    if status == 403:
        return RefusedAddressError(
            f"{where}: the exchange's firewall refuses this address. If it worked before, wait "
            "some minutes; otherwise set HTTPS_PROXY"
        )
    if status == 407:
        return RefusedAddressError(f"{where}: the proxy of HTTPS_PROXY requires a login")
    if status >= 500 or code in RETRIED_CODES:
        return TransientError(where)
    if code == INVALID_SYMBOL_CODE:
        return UnknownSymbolError(f"{host} does not know the symbol {symbol!r} ({reason})")
    return PermanentError(where)


def _error_body(body: bytes) -> ErrorBody | None:
    try:
        return _ERROR_BODY.decode(body)
    except UNREADABLE:
        return None


def _shown(body: bytes) -> str:
    text = " ".join(body[: 4 * _BODY_SHOWN].decode("utf-8", "replace").split())
    return text[:_BODY_SHOWN] or "empty body"


def _mentions_region(body: bytes) -> bool:
    text = body.lower()
    return any(word in text for word in (b"country", b"restricted location", b"region"))
