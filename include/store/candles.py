"""Candles in PostgreSQL: the writers of ``merging`` and ``live``, and the reads."""

from __future__ import annotations

from collections.abc import Iterable

from include.domain.candles import Candle
from include.domain.timeframes import MINUTE_US, from_us, to_us
from include.errors import PermanentError
from include.store.live import LiveCandle, remove_live_async, settle_async, write_live_async
from include.store.merging import (
    OFFERED_COLUMNS,
    Connection,
    MergeCounts,
    merge_frame,
    merge_offers,
    merge_offers_async,
)
from include.store.pools import translated

__all__ = [
    "OFFERED_COLUMNS",
    "LiveCandle",
    "MergeCounts",
    "last_minutes",
    "merge_frame",
    "merge_offers",
    "merge_offers_async",
    "missing_minutes",
    "read_candles",
    "remove_live_async",
    "settle_async",
    "write_live_async",
]

_READ = """
SELECT
    symbol, open_time, open, high, low, close, volume, quote_volume, trade_count,
    taker_buy_volume, taker_buy_quote_volume, first_trade_id, last_trade_id
FROM market.candles_1m
WHERE symbol = %s AND open_time >= %s AND open_time < %s
ORDER BY open_time
"""

_LAST = """
SELECT s.symbol, last.open_time
FROM unnest(%s::text[]) AS s (symbol)
CROSS JOIN LATERAL (
    SELECT c.open_time FROM market.candles_1m AS c
    WHERE c.symbol = s.symbol
    ORDER BY c.open_time DESC
    LIMIT 1
) AS last
"""

_MISSING = """
WITH wanted (minutes) AS (
    SELECT tstzmultirange(tstzrange(%(start)s, %(end)s))
),

stored (minutes) AS (
    SELECT coalesce(range_agg(tstzrange(open_time, open_time + interval '1 minute')), '{}')
    FROM market.candles_1m
    WHERE symbol = %(symbol)s AND open_time >= %(start)s AND open_time < %(end)s
),

halted (minutes) AS (
    SELECT coalesce(range_agg(o.minutes), '{}')
    FROM ops.outages AS o
    WHERE
        o.market = market.market_of(%(symbol)s)
        AND (o.symbol IS NULL OR o.symbol = %(symbol)s)
)

SELECT lower(hole.span), upper(hole.span)
FROM wanted, stored, halted,
    unnest(wanted.minutes - stored.minutes - halted.minutes) AS hole (span)
ORDER BY 1
"""


def read_candles(connection: Connection, symbol: str, start_us: int, end_us: int) -> list[Candle]:
    """The stored 1m candles of a symbol that open from ``start_us`` up to before ``end_us``."""
    with translated(connection):
        rows = connection.execute(_READ, (symbol, from_us(start_us), from_us(end_us))).fetchall()
    return [Candle(row[0], to_us(row[1]), *row[2:]) for row in rows]


def last_minutes(connection: Connection, symbols: Iterable[str]) -> dict[str, int]:
    """Open time (µs) of the newest row of each symbol; symbols without rows are left out."""
    with translated(connection):
        rows = connection.execute(_LAST, (list(symbols),)).fetchall()
    return {symbol: to_us(open_time) for symbol, open_time in rows}


def missing_minutes(
    connection: Connection, symbol: str, start_us: int, end_us: int
) -> list[tuple[int, int]]:
    """Minutes without a row that are no outage, as half-open ranges (µs), ascending.

    Args:
        start_us: open time of the first minute asked for.
        end_us: open time of the first minute no longer asked for.

    Raises:
        PermanentError: the bounds are not full minutes.
    """
    if start_us % MINUTE_US or end_us % MINUTE_US:
        raise PermanentError(f"{start_us} and {end_us} must be open times of minutes")
    if start_us >= end_us:
        return []
    arguments = {"symbol": symbol, "start": from_us(start_us), "end": from_us(end_us)}
    with translated(connection):
        rows = connection.execute(_MISSING, arguments).fetchall()
    return [(to_us(start), to_us(end)) for start, end in rows]
