"""Request weights, compared with the exchange's published tables."""

from typing import Any

import pytest

from simulator.rest.weights import WEIGHTS

CASES: list[tuple[Any, str, dict[str, str], int]] = [
    ("spot", "depth", {}, 5),
    ("spot", "depth", {"limit": "100"}, 5),
    ("spot", "depth", {"limit": "101"}, 25),
    ("spot", "depth", {"limit": "500"}, 25),
    ("spot", "depth", {"limit": "501"}, 50),
    ("spot", "depth", {"limit": "1000"}, 50),
    ("spot", "depth", {"limit": "5000"}, 250),
    ("spot", "depth", {"limit": "many"}, 5),
    ("spot", "klines", {"limit": "1000"}, 2),
    ("spot", "uiKlines", {}, 2),
    ("spot", "trades", {}, 25),
    ("spot", "aggTrades", {}, 4),
    ("spot", "avgPrice", {}, 2),
    ("spot", "ticker", {"symbol": "A"}, 4),
    ("spot", "ticker", {"symbols": ",".join("A" * 5)}, 20),
    ("spot", "ticker", {"symbols": ",".join("A" * 80)}, 200),
    ("spot", "ticker/24hr", {"symbol": "A"}, 2),
    ("spot", "ticker/24hr", {"symbols": ",".join("A" * 20)}, 2),
    ("spot", "ticker/24hr", {"symbols": ",".join("A" * 21)}, 40),
    ("spot", "ticker/24hr", {"symbols": ",".join("A" * 101)}, 80),
    ("spot", "ticker/24hr", {}, 80),
    ("spot", "ticker/price", {"symbol": "A"}, 2),
    ("spot", "ticker/price", {}, 4),
    ("spot", "ticker/bookTicker", {"symbols": "[]"}, 4),
    ("um", "depth", {}, 10),
    ("um", "depth", {"limit": "50"}, 2),
    ("um", "depth", {"limit": "100"}, 5),
    ("um", "depth", {"limit": "1000"}, 20),
    ("um", "klines", {"limit": "100"}, 1),
    ("um", "klines", {"limit": "500"}, 2),
    ("um", "klines", {"limit": "1000"}, 5),
    ("um", "klines", {"limit": "1001"}, 10),
    ("um", "exchangeInfo", {}, 1),
    ("um", "trades", {}, 5),
    ("um", "historicalTrades", {}, 20),
    ("um", "ticker/price", {}, 2),
    ("um", "ticker/bookTicker", {"symbol": "A"}, 2),
    ("um", "ticker/bookTicker", {}, 5),
    ("um", "ticker/24hr", {}, 40),
]


@pytest.mark.parametrize(("market", "endpoint", "query", "weight"), CASES)
def test_request_has_its_published_weight(
    market: Any, endpoint: str, query: dict[str, str], weight: int
) -> None:
    assert WEIGHTS[market][endpoint](query) == weight
