"""Page forward through klines of a service that answers with the newest rows of a range.

COIN-M returns the last ``limit`` rows between startTime and endTime, at most 200 days apart, where
spot and USD-M return the first. So a request must not cover more bars than it may return.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

from include.binance.rest.klines import KlineRow
from include.binance.streams.messages import microseconds
from include.domain.timeframes import DAY_US, Timeframe, timeframe, to_us

BEGAN_US = to_us(datetime(2020, 1, 1, tzinfo=UTC))
"""No COIN-M kline is older: the market opened in 2020-08."""
MAX_DAYS = 199
"""Days of one request; 200 are allowed."""
DAY = timeframe("1d")

Ask = Callable[[str, int, int, int], list[KlineRow]]
"""Requests an interval's rows: its name, start (µs), end (µs, exclusive), and their maximum."""


def oldest_rows(
    ask: Ask, bars: Timeframe, start_us: int, until_us: int, rows: int
) -> list[KlineRow]:
    """Return the first rows of a range, oldest first.

    If no row is among the first bars, such as before a listing or in a halt, daily bars show where
    the rows begin. Bars of a day and more are requested without that search.

    Args:
        rows: maximum number of rows.
    """
    start_us = max(start_us, BEGAN_US)
    if start_us >= until_us:
        return []
    end_us = start_us
    for _ in range(rows):
        end_us = bars.next_open_us(end_us)
        if end_us >= until_us or end_us - start_us > MAX_DAYS * DAY_US:
            break
    found = ask(bars.name, start_us, min(end_us, until_us), rows)
    if found or bars.width_us is None or bars.width_us >= DAY_US:
        return found
    while end_us < until_us:
        day_us = _first_day(ask, DAY.open_time_us(end_us), until_us)
        if day_us is None:
            break
        after_us = min(DAY.next_open_us(day_us), until_us)
        begins_us = max(end_us, day_us)
        if found := ask(bars.name, begins_us, after_us, DAY_US // bars.width_us):
            return found[:rows]
        end_us = after_us
    return []


def _first_day(ask: Ask, start_us: int, until_us: int) -> int | None:
    """Return the open time of the first daily bar of a range."""
    while start_us < until_us:
        end_us = min(start_us + MAX_DAYS * DAY_US, until_us)
        if found := ask(DAY.name, start_us, end_us, MAX_DAYS):
            return microseconds(found[0].open_time)
        start_us = end_us
    return None
