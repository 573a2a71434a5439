"""Classify an HTTP answer of the exchange: data, retry, wait, or give up."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime

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

LONGEST_BAN_S = 3 * 86_400.0
"""The exchange bans an address for three days at most."""

RETRIED_CODES = frozenset({-1000, -1001, -1006, -1007, -1008, -1016})
"""Error codes that are retried: unknown error, disconnected, unexpected response, timeout,
overloaded, shutting down."""

UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""Errors of decoding: not JSON, not UTF-8, nested too deeply."""

TOO_MANY_REQUESTS_CODE = -1003
INVALID_SYMBOL_CODE = -1121

_USED_WEIGHT = re.compile(r"x-mbx-used-weight(?:-(?P<number>\d+)(?P<letter>[smhd]))?", re.I)
_BANNED_UNTIL = re.compile(rb"banned until (?P<ms>\d{13})\b")
_BODY_SHOWN = 200
_BODY_READ = 2_000


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


def retry_after_s(headers: Mapping[str, str], body: bytes = b"") -> float:
    """Return the seconds that the exchange demands to wait.

    ``Retry-After`` has them. Without it, the message of a ban says until when: "IP banned until
    1767225600000", in milliseconds. The time that is left counts from the answer's ``Date``.
    """
    named = {name.lower(): value for name, value in headers.items()}
    text = named.get("retry-after", "")
    if text.isdigit():
        return float(text)
    banned = _BANNED_UNTIL.search(body[:_BODY_READ])
    if banned is None:
        return DEFAULT_RETRY_AFTER_S
    left_s = int(banned["ms"]) / 1_000 - _answered_s(named.get("date", ""))
    return min(max(left_s, DEFAULT_RETRY_AFTER_S), LONGEST_BAN_S)


def _answered_s(date: str) -> float:
    """Return the time of an answer (Unix, s); the machine's without a readable ``Date``."""
    try:
        return parsedate_to_datetime(date).timestamp()
    except ValueError:
        return time.time()


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
        wait_s = retry_after_s(headers, body)
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
