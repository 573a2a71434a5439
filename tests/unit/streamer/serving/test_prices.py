"""The day of each symbol, from the table and from what comes live."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from include.domain.candles import Candle, silent_candle
from include.domain.timeframes import MINUTE_US
from include.errors import TransientError
from streamer.serving import prices as module
from streamer.serving.prices import Prices

T0 = 1_800_000_000_000_000 // MINUTE_US * MINUTE_US


def candle(index: int, close: str = "1") -> Candle:
    return silent_candle("BTCUSDT", T0 + index * MINUTE_US, Decimal(close))


class Table:
    """A history that a test fills; it reads by its own rows, whatever the call."""

    def __init__(self, *rows: Candle) -> None:
        self.rows = list(rows)
        self.failures: list[Exception] = []
        self.calls = 0

    async def call(self, _call: Callable[[Any], Any]) -> list[Candle]:
        self.calls += 1
        if self.failures:
            raise self.failures.pop()
        return self.rows


def prices_of(
    table: Table, *, streamed: list[str] | None = None, newest: Candle | None = None
) -> Prices:
    names = ["BTCUSDT"] if streamed is None else streamed
    return Prices(
        table,  # type: ignore[arg-type]
        streamed=lambda: names,
        newest=lambda _symbol: newest,
        now_us=lambda: T0 + 5 * MINUTE_US,
    )


async def until(prices: Prices, holds: Callable[[], bool]) -> None:
    running = asyncio.create_task(prices.run())
    try:
        async with asyncio.timeout(30):
            while not holds():
                assert not running.done()
                await asyncio.sleep(0.001)
    finally:
        running.cancel()
        await asyncio.wait([running])


async def test_what_came_live_is_not_overwritten_by_the_table() -> None:
    prices = prices_of(Table(candle(-1), candle(0, "2")))
    prices.settled(candle(0, "3"))
    await until(prices, lambda: prices.is_whole("BTCUSDT"))
    day = prices.of("BTCUSDT")
    assert day is not None
    assert (day.open, day.last, day.minute_count) == (1, 3, 2)


async def test_the_open_minute_is_the_last_price() -> None:
    prices = prices_of(Table(), newest=candle(1, "9"))
    prices.settled(candle(0))
    day = prices.of("BTCUSDT")
    assert day is not None
    assert (day.last, day.minute_count) == (9, 2)
    assert not prices.is_whole("BTCUSDT")
    assert prices_of(Table()).of("BTCUSDT") is None


async def test_a_table_that_is_away_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BACKOFF", module.Backoff(first_s=0.001, most_s=0.001))
    monkeypatch.setattr(module, "LOOK_S", 0.001)
    table = Table(candle(0))
    table.failures = [TransientError("away"), TimeoutError()]
    prices = prices_of(table)
    await until(prices, lambda: prices.is_whole("BTCUSDT"))
    assert table.calls == 3


async def test_a_symbol_that_left_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOOK_S", 0.001)
    names = ["BTCUSDT"]
    prices = prices_of(Table(candle(0)), streamed=names)

    def is_known() -> bool:
        return prices.of("BTCUSDT") is not None

    await until(prices, is_known)
    names.clear()
    await until(prices, lambda: not is_known())
    assert not prices.is_whole("BTCUSDT")


@pytest.mark.parametrize("is_read", [False, True])
async def test_the_day_begins_anew_where_the_ticker_was_given_to_another_instrument(
    *, is_read: bool
) -> None:
    prices = prices_of(Table())
    if is_read:
        await until(prices, lambda: prices.is_whole("BTCUSDT"))
    for index, first_id, close in ((0, 70_000, "99"), (1, 70_100, "98"), (2, 5, "3"), (3, 9, "4")):
        ids = {"first_trade_id": first_id, "last_trade_id": first_id, "trade_count": 1}
        prices.settled(replace(candle(index, close), **ids))
    assert bool(prices._waiting) != is_read
    day = prices.of("BTCUSDT")
    assert day is not None
    assert (day.open, day.high, day.last, day.minute_count) == (3, 4, 4, 2)


async def test_minutes_that_end_at_once_wait_for_a_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    """A day is made where somebody asks, or between other works, and has what waited."""
    names = [f"S{number:02}USDT" for number in range(20)]
    made: list[str] = []

    class Noted(module.DayOfMinutes):
        def __init__(self, symbol: str) -> None:
            super().__init__(symbol)
            made.append(symbol)

    monkeypatch.setattr(module, "DayOfMinutes", Noted)
    table = Table()
    table.failures = [TransientError("away")] * 9
    prices = prices_of(table, streamed=names)
    for index in (0, 1):
        for name in names:
            prices.settled(replace(candle(index, str(index + 1)), symbol=name))
    assert not made
    asked = prices.of("S07USDT")
    assert asked is not None
    assert (asked.open, asked.last, asked.minute_count) == (1, 2, 2)
    assert made == ["S07USDT"]
    await until(prices, lambda: len(made) == len(names))  # whether there is a table or not
    assert table.calls == 1
    assert not prices._waiting
