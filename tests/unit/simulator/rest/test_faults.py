"""Fault rules of REST and the requests they match."""

from typing import Any

import pytest

from simulator.rest.faults import (
    AbortConnection,
    DelayAnswer,
    DropLastRows,
    KlineLag,
    RefuseRequest,
    RestFaults,
    RestRule,
    TradeLag,
    TruncateBody,
    default_error,
)


@pytest.mark.parametrize(
    ("wanted", "request_of", "is_meant"),
    [
        ({}, ("spot", "klines", "BTCUSDT"), True),
        ({}, ("um", "ping", ""), True),
        ({"market": "um"}, ("spot", "klines", "BTCUSDT"), False),
        ({"endpoint": "ticker/*"}, ("spot", "ticker/price", ""), True),
        ({"endpoint": "ticker/*"}, ("spot", "klines", "BTCUSDT"), False),
        ({"symbol": "BTC*"}, ("spot", "klines", "BTCUSDT"), True),
        ({"symbol": "BTC*"}, ("spot", "klines", "ETHBTC"), False),
        ({"symbol": "BTC*"}, ("spot", "exchangeInfo", ""), False),
    ],
)
def test_rule_matches_market_endpoint_and_symbol(
    wanted: dict[str, Any], request_of: tuple[Any, str, str], is_meant: bool
) -> None:
    faults = RestFaults()
    faults.add(RestRule(effect=DelayAnswer(seconds=1), **wanted))
    assert faults.effects(*request_of) == ([DelayAnswer(seconds=1)] if is_meant else [])
    assert faults.active()[0].hits == is_meant


def test_greatest_lag_applies() -> None:
    faults = RestFaults()
    assert faults.kline_lag_us("spot", "BTCUSDT", 800) == 800
    faults.add(RestRule(effect=KlineLag(lag_us=5), symbol="BTC*"))
    faults.add(RestRule(effect=KlineLag(lag_us=9), market="spot"))
    faults.add(RestRule(effect=TradeLag(lag_us=70)))
    assert faults.kline_lag_us("spot", "BTCUSDT", 800) == 9
    assert faults.kline_lag_us("um", "BTCUSDT", 800) == 5
    assert faults.kline_lag_us("um", "ETHUSDT", 800) == 800
    assert faults.trade_lag_us("um", "ETHUSDT", 250) == 70
    assert faults.effects("spot", "klines", "BTCUSDT") == []


@pytest.mark.parametrize(
    ("effect", "values", "word"),
    [
        (DelayAnswer, {"seconds": -1}, "seconds"),
        (DelayAnswer, {"seconds": 1e9}, "seconds"),
        (RefuseRequest, {"status": 200}, "status"),
        (RefuseRequest, {"status": 600}, "status"),
        (KlineLag, {"lag_us": -1}, "lag_us"),
        (TradeLag, {"lag_us": -1}, "lag_us"),
        (TruncateBody, {"keep_percent": 100}, "keep_percent"),
        (AbortConnection, {"keep_percent": -1}, "keep_percent"),
        (DropLastRows, {"rows": 0}, "rows"),
    ],
)
def test_impossible_effects_are_refused_by_name(effect: Any, values: Any, word: str) -> None:
    with pytest.raises(ValueError, match=word):
        effect(**values)


def test_rule_without_hits_is_refused() -> None:
    with pytest.raises(ValueError, match="times"):
        RestRule(effect=DelayAnswer(seconds=1), times=0)


@pytest.mark.parametrize(
    ("status", "code"), [(403, -1000), (418, -1003), (429, -1003), (500, -1001), (503, -1008)]
)
def test_statuses_have_the_exchanges_codes(status: int, code: int) -> None:
    body = default_error(status, now_us=0)
    assert body["code"] == code
    assert body["msg"]
