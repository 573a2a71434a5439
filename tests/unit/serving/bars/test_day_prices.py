"""The day of each symbol, from the table and from what comes live."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from include.domain.candles import Candle, silent_candle
from include.domain.day_prices import DayPrices
from include.domain.timeframes import DAY_US, MINUTE_US
from include.errors import TransientError
from serving.bars import day_prices as module
from serving.bars.day_prices import DayPriceCache

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
) -> DayPriceCache:
    names = ["BTCUSDT"] if streamed is None else streamed
    return DayPriceCache(
        table,  # type: ignore[arg-type]
        streamed=lambda: names,
        newest=lambda _symbol: newest,
        now_us=lambda: T0 + 5 * MINUTE_US,
    )


@asynccontextmanager
async def reading(prices: DayPriceCache) -> AsyncIterator[None]:
    running = asyncio.create_task(prices.run())
    await asyncio.sleep(0)  # it reads from now on
    try:
        yield
        assert not running.done()
    finally:
        running.cancel()
        await asyncio.wait([running], timeout=10)


async def until_whole(prices: DayPriceCache) -> DayPrices:
    async with asyncio.timeout(30):
        while True:
            for day, is_whole in await prices.of(["BTCUSDT"]):
                if is_whole:
                    return day
            await asyncio.sleep(0.001)


async def test_live_minutes_are_not_overwritten_by_the_table() -> None:
    prices = prices_of(Table(candle(-1), candle(0, "2")))
    prices.candle_closed(candle(0, "3"))
    async with reading(prices):
        [(day, is_whole)] = await prices.of(["BTCUSDT"])
    assert (day.open, day.last, day.minute_count, is_whole) == (1, 3, 2, True)


async def test_open_minute_has_the_last_price() -> None:
    prices = prices_of(Table(), newest=candle(1, "9"))
    prices.candle_closed(candle(0))
    [(day, is_whole)] = await prices.of(
        ["BTCUSDT"]
    )  # no task reads the table, so it is not waited for
    assert (day.last, day.minute_count, is_whole) == (9, 2, False)
    assert await prices_of(Table()).of(["BTCUSDT"]) == []


async def test_unstreamed_symbol_has_no_day_prices_and_no_wait() -> None:
    prices = prices_of(Table())
    async with reading(prices), asyncio.timeout(module.WAIT_S / 2):
        assert await prices.of(["NONEUSDT"]) == []


async def test_failed_read_is_retried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BACKOFF", module.Backoff(first_s=0.001, max_s=0.001))
    table = Table(candle(0))
    table.failures = [TransientError("away"), TimeoutError()]
    prices = prices_of(table)
    async with reading(prices):
        await until_whole(prices)
    assert table.calls == 3


async def test_readers_do_not_wait_for_an_unavailable_table() -> None:
    table = Table()
    table.failures = [TransientError("away")] * 9
    prices = prices_of(table, newest=candle(1, "9"))
    async with reading(prices), asyncio.timeout(module.WAIT_S / 2):
        [(day, is_whole)] = await prices.of(["BTCUSDT"])
        assert (day.last, is_whole) == (9, False)
        await prices.of(["BTCUSDT"])
    assert table.calls == 1


async def test_lagging_table_is_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Minutes that were forgotten here, and had not been written when the table was read."""
    monkeypatch.setattr(module, "POLL_INTERVAL_S", 0.001)
    table = Table(candle(-9), candle(-8))
    prices = prices_of(table)
    prices.candle_closed(candle(0))
    [(_, is_whole)] = await prices.of(["BTCUSDT"])
    assert not is_whole
    await prices._read_day("BTCUSDT", T0)
    [(day, is_whole)] = await prices.of(["BTCUSDT"])
    assert (day.minute_count, is_whole) == (3, False)
    table.rows.append(candle(-1))
    async with reading(prices):
        day = await until_whole(prices)
    assert (day.minute_count, table.calls) == (4, 2)


async def test_old_repaired_minute_leaves_the_day_complete() -> None:
    table = Table(candle(-1))
    prices = prices_of(table)
    assert await prices.of(["BTCUSDT"]) == []
    prices.candle_closed(candle(0))
    prices.candle_closed(candle(-2 * DAY_US // MINUTE_US))
    async with reading(prices):
        day = await until_whole(prices)
    assert (day.minute_count, table.calls) == (2, 1)


async def test_wait_for_a_minute_missing_in_the_table_ends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "POLL_INTERVAL_S", 0.001)
    table = Table(candle(-9))
    prices = prices_of(table)
    prices.candle_closed(candle(0))
    async with reading(prices):
        await until_whole(prices)
    assert table.calls == module.READS


async def test_removed_symbol_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "POLL_INTERVAL_S", 0.001)
    names = ["BTCUSDT"]
    prices = prices_of(Table(candle(0)), streamed=names)
    async with reading(prices):
        await until_whole(prices)
        names.clear()
        assert await prices.of(["BTCUSDT"]) == []
        async with asyncio.timeout(30):
            while prices._days or prices._recent or prices._traded:
                await asyncio.sleep(0.001)


@pytest.mark.parametrize("is_asked", [False, True])
async def test_day_restarts_when_the_ticker_is_reused(*, is_asked: bool) -> None:
    prices = prices_of(Table())
    if is_asked:
        assert await prices.of(["BTCUSDT"]) == []
    for index, first_id, close in ((0, 70_000, "99"), (1, 70_100, "98"), (2, 5, "3"), (3, 9, "4")):
        ids = {"first_trade_id": first_id, "last_trade_id": first_id, "trade_count": 1}
        prices.candle_closed(replace(candle(index, close), **ids))
    [(day, is_whole)] = await prices.of(["BTCUSDT"])
    assert (day.open, day.high, day.last, day.minute_count) == (3, 4, 4, 2)
    assert is_whole == is_asked  # else the registry says which rows of the table are its own


async def test_only_days_of_requested_symbols_are_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Minutes of all symbols end together, and a day takes tens of kilobytes."""
    names = [f"S{number:02}USDT" for number in range(20)]
    made: list[str] = []

    class Noted(module.DayOfMinutes):
        def __init__(self, symbol: str) -> None:
            super().__init__(symbol)
            made.append(symbol)

    monkeypatch.setattr(module, "DayOfMinutes", Noted)
    monkeypatch.setattr(module, "POLL_INTERVAL_S", 0.001)
    table = Table()
    prices = prices_of(table, streamed=names)
    minutes = 2 * module.RECENT
    for index in range(minutes):
        for name in names:
            prices.candle_closed(replace(candle(index, str(index + 1)), symbol=name))
    async with reading(prices):
        [(asked, _)] = await prices.of(["S07USDT"])
    assert made == ["S07USDT"]
    assert (asked.last, asked.minute_count) == (minutes, module.RECENT)
    assert {len(one) for one in prices._recent.values()} == {module.RECENT}


async def test_other_tasks_run_while_many_days_are_summed() -> None:
    names = [f"S{number:03}USDT" for number in range(100)]
    prices = prices_of(Table(), streamed=names)
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(other())
    await prices.of(names)
    task.cancel()
    assert turns >= len(names) // module.SYMBOLS_A_TURN
