"""REST through the libraries: pages of klines and trades, and the listings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from decimal import Decimal
from itertools import groupby
from typing import Any

import pytest

from simulator.server import ExchangeThread
from tests.clients.exchanges import MINUTE_MS, NOON_MS, SYMBOLS, true_klines

Client = Callable[..., Any]

START_MS, END_MS = NOON_MS - 3_500 * MINUTE_MS, NOON_MS - 300 * MINUTE_MS
"""3,201 minutes: several pages, however large a library makes them."""


@pytest.mark.parametrize(("market", "symbol"), [("spot", "ETHBTC"), ("um", "KEEPUSDT")])
def test_klines_of_many_pages_equal_the_oracle(
    client: Client, standing: ExchangeThread, market: str, symbol: str
) -> None:
    window = {"start_ms": START_MS, "end_ms": END_MS}
    rows = client(standing, "klines", market=market, symbol=symbol, interval="1m", **window)
    assert [row[0] for row in rows] == list(range(START_MS, END_MS + 1, MINUTE_MS))
    assert rows == true_klines(standing, market, symbol, START_MS, END_MS)


@pytest.mark.parametrize("library", ["ccxt"], indirect=True)
@pytest.mark.parametrize("market", ["spot", "um"])
def test_unified_call_pages_by_itself(
    client: Client, standing: ExchangeThread, market: str
) -> None:
    rows = client(standing, "unified_klines", market=market, start_ms=START_MS, end_ms=END_MS)
    true = true_klines(standing, market, "BTCUSDT", START_MS, END_MS)
    assert len(rows) > 3_000
    assert rows == [row[:6] for row in true][: len(rows)]


# --- trades


@pytest.mark.parametrize("market", ["spot", "um"])
def test_trades_by_id_are_complete_and_aggregate_to_the_klines(
    client: Client, standing: ExchangeThread, market: str
) -> None:
    start_ms, end_ms = NOON_MS - 22 * MINUTE_MS, NOON_MS - 10 * MINUTE_MS
    window = {"start_ms": start_ms, "end_ms": end_ms}
    seen = client(standing, "trades", market=market, symbol="BTCUSDT", **window)
    aggregates, fills = seen["aggregates"], seen["fills"]
    ids = [row[0] for row in aggregates]
    assert len(ids) > 1_000  # more than a page
    assert ids == list(range(ids[0], ids[0] + len(ids)))

    bought = {fill: not row[6] for row in aggregates for fill in range(row[3], row[4] + 1)}
    true = true_klines(standing, market, "BTCUSDT", start_ms, end_ms - 1)
    aggregated = [
        aggregated_minute(list(rows), bought) for _, rows in groupby(fills, key=minute_of)
    ]
    assert aggregated == [comparable(row) for row in true]
    assert_aggregates_are_sums(aggregates, fills)


def minute_of(fill: Sequence[Any]) -> int:
    return int(fill[3]) // MINUTE_MS * MINUTE_MS


def aggregated_minute(fills: list[Any], bought: dict[int, bool]) -> list[Any]:
    """Open time, o, h, l, c, volume, count, quote, and taker volumes of a minute's trades."""
    prices = [Decimal(fill[1]) for fill in fills]
    amounts = [Decimal(fill[2]) for fill in fills]
    quotes = [price * amount for price, amount in zip(prices, amounts, strict=True)]
    by_taker = [bought.get(fill[0], False) for fill in fills]
    return [
        minute_of(fills[0]), prices[0], max(prices), min(prices), prices[-1], sum(amounts),
        len(fills), sum(quotes),
        sum(amount for amount, taker in zip(amounts, by_taker, strict=True) if taker),
        sum(quote for quote, taker in zip(quotes, by_taker, strict=True) if taker),
    ]  # fmt: skip


def comparable(row: list[Any]) -> list[Any]:
    """A kline's columns in the order of `aggregated_minute`."""
    return [row[0], *map(Decimal, row[1:6]), row[8], *map(Decimal, (row[7], row[9], row[10]))]


def assert_aggregates_are_sums(aggregates: list[Any], fills: list[Any]) -> None:
    """Each aggregate is the sum of the fills that it names, at their price."""
    by_id = {fill[0]: fill for fill in fills}
    for _, price, quantity, first_id, last_id, time_ms, _ in aggregates:
        own = [by_id[fill] for fill in range(first_id, last_id + 1) if fill in by_id]
        assert sum(Decimal(fill[2]) for fill in own) == Decimal(quantity)
        assert {(fill[1], fill[3]) for fill in own} == {(price, time_ms)}


# --- listings


def test_prices_respect_the_steps_of_their_listings(
    client: Client, standing: ExchangeThread
) -> None:
    listings = client(standing, "listings")
    names = [f"{market} {symbol}" for market, symbols in SYMBOLS.items() for symbol in symbols]
    assert sorted(listings) == sorted(names)
    for name, (base, quote, tick, step) in listings.items():
        market, symbol = name.split()
        assert base + quote == symbol
        rows = true_klines(standing, market, symbol, NOON_MS - 500 * MINUTE_MS, NOON_MS)
        for row in rows:
            assert not any(Decimal(cell) % Decimal(tick) for cell in row[1:5])
            assert Decimal(row[5]) % Decimal(step) == 0
