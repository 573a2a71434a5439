"""Every answer of the exchange says whether trying again helps."""

from __future__ import annotations

import pytest

from include.binance.rest.answers import error_of, retry_after_s, used_weight
from include.errors import (
    CandelabraError,
    PermanentError,
    RateLimitedError,
    RefusedAddressError,
    TransientError,
)


def error(status: int, body: bytes = b"", **headers: str) -> CandelabraError | None:
    return error_of(
        status, headers, body, host="api.test", request="GET /api/v3/klines", symbol="NOPE"
    )


def test_success_is_no_error() -> None:
    assert error(200, b"[]") is None


def test_429_carries_how_long_to_wait() -> None:
    told = error(429, b'{"code":-1003,"msg":"Too many requests"}', **{"retry-after": "12"})
    assert isinstance(told, RateLimitedError)
    assert (told.retry_after_s, told.banned) == (12, False)


def test_418_is_a_ban() -> None:
    told = error(418, b"", **{"Retry-After": "120"})
    assert isinstance(told, RateLimitedError)
    assert (told.retry_after_s, told.banned) == (120, True)


def test_limit_without_retry_after_waits_for_the_next_window() -> None:
    assert retry_after_s({}) == retry_after_s({"retry-after": "soon"}) == 60


BAN = b'{"code":-1003,"msg":"Way too many requests; IP banned until 1767226500000. Please use"}'


@pytest.mark.parametrize(
    ("date", "wait_s"),
    [
        ("Thu, 01 Jan 2026 00:00:00 GMT", 900),
        ("Thu, 01 Jan 2026 00:14:50 GMT", 60),  # at least until the next window
        ("Thu, 01 Jan 2026 01:00:00 GMT", 60),
        ("Thu, 11 Dec 2025 00:00:00 GMT", 3 * 86_400),
    ],
)
def test_ban_without_retry_after_lasts_until_the_time_in_its_text(date: str, wait_s: int) -> None:
    told = error(418, BAN, Date=date)
    assert isinstance(told, RateLimitedError)
    assert (told.retry_after_s, told.banned) == (wait_s, True)
    told = error(418, BAN, **{"Date": date, "Retry-After": "7"})
    assert isinstance(told, RateLimitedError)
    assert told.retry_after_s == 7


def test_ban_without_a_date_counts_from_the_machines_clock(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("time.time", lambda: 1_767_226_200.0)
    assert retry_after_s({}, BAN) == retry_after_s({"date": "soon"}, BAN) == 300


def test_invalid_symbol_is_named() -> None:
    told = error(400, b'{"code":-1121,"msg":"Invalid symbol."}')
    assert isinstance(told, PermanentError)
    assert "'NOPE'" in str(told)


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (451, b'{"code":0,"msg":"Service unavailable from a restricted location"}'),
        (403, b"<html>configured to block access from your country</html>"),
    ],
)
def test_blocked_region_is_named_in_the_error(status: int, body: bytes) -> None:
    told = error(status, body)
    assert isinstance(told, RefusedAddressError)
    assert "does not serve this region" in str(told)


def test_firewall_is_not_a_blocked_region() -> None:
    told = error(403, b"<html>Forbidden</html>")
    assert isinstance(told, RefusedAddressError)
    assert "firewall" in str(told)


def test_proxy_authentication_is_named_in_the_error() -> None:
    told = error(407, b"")
    assert isinstance(told, RefusedAddressError)
    assert "HTTPS_PROXY" in str(told)


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (500, b""),
        (502, b"<html>"),
        (504, b'{"code":-1007,"msg":"Timeout"}'),
        (400, b'{"code":-1008,"msg":"Overloaded"}'),
        (400, b'{"code":-1016,"msg":"Shutting down"}'),
    ],
)
def test_failures_of_the_exchange_are_transient(status: int, body: bytes) -> None:
    told = error(status, body)
    assert isinstance(told, TransientError)
    assert not isinstance(told, RateLimitedError)


def test_invalid_request_is_a_permanent_error() -> None:
    told = error(400, b'{"code":-1120,"msg":"Invalid interval."}')
    assert isinstance(told, PermanentError)
    assert "-1120 Invalid interval." in str(told)


def test_weight_of_the_minute_is_read_from_either_header() -> None:
    assert used_weight({"X-MBX-USED-WEIGHT": "7", "x-mbx-used-weight-1m": "9"}) == 9
    assert used_weight({"X-MBX-USED-WEIGHT": "7"}) == 7
    assert used_weight({"X-MBX-USED-WEIGHT-1D": "70"}) is None
    assert used_weight({"Content-Type": "text/html"}) is None
