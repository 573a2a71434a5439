"""What the exchange refuses arrives as the library's own exception."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from simulator.server import ExchangeThread
from tests.clients.exchanges import config

Client = Callable[..., Any]

CLASSES = {
    "python_binance": {
        "invalid symbol": "BinanceAPIException",
        "invalid interval": "BinanceAPIException",
        "futures limit": "BinanceAPIException",
        "too much weight": "BinanceAPIException",
        "ban": "BinanceAPIException",
    },
    "ccxt": {
        "invalid symbol": "BadSymbol",
        "invalid interval": "BadRequest",
        "futures limit": "BadRequest",
        "too much weight": "DDoSProtection",
        "ban": "DDoSProtection",
    },
    "binance_sdk": {
        "invalid symbol": "BadRequestError",
        "invalid interval": "BadRequestError",
        "futures limit": "BadRequestError",
        "too much weight": "TooManyRequestsError",
        "ban": "RateLimitBanError",
    },
}
ANSWERS = {
    "invalid symbol": (400, -1121),
    "invalid interval": (400, -1120),
    "futures limit": (400, -1130),
    "too much weight": (429, -1003),
    "ban": (418, -1003),
}


def test_refusals_and_bans_raise_library_exceptions_and_the_weight_is_known(
    library: str, client: Client
) -> None:
    with ExchangeThread(config(spot_weight_limit=200)) as exchange:
        seen = client(exchange, "errors")
    assert seen.pop("weight of klines") == 2
    assert {name: answer["class"] for name, answer in seen.items()} == CLASSES[library]
    assert {name: (one["status"], one["code"]) for name, one in seen.items()} == ANSWERS
    assert 0 < seen["too much weight"]["retry_after"] <= 60  # the rest of the minute
    assert 115 < seen["ban"]["retry_after"] <= 120  # the first ban takes two minutes
