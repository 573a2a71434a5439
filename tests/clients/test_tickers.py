"""Prices and books in short, and the fields that Binance's own models know."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest

from simulator.server import ExchangeThread
from tests.clients.exchanges import NOON_MS, ROUTES, SYMBOLS, config, control_answer, true_klines

Client = Callable[..., Any]


def true_top(exchange: ExchangeThread, market: str, symbol: str, **query: Any) -> tuple[int, Any]:
    """Update id of a book, and price and quantity of its best bid and of its best ask."""
    book = control_answer(exchange, "/sim/depth", market=market, symbol=symbol, **query)
    return book["lastUpdateId"], [*book["bids"][0], *book["asks"][0]]


def test_tickers_of_all_symbols_have_the_best_book_levels_and_last_trades(
    client: Client, standing: ExchangeThread
) -> None:
    quotes = client(standing, "quotes")
    names = [f"{market} {symbol}" for market, symbols in SYMBOLS.items() for symbol in symbols]
    assert sorted(quotes) == sorted(names)
    for name, (*best, last) in quotes.items():
        market, symbol = name.split()
        assert best == true_top(standing, market, symbol)[1]
        assert last == true_klines(standing, market, symbol, NOON_MS, NOON_MS)[0][4]


def test_streamed_tickers_have_the_best_book_levels_and_last_trades(client: Client) -> None:
    with ExchangeThread(config(speed=10)) as exchange:
        seen = client(exchange, "tops", wanted=12)
        for market, found in seen.items():
            assert_book_tickers_are_true(exchange, market, found["book"])
            for event_ms, _, highest, lowest, close, _, _ in found["mini"]:
                # to the microsecond: another trade may come in the rest of that millisecond
                query = {"symbol": "BTCUSDT", "endTime": event_ms * 1_000, "limit": 1}
                (last,) = control_answer(exchange, f"{ROUTES[market]}/aggTrades", **query)
                assert close == last["p"]
                assert Decimal(lowest) <= Decimal(close) <= Decimal(highest)


def assert_book_tickers_are_true(exchange: ExchangeThread, market: str, rows: list[Any]) -> None:
    """Where an update ends a step of the book, the book at that step says the same."""
    ids = [row[0] for row in rows]
    assert ids == sorted(ids)
    ends_of_steps = 0
    for update_id, *best in rows[:12]:
        true_id, true_best = true_top(exchange, market, "BTCUSDT", updateId=update_id)
        if true_id == update_id:
            ends_of_steps += 1
            assert best == true_best
    assert ends_of_steps >= 3


# --- Binance's own models of its answers

AFTER_A_MIGRATION = {"ps", "st"}
"""Fields that the models describe as coming with COIN-M's migration."""

ABSENT = {
    "spot exchange_info": {
        "sors",  # where orders are routed between symbols
        "count",  # of the WebSocket API's answers
        "opoAllowed",
        "pegInstructionsAllowed",
        "priceExponent",
    },
    "um exchange_information": {
        "settlePlan",
        # each kind of filter has some of them
        *("maxQty", "minQty", "stepSize", "limit", "notional"),
        *("multiplierUp", "multiplierDown", "multiplierDecimal"),
    },
}
UNKNOWN = {"um exchange_information": {"futuresType", "maxMoveOrderLimit", "permissionSets"}}
"""The exchange sends them; its models have them not."""


def field_names(paths: list[str]) -> set[str]:
    return {path.rpartition(".")[2] for path in paths}


@pytest.mark.parametrize("library", ["binance_sdk_models"], indirect=True)
@pytest.mark.parametrize("command", ["answers", "frames"])
def test_sdk_models_find_every_field_of_every_answer_and_frame(
    client: Client, command: str
) -> None:
    with ExchangeThread(config(speed=20)) as exchange:
        seen = client(exchange, command)
    assert len(seen) >= 20
    for name, found in seen.items():
        may_be_absent = AFTER_A_MIGRATION | ABSENT.get(name, set())
        assert field_names(found["absent"]) <= may_be_absent, name
        assert field_names(found["unknown"]) <= UNKNOWN.get(name, set()), name
