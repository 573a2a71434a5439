"""Captured rows are stored once, whatever is repeated and whoever writes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any

import psycopg
import pytest

from include.binance.streams.book_tickers import BookTicker
from include.domain.instruments import Market
from include.domain.timeframes import DAY_US
from include.errors import PermanentError
from include.store.postgres.pools import connect_async
from include.store.trades.captured import (
    AGG_TRADES,
    BOOK_TICKERS,
    TRADES,
    days_of,
    may_bear_two_days,
    write_raw,
    write_raw_async,
)
from streamer.capture.intake.rows import Intake

Connection = psycopg.Connection[Any]
AT_US = 1_763_716_800_000_000
"""2025-11-21 09:20 UTC."""


def agg_line(
    number: int, *, symbol: str = "A", at_us: int | None = None, price: str = "2.5"
) -> str:
    moment_us = AT_US + number if at_us is None else at_us
    row = (symbol, number, Decimal(price), Decimal("1E-8"), number, number, moment_us, True)
    return AGG_TRADES.line(row)


def trade_line(number: int, quote: Decimal | None) -> str:
    return TRADES.line(("A", number, Decimal("2.5"), Decimal(2), quote, AT_US, False))


def book_ticker_row(number: int, event_us: int | None, received_us: int = AT_US) -> str:
    numbers = [Decimal(n) for n in (1, 2, 3, 0)]
    return BOOK_TICKERS.line(("A", number, *numbers, event_us, received_us))


def ids(connection: Connection) -> list[tuple[str, int]]:
    query = "SELECT symbol, agg_trade_id FROM market.agg_trades ORDER BY 1, 2"
    return connection.execute(query).fetchall()


@pytest.fixture
async def writer(database_url: str) -> AsyncIterator[psycopg.AsyncConnection[Any]]:
    connection = await connect_async(database_url, application_name="test-writer")
    await connection.execute("SET ROLE candelabra_streamer")
    yield connection
    await connection.close()


async def test_values_are_stored_exactly(
    connection: Connection, writer: psycopg.AsyncConnection[Any]
) -> None:
    await write_raw_async(writer, AGG_TRADES, [agg_line(7, symbol="Ж")])
    lines = [trade_line(1, None), trade_line(2, Decimal("5.00000001"))]
    await write_raw_async(writer, TRADES, lines)
    lines = [book_ticker_row(1, None), book_ticker_row(2, AT_US - 5)]
    await write_raw_async(writer, BOOK_TICKERS, lines)

    query = (
        "SELECT symbol, day, agg_trade_id, price, quantity, first_trade_id, last_trade_id,"
        " trade_time, is_buyer_maker FROM market.agg_trades"
    )
    assert connection.execute(query).fetchone() == (
        "Ж", connection.execute("SELECT date '2025-11-21'").fetchone()[0], 7, Decimal("2.5"),
        Decimal("0.00000001"), 7, 7,
        connection.execute("SELECT timestamptz '2025-11-21 09:20:00.000007Z'").fetchone()[0], True,
    )  # fmt: skip
    quotes = connection.execute("SELECT quote_quantity FROM market.trades ORDER BY trade_id")
    assert quotes.fetchall() == [(None,), (Decimal("5.00000001"),)]
    assert connection.execute(
        "SELECT update_id, event_time IS NULL, received_at = timestamptz '2025-11-21 09:20Z' "
        "FROM market.book_tickers ORDER BY 1"
    ).fetchall() == [(1, True, True), (2, False, True)]


async def test_lines_of_an_older_version_are_stored_without_a_type(
    connection: Connection, writer: psycopg.AsyncConnection[Any]
) -> None:
    older = [trade_line(number, None).removesuffix("\t\\N\n") + "\n" for number in (1, 2)]
    typed = TRADES.line(("A", 3, Decimal(1), Decimal(1), None, AT_US, True, "INSURANCE_FUND"))
    assert TRADES.padded([typed]) == [typed]

    await write_raw_async(writer, TRADES, [*TRADES.padded(older), typed])

    types = connection.execute("SELECT trade_type FROM market.trades ORDER BY trade_id")
    assert types.fetchall() == [(None,), (None,), ("INSURANCE_FUND",)]


async def test_existing_rows_are_left_unchanged(
    connection: Connection, writer: psycopg.AsyncConnection[Any]
) -> None:
    first = [agg_line(n) for n in range(5)]
    assert await write_raw_async(writer, AGG_TRADES, first) == (5, False)
    again = [agg_line(n) for n in (3, 4, 5, 5, 6)]
    assert await write_raw_async(writer, AGG_TRADES, again) == (2, True)
    expected = await write_raw_async(writer, AGG_TRADES, again, expect_repeats=True)
    assert expected == (0, True)
    assert ids(connection) == [("A", n) for n in range(7)]


async def test_partition_of_a_day_is_created_and_recreated(
    connection: Connection, writer: psycopg.AsyncConnection[Any]
) -> None:
    lines = [agg_line(1), agg_line(2, at_us=AT_US + DAY_US)]
    assert days_of(lines) == {"2025-11-21", "2025-11-22"}
    await write_raw_async(writer, AGG_TRADES, lines)
    connection.execute("DROP TABLE market.agg_trades_y2025m11d21")
    await write_raw_async(writer, AGG_TRADES, [agg_line(3)])
    assert ids(connection) == [("A", 2), ("A", 3)]


async def test_refused_row_rolls_back_the_batch_and_is_named(
    connection: Connection, writer: psycopg.AsyncConnection[Any]
) -> None:
    lines = [agg_line(1), agg_line(2, price="-1")]
    with pytest.raises(PermanentError, match="price_check") as refused:
        await write_raw_async(writer, AGG_TRADES, lines)
    assert isinstance(refused.value.__cause__, psycopg.errors.CheckViolation)
    assert ids(connection) == []


async def test_two_writers_of_the_same_rows_store_them_once(
    connection: Connection, database_url: str
) -> None:
    async def write(order: int) -> int:
        written = 0
        own = await connect_async(database_url, application_name=f"test-{order}")
        async with own:
            for start in range(0, 2_000, 100):
                lines = [agg_line(n) for n in range(start, start + 100)][::order]
                new, _ = await write_raw_async(own, AGG_TRADES, lines)
                written += new
        return written

    assert sum(await asyncio.gather(write(1), write(1))) == 2_000
    assert len(ids(connection)) == 2_000


MIDNIGHT_US = AT_US // DAY_US * DAY_US + DAY_US
BOOK_TICKER_DAYS = "SELECT day::text, update_id FROM market.book_tickers ORDER BY 2, 1"


def captured_lines(at_us: int, *numbers: int) -> list[str]:
    """An intake's lines for spot book tickers received at this time."""
    made = Intake([BOOK_TICKERS.name], max_rows=100, on_losses=lambda _: None, now_us=lambda: at_us)
    for number in numbers:
        made.on_book_ticker(Market.SPOT, BookTicker(number, "A", "1", "2", "3", "0"))
    return [line for lane in made.lanes.lanes for line in lane.rows]


@pytest.mark.parametrize("order", [1, -1])
async def test_book_ticker_received_on_two_days_is_stored_once(
    connection: Connection, writer: psycopg.AsyncConnection[Any], order: int
) -> None:
    days = [book_ticker_row(n, None, AT_US + n * DAY_US) for n in (0, 1)]
    await write_raw_async(writer, BOOK_TICKERS, days)
    before = captured_lines(MIDNIGHT_US - 1_000, 6, 7, 8)
    after = captured_lines(MIDNIGHT_US + 1_000, 7, 8, 9)
    for lines, told in zip((before, after)[::order], ((3, False), (1, True)), strict=True):
        assert await write_raw_async(writer, BOOK_TICKERS, lines) == told
    found = connection.execute(BOOK_TICKER_DAYS).fetchall()
    assert [number for _, number in found] == [0, 1, 6, 7, 8, 9]
    assert write_raw(connection, BOOK_TICKERS, [*before, *after]) == 0


async def test_book_tickers_away_from_midnight_are_distinct_by_day(
    connection: Connection, writer: psycopg.AsyncConnection[Any]
) -> None:
    minute = 60_000_000
    for moment_us in (MIDNIGHT_US - 3 * minute, MIDNIGHT_US, MIDNIGHT_US + minute):
        # an id that another instrument uses, and one with a time of the exchange
        lines = [book_ticker_row(1, None, moment_us), book_ticker_row(2, moment_us, moment_us)]
        assert may_bear_two_days(BOOK_TICKERS, lines) == (moment_us == MIDNIGHT_US)
        assert not may_bear_two_days(BOOK_TICKERS, lines[1:])
        await write_raw_async(writer, BOOK_TICKERS, lines)
    assert connection.execute(BOOK_TICKER_DAYS).fetchall() == [
        ("2025-11-21", 1), ("2025-11-22", 1), ("2025-11-21", 2), ("2025-11-22", 2),
    ]  # fmt: skip
    await write_raw_async(writer, BOOK_TICKERS, [book_ticker_row(3, MIDNIGHT_US - 1, MIDNIGHT_US)])
    await write_raw_async(writer, BOOK_TICKERS, [book_ticker_row(3, None, MIDNIGHT_US + 1)])
    assert connection.execute(BOOK_TICKER_DAYS).fetchall()[4:] == [
        ("2025-11-21", 3),
        ("2025-11-22", 3),
    ]


async def test_two_writers_around_midnight_store_book_tickers_once(
    connection: Connection, database_url: str
) -> None:
    numbers = range(1, 2_001)

    async def write(at_us: int) -> int:
        written = 0
        own = await connect_async(database_url, application_name="test-midnight")
        async with own:
            for start in range(0, 2_000, 50):
                lines = [book_ticker_row(n, None, at_us) for n in numbers[start : start + 50]]
                written += (await write_raw_async(own, BOOK_TICKERS, lines))[0]
        return written

    moments = (MIDNIGHT_US - 1_000, MIDNIGHT_US + 1_000, MIDNIGHT_US - 500, MIDNIGHT_US + 500)
    assert sum(await asyncio.gather(*map(write, moments))) == 2_000
    found = connection.execute(BOOK_TICKER_DAYS).fetchall()
    assert [number for _, number in found] == list(numbers)


def test_blocking_version_stores_rows_once(connection: Connection) -> None:
    lines = [agg_line(n) for n in (2, 1, 2)]
    assert write_raw(connection, AGG_TRADES, lines) == 2
    assert write_raw(connection, AGG_TRADES, lines) == 0
