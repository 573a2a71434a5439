"""``ops.suspected_outages`` shows when no USD-M symbol traded: klines continue during halts."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import psycopg

from include.domain.candles import CandleCandidate, Source
from include.domain.timeframes import MINUTE_US, from_us, to_us
from include.store.candles.minutes import merge_candidates
from include.store.migrate import READER
from tests.unit.store.candidates import NOVEMBER_END_US, candidate, candle

T0 = NOVEMBER_END_US - 4 * MINUTE_US
"""The ranges here cross into the next partition."""


def rows_of(symbol: str, trades: str) -> list[CandleCandidate]:
    """A row for each minute from T0 on: ``x`` with trades, ``.`` without, blank for no row."""
    return [
        candidate(
            Source.KLINE,
            candle(symbol, T0 + minute * MINUTE_US, trade_count=3 if told == "x" else 0),
        )
        for minute, told in enumerate(trades)
        if told != " "
    ]


def suspected(
    connection: psycopg.Connection[Any],
    first: int = 0,
    end: int = 20,
    *,
    min_symbols: int = 2,
    min_minutes: int = 2,
) -> list[tuple[int, int, int]]:
    """First minute after T0, first one no longer, and symbols, of each run."""
    times = (from_us(T0 + first * MINUTE_US), from_us(T0 + end * MINUTE_US))
    rows = connection.execute(
        "SELECT lower(minutes), upper(minutes), symbols FROM ops.suspected_outages(%s, %s, %s, %s)",
        (*times, min_symbols, min_minutes),
    ).fetchall()
    return [
        ((to_us(start) - T0) // MINUTE_US, (to_us(stop) - T0) // MINUTE_US, symbols)
        for start, stop, symbols in rows
    ]


def test_silent_minutes_of_the_whole_market_are_returned_as_runs(
    connection: psycopg.Connection[Any],
    acting_as: Callable[[str], AbstractContextManager[psycopg.Connection[Any]]],
) -> None:
    merge_candidates(
        connection,
        [
            *rows_of("BTCUSDT.P", "xx....x.x...x"),
            *rows_of("ETHUSDT.P", "x......xx...x"),
            *rows_of("NEWUSDT.P", "    ...xx.   "),
            *rows_of("BTCUSDT", "xxxxxxxxxxxxx"),  # spot went on, and is no part of it
        ],
    )
    defaults = "SELECT count(*) FROM ops.suspected_outages(%s, %s)"
    day = (from_us(T0), from_us(T0 + 20 * MINUTE_US))
    assert connection.execute(defaults, day).fetchone() == (2,)
    with acting_as(READER) as reader:
        assert suspected(reader) == [(2, 6, 2), (9, 12, 2)]
        assert suspected(reader, min_symbols=3, min_minutes=1) == [(4, 6, 3), (9, 10, 3)]
        assert suspected(reader, 3, 11) == [(3, 6, 2), (9, 11, 2)]


def test_one_silent_symbol_is_no_suspected_outage(connection: psycopg.Connection[Any]) -> None:
    merge_candidates(connection, rows_of("BTCUSDT.P", "x......x"))
    assert suspected(connection) == []
    assert suspected(connection, min_symbols=1) == [(1, 7, 1)]
