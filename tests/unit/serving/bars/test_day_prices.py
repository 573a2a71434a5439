"""The day of each symbol, from the table and from what comes live."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from include.domain.candles import Candle, silent_candle
from include.domain.day_prices import MINUTES
from include.domain.ranges import Ranges, united
from include.domain.timeframes import MINUTE_US
from include.errors import TransientError
from include.store.candles.day_minutes import StoredDay
from serving.bars import day_prices as module
from serving.bars.day_prices import DayAnswer, DayPriceCache
from streamer.hub.subscription import CandleUpdate

T0 = 1_800_000_000_000_000 // MINUTE_US * MINUTE_US


def candle(index: int, close: str = "1") -> Candle:
    return silent_candle("BTCUSDT", T0 + index * MINUTE_US, Decimal(close))


def update(index: int, close: str = "1") -> CandleUpdate:
    return CandleUpdate(candle(index, close), is_closed=True)


class Table:
    """A history that a test fills; it is also the connection of the reading functions."""

    def __init__(self, *rows: Candle) -> None:
        self.rows = list(rows)
        self.excused: Ranges = []
        self.listed_us = 0
        self.changed: list[tuple[int, int]] = []
        self.failures: list[Exception] = []
        self.days_read = 0

    async def call(self, call: Callable[[Any], Any]) -> Any:
        if self.failures:
            raise self.failures.pop()
        return call(self)

    def write(self, *rows: Candle) -> None:
        """Replace minutes, and log them as changed."""
        minutes = {row.open_time_us: row for row in (*self.rows, *rows)}
        self.rows = list(minutes.values())
        self.changed += [(row.open_time_us, row.open_time_us + MINUTE_US) for row in rows]

    def read_day(self, _symbol: str, start_us: int, end_us: int) -> StoredDay:
        self.days_read += 1
        first_us = max(start_us, self.listed_us)
        rows = [row for row in self.rows if first_us <= row.open_time_us < end_us]
        return StoredDay(self.listed_us, rows, self.excused)

    def take_changes(self, *_: object) -> tuple[str, dict[str, Ranges]]:
        changed, self.changed = self.changed, []
        return "later", {"BTCUSDT": united(changed)} if changed else {}

    def read_ranges(self, ranges: Sequence[tuple[str, int, int]]) -> list[Candle]:
        return [
            row
            for _, start_us, end_us in ranges
            for row in self.rows
            if start_us <= row.open_time_us < end_us
        ]


@pytest.fixture(autouse=True)
def played_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "POLL_INTERVAL_S", 0.001)
    monkeypatch.setattr(module, "current_snapshot", lambda _table: "now")
    monkeypatch.setattr(module, "changed_minutes", Table.take_changes)
    monkeypatch.setattr(module, "read_stored_day", Table.read_day)
    monkeypatch.setattr(module, "read_ranges", Table.read_ranges)


def prices_of(
    table: Table, *, streamed: list[str] | None = None, newest: CandleUpdate | None = None
) -> DayPriceCache:
    names = ["BTCUSDT"] if streamed is None else streamed
    return DayPriceCache(
        table,  # type: ignore[arg-type]
        streamed=lambda: names,
        newest=lambda _symbol: newest,
        now_us=lambda: T0 + 4 * MINUTE_US,
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


async def until(prices: DayPriceCache, holds: Callable[[DayAnswer], bool]) -> DayAnswer:
    async with asyncio.timeout(30):
        while True:
            for answer in await prices.of(["BTCUSDT"]):
                if holds(answer):
                    return answer
            await asyncio.sleep(0.001)


async def until_read(prices: DayPriceCache) -> DayAnswer:
    return await until(prices, lambda answer: answer.missing_minutes is not None)


def day_before(newest: int, *, close: str = "1", without: tuple[int, ...] = ()) -> list[Candle]:
    """Minutes of the 24 hours up to a minute, except some."""
    first = newest - MINUTES + 1
    return [candle(index, close) for index in range(first, newest + 1) if index not in without]


async def test_live_minutes_are_not_overwritten_by_the_table() -> None:
    prices = prices_of(Table(candle(-1), candle(0, "2")))
    prices.candle_closed(update(0, "3"))
    async with reading(prices):
        answer = await until_read(prices)
    day = answer.prices
    assert (day.open, day.last, day.minute_count) == (1, 3, 2)
    assert (answer.missing_minutes, answer.is_whole) == (MINUTES - 2, False)


async def test_open_minute_has_the_last_price() -> None:
    prices = prices_of(Table(), newest=update(1, "9"))
    prices.candle_closed(update(0))
    [answer] = await prices.of(["BTCUSDT"])  # no task reads the table, so it is not waited for
    assert (answer.prices.last, answer.prices.minute_count) == (9, 2)
    assert (answer.missing_minutes, answer.is_whole) == (None, False)
    assert await prices_of(Table()).of(["BTCUSDT"]) == []


async def test_history_loaded_after_the_first_request_is_included() -> None:
    table = Table()
    prices = prices_of(table)
    prices.candle_closed(update(0, "3"))
    async with reading(prices):
        answer = await until_read(prices)
        assert (answer.missing_minutes, answer.prices.open) == (MINUTES - 1, 3)
        table.write(*day_before(-1, close="2"))
        answer = await until(prices, lambda answer: answer.is_whole)
    assert (answer.prices.open, answer.prices.change, answer.missing_minutes) == (2, 1, 0)


async def test_minute_revised_in_the_table_is_read_again() -> None:
    """Only that minute, once it has left the memory; the newest ones are known better here."""
    table = Table(*day_before(0))
    prices = prices_of(table, newest=update(0))
    async with reading(prices):
        await until(prices, lambda answer: answer.is_whole)
        traded = {"high": Decimal(7), "trade_count": 1, "volume": Decimal(2)}
        table.write(replace(candle(-100), **traded), replace(candle(-1), **traded))
        answer = await until(prices, lambda answer: answer.prices.trade_count == 1)
        assert (answer.prices.high, answer.prices.volume) == (7, 2)
        for index in range(1, 4):
            prices.candle_closed(update(index))
            assert (await prices.of(["BTCUSDT"]))[0].prices.trade_count == 1
        prices.candle_closed(update(4))
        await until(prices, lambda answer: answer.prices.trade_count == 2)
    assert table.days_read == 1


async def test_minute_that_was_corrected_before_the_first_read_is_right_in_the_end() -> None:
    """Memory has the stream's candle; another process had corrected the table before."""
    corrected = replace(candle(0), high=Decimal(7), trade_count=1, volume=Decimal(2))
    prices = prices_of(Table(*day_before(-1), corrected))
    prices.candle_closed(update(0))
    async with reading(prices):
        answer = await until(prices, lambda answer: answer.is_whole)
        assert answer.prices.trade_count == 0
        for index in range(1, 6):
            prices.candle_closed(update(index))
        await until(prices, lambda answer: answer.prices.trade_count == 1)


async def test_deleted_minute_is_missing() -> None:
    table = Table(*day_before(0))
    prices = prices_of(table, newest=update(0))
    async with reading(prices):
        await until(prices, lambda answer: answer.is_whole)
        table.rows.remove(candle(-100))
        table.changed.append((T0 - 100 * MINUTE_US, T0 - 99 * MINUTE_US))
        answer = await until(prices, lambda answer: not answer.is_whole)
    assert (answer.missing_minutes, answer.prices.minute_count) == (1, MINUTES - 1)


async def test_outages_and_time_before_the_listing_are_excused() -> None:
    table = Table(*day_before(0, without=(-50, -51)))
    prices = prices_of(table, newest=update(0))
    async with reading(prices):
        answer = await until_read(prices)
        assert answer.missing_minutes == 2
        outage = (T0 - 51 * MINUTE_US, T0 - 50 * MINUTE_US)
        table.excused.append(outage)
        table.changed.append(outage)
        answer = await until(prices, lambda answer: answer.missing_minutes == 1)
        assert not answer.is_whole
        table.listed_us = T0 - 49 * MINUTE_US
        table.changed.append(outage)
        answer = await until(prices, lambda answer: answer.is_whole)
    assert answer.prices.minute_count == 50


async def test_unstreamed_symbol_has_no_day_prices_and_no_wait() -> None:
    prices = prices_of(Table())
    async with reading(prices), asyncio.timeout(module.WAIT_S / 2):
        assert await prices.of(["NONEUSDT"]) == []


async def test_everything_is_read_again_after_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another server may answer, and its change log tells nothing of what was read before."""
    monkeypatch.setattr(module, "BACKOFF", module.Backoff(first_s=0.001, max_s=0.001))
    table = Table(candle(0))
    prices = prices_of(table)
    async with reading(prices):
        await until_read(prices)
        table.rows.append(candle(-9))  # not in the log
        table.failures = [TransientError("away"), TimeoutError()]
        await until(prices, lambda answer: answer.prices.minute_count == 2)
    assert table.days_read == 2


async def test_readers_do_not_wait_for_an_unavailable_table() -> None:
    table = Table()
    table.failures = [TransientError("away")] * 9
    prices = prices_of(table, newest=update(1, "9"))
    async with reading(prices), asyncio.timeout(module.WAIT_S / 2):
        [answer] = await prices.of(["BTCUSDT"])
        assert (answer.prices.last, answer.is_whole) == (9, False)
        await prices.of(["BTCUSDT"])
    assert (len(table.failures), table.days_read) == (8, 0)


async def test_old_repaired_minute_is_not_part_of_the_day() -> None:
    table = Table(candle(-1))
    prices = prices_of(table)
    assert await prices.of(["BTCUSDT"]) == []
    prices.candle_closed(update(0))
    prices.candle_closed(update(-2 * MINUTES))
    async with reading(prices):
        answer = await until_read(prices)
    assert (answer.prices.minute_count, table.days_read) == (2, 1)


async def test_removed_symbol_is_forgotten() -> None:
    names = ["BTCUSDT"]
    prices = prices_of(Table(candle(0)), streamed=names)
    async with reading(prices):
        await until_read(prices)
        names.clear()
        assert await prices.of(["BTCUSDT"]) == []
        async with asyncio.timeout(30):
            while prices._days or prices._recent or prices._traded:
                await asyncio.sleep(0.001)


@pytest.mark.parametrize("is_asked", [False, True])
async def test_day_restarts_when_the_ticker_is_reused(*, is_asked: bool) -> None:
    table = Table()
    prices = prices_of(table)
    if is_asked:
        assert await prices.of(["BTCUSDT"]) == []
    for index, first_id, close in ((0, 70_000, "99"), (1, 70_100, "98"), (2, 5, "3"), (3, 9, "4")):
        ids = {"first_trade_id": first_id, "last_trade_id": first_id, "trade_count": 1}
        prices.candle_closed(CandleUpdate(replace(candle(index, close), **ids), is_closed=True))
    [answer] = await prices.of(["BTCUSDT"])
    day = answer.prices
    assert (day.open, day.high, day.last, day.minute_count) == (3, 4, 4, 2)
    table.listed_us = 0 if is_asked else T0 + 2 * MINUTE_US  # else the registry tells
    table.rows = day_before(1, close="99")
    async with reading(prices):
        answer = await until_read(prices)
    assert (answer.prices.open, answer.prices.minute_count) == (3, 2)
    assert answer.is_whole


async def test_only_days_of_requested_symbols_are_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Minutes of all symbols end together, and a day takes tens of kilobytes."""
    names = [f"S{number:02}USDT" for number in range(20)]
    made: list[str] = []

    class Noted(module.DayOfMinutes):
        def __init__(self, symbol: str) -> None:
            super().__init__(symbol)
            made.append(symbol)

    monkeypatch.setattr(module, "DayOfMinutes", Noted)
    table = Table()
    prices = prices_of(table, streamed=names)
    minutes = 2 * module.RECENT
    for index in range(minutes):
        for name in names:
            other = replace(candle(index, str(index + 1)), symbol=name)
            prices.candle_closed(CandleUpdate(other, is_closed=True))
    async with reading(prices):
        [answer] = await prices.of(["S07USDT"])
    asked = answer.prices
    assert set(made) == {"S07USDT"}
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


async def test_quote_volume_is_null_while_that_of_a_minute_is_unknown() -> None:
    traded = replace(
        candle(0), trade_count=1, volume=Decimal(2), quote_volume=Decimal("2.12345678")
    )
    inexact = CandleUpdate(
        replace(traded, quote_volume=Decimal("2.1234567890123456")),
        is_closed=True,
        has_quotes=False,
    )
    prices = prices_of(Table(*day_before(-1)), newest=inexact)
    async with reading(prices):
        answer = await until(prices, lambda answer: answer.is_whole)
        assert (answer.prices.volume, answer.prices.quote_volume) == (2, None)
        prices.candle_closed(update(1))
        prices._newest = lambda _symbol: update(1)
        [answer] = await prices.of(["BTCUSDT"])
        assert answer.prices.quote_volume is None  # the minute before still lacks its kline
        prices.candle_closed(CandleUpdate(traded, is_closed=True))
        [answer] = await prices.of(["BTCUSDT"])
        assert answer.prices.quote_volume == Decimal("2.12345678")
