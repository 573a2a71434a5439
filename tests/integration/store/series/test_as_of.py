"""What was known of a future at a moment: later rows never change it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import psycopg
import pytest

from include.domain.series.kinds import Series
from include.store.series.merging import merge_series

Connection = psycopg.Connection[Any]

SYMBOL = "BTCUSDT.P"
NOON = datetime(2026, 11, 1, 12, tzinfo=UTC)
MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)


def as_of(connection: Connection, moment: datetime) -> tuple[Any, ...]:
    row = connection.execute(
        "SELECT * FROM market.derivatives_as_of(%s, %s)", (SYMBOL, moment)
    ).fetchone()
    assert row is not None
    return row


def price(connection: Connection, series: Series, open_time: datetime, close: int) -> None:
    merge_series(
        connection,
        series,
        [(SYMBOL, open_time, close, close, close, close, "verified", "rest", NOON)],
    )


def settle(connection: Connection, at: datetime, rate: str, hours: int | None = None) -> None:
    late = at + timedelta(milliseconds=3)
    merge_series(
        connection,
        Series.FUNDING,
        [(SYMBOL, at, rate, late, None, hours, "verified", "rest", NOON)],
    )


def interest(connection: Connection, at: datetime, amount: int) -> None:
    merge_series(
        connection,
        Series.OPEN_INTEREST,
        [(SYMBOL, at, amount, amount, "verified", "rest", NOON)],
    )


@pytest.fixture
def stored(connection: Connection) -> Connection:
    """Prices of the minute before noon, settlements at 0 and 8 o'clock, open interest at noon."""
    price(connection, Series.MARK, NOON - MINUTE, 100)
    price(connection, Series.INDEX, NOON - MINUTE, 101)
    settle(connection, NOON - 12 * HOUR, "0.0001")
    settle(connection, NOON - 4 * HOUR, "0.0002")
    interest(connection, NOON, 7)
    return connection


def test_the_last_values_are_returned_with_their_times(stored: Connection) -> None:
    assert as_of(stored, NOON) == (
        Decimal(100), NOON, Decimal(101), NOON,
        Decimal("0.0002"), NOON - 4 * HOUR + timedelta(milliseconds=3), NOON + 4 * HOUR,
        Decimal(7), NOON,
    )  # fmt: skip


def test_later_rows_change_nothing_before_them(stored: Connection) -> None:
    before = [as_of(stored, NOON - HOUR), as_of(stored, NOON)]
    for series in (Series.MARK, Series.INDEX):
        price(stored, series, NOON, 999)
    settle(stored, NOON, "0.0900", 4)
    interest(stored, NOON + 5 * MINUTE, 999)
    assert [as_of(stored, NOON - HOUR), as_of(stored, NOON)] == before


def test_a_settlement_is_known_after_its_own_time_and_not_at_the_hour(stored: Connection) -> None:
    at_eight = NOON - 4 * HOUR
    assert as_of(stored, at_eight)[4] == Decimal("0.0001")
    assert as_of(stored, at_eight + timedelta(milliseconds=3))[4] == Decimal("0.0002")


def test_the_interval_of_a_file_says_when_the_next_is_due(stored: Connection) -> None:
    settle(stored, NOON, "0.0003", 4)
    assert as_of(stored, NOON + MINUTE)[6] == NOON + 4 * HOUR


def test_what_was_not_known_is_null(connection: Connection) -> None:
    assert as_of(connection, NOON) == (None,) * 9


def test_readers_may_ask(stored: Connection, acting_as: Callable[[str], Any]) -> None:
    with acting_as("candelabra_reader") as reader:
        assert as_of(reader, NOON)[0] == 100
