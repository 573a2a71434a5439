"""A symbol's day and its later changes, as PostgreSQL has them."""

from __future__ import annotations

from typing import Any

import psycopg

from include.domain.instruments import Market
from include.domain.timeframes import MINUTE_US, from_us
from include.store.candles.day_minutes import (
    changed_minutes,
    current_snapshot,
    read_ranges,
    read_stored_day,
)
from include.store.candles.minutes import merge_candidates
from include.store.ledgers.files import record_outage
from tests.unit.store.candidates import NOVEMBER_END_US, candidate, candle, moved

Connection = psycopg.Connection[Any]


def minute(number: int) -> int:
    return NOVEMBER_END_US + number * MINUTE_US


def opens(candles: list[Any]) -> list[tuple[str, int]]:
    return [(one.symbol, (one.open_time_us - NOVEMBER_END_US) // MINUTE_US) for one in candles]


def add_listing(connection: Connection, start_us: int, end_us: int | None = None) -> None:
    connection.execute(
        "INSERT INTO market.instruments (symbol, market, exchange_symbol, base_asset, quote_asset,"
        " status, tick_size, step_size, quote_volume_is_exact, seen_at, listed_from, listed_to)"
        " VALUES ('A', 'spot', 'A', 'A', 'B', 'TRADING', 1, 1, true, now(), %s, %s)",
        (from_us(start_us), None if end_us is None else from_us(end_us)),
    )


def test_day_excuses_outages_and_the_time_before_the_listing(connection: Connection) -> None:
    merge_candidates(connection, [moved(candidate(), "A", n) for n in (3, 4, 7)])
    day = read_stored_day(connection, "A", minute(0), minute(8))
    assert (day.listed_us, opens(day.candles), day.excused) == (
        0, [("A", 3), ("A", 4), ("A", 7)], [],
    )  # fmt: skip
    record_outage(
        connection, market=Market.SPOT, start_us=minute(5), end_us=minute(90), cause="halt"
    )
    record_outage(
        connection, market=Market.SPOT, symbol="B", start_us=minute(1), end_us=minute(2), cause="-"
    )
    add_listing(connection, minute(3))
    day = read_stored_day(connection, "A", minute(0), minute(8))
    assert day.excused == [(minute(0), minute(3)), (minute(5), minute(8))]
    assert (day.listed_us, len(day.candles)) == (0, 3)


def test_day_of_a_reused_ticker_begins_with_its_newest_listing(connection: Connection) -> None:
    merge_candidates(connection, [moved(candidate(), "A", n) for n in (0, 1, 4, 5)])
    add_listing(connection, 0, minute(2))
    add_listing(connection, minute(4))
    day = read_stored_day(connection, "A", minute(0), minute(8))
    assert (day.listed_us, opens(day.candles)) == (minute(4), [("A", 4), ("A", 5)])
    assert day.excused == [(minute(0), minute(4))]


def test_changes_are_found_once_whatever_changed_a_minute(connection: Connection) -> None:
    merge_candidates(connection, [moved(candidate(), "A", n) for n in range(6)])
    seen = current_snapshot(connection)
    arguments = (["A", "B"], minute(1), minute(50))
    assert changed_minutes(connection, *arguments, seen)[1] == {}
    merge_candidates(connection, [moved(candidate(), "B", n) for n in (2, 3, 60)])
    connection.execute("DELETE FROM market.candles_1m WHERE open_time <= %s", (from_us(minute(1)),))
    record_outage(
        connection, market=Market.SPOT, symbol="A", start_us=minute(8), end_us=minute(9), cause="-"
    )
    merge_candidates(connection, [moved(candidate(), "C", 1)])  # nobody asks for it
    seen, changed = changed_minutes(connection, *arguments, seen)
    assert changed == {
        "A": [(minute(1), minute(2)), (minute(8), minute(9))],
        "B": [(minute(2), minute(4))],
    }
    assert changed_minutes(connection, *arguments, seen)[1] == {}


def test_minutes_of_many_ranges_are_read_exactly(connection: Connection) -> None:
    of = candidate(of=candle(price="10.00000001", ids=(1, 2)))
    merge_candidates(connection, [moved(of, name, n) for name in "AB" for n in range(5)])
    ranges = [("A", minute(1), minute(3)), ("B", minute(4), minute(9)), ("C", 0, minute(9))]
    found = read_ranges(connection, ranges)
    assert sorted(opens(found)) == [("A", 1), ("A", 2), ("B", 4)]
    assert found[0] == moved(of, "A", 1).candle
