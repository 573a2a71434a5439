"""Read stored candles."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from include.domain.candles import Candle
from include.domain.timeframes import MINUTE_US, from_us, to_us
from include.errors import PermanentError
from include.store.candles.live import LiveCandle, remove_stale_live, write_live_async
from include.store.candles.merging import (
    CANDIDATE_COLUMNS,
    Connection,
    MergeCounts,
    merge_candidates,
    merge_frame,
    store_async,
)
from include.store.postgres.pools import translated

__all__ = [
    "CANDIDATE_COLUMNS",
    "LiveCandle",
    "MergeCounts",
    "last_minutes",
    "merge_candidates",
    "merge_frame",
    "minutes_to_request",
    "missing_minutes",
    "read_candles",
    "remove_stale_live",
    "store_async",
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
FROM unnest(%(symbols)s::text[]) AS s (symbol)
CROSS JOIN LATERAL (
    SELECT c.open_time FROM market.candles_1m AS c
    WHERE c.symbol = s.symbol AND c.open_time <= coalesce(%(now)s::timestamptz, 'infinity')
    ORDER BY c.open_time DESC
    LIMIT 1
) AS last
"""

_LAST_TRADED = """
SELECT open_time FROM market.candles_1m
WHERE
    symbol = %s AND open_time >= %s AND open_time < %s
    AND status = 'verified' AND trade_count > 0
ORDER BY open_time DESC LIMIT 1
"""

_MISSING = """
WITH wanted (minutes) AS (
    SELECT tstzmultirange(tstzrange(%(start)s, %(end)s))
),

stored (minutes) AS (
    SELECT coalesce(range_agg(tstzrange(open_time, open_time + interval '1 minute')), '{}')
    FROM market.candles_1m
    WHERE
        symbol = %(symbol)s AND open_time >= %(start)s AND open_time < %(end)s
        AND (status = 'verified' OR NOT %(unsure)s)
),

halted (minutes) AS (
    SELECT coalesce(range_agg(o.minutes), '{}')
    FROM ops.outages AS o
    WHERE
        o.market = market.market_of(%(symbol)s)
        AND (o.symbol IS NULL OR o.symbol = %(symbol)s)
)

SELECT lower(gap.span), upper(gap.span)
FROM wanted, stored, halted,
    unnest(wanted.minutes - stored.minutes - halted.minutes) AS gap (span)
ORDER BY 1
"""

# LIMIT 1 rather than EXISTS, which the planner would turn into a hash of the whole history.
_FIRST = """
SELECT wanted.symbol, first.open_time
FROM unnest(%(symbols)s::text[]) AS wanted (symbol)
CROSS JOIN LATERAL (
    SELECT c.open_time FROM market.candles_1m AS c
    WHERE c.symbol = wanted.symbol AND c.open_time >= %(start)s
    ORDER BY c.open_time
    LIMIT 1
) AS first
WHERE
    (
        SELECT true FROM market.candles_1m AS earlier
        WHERE earlier.symbol = wanted.symbol AND earlier.open_time < %(start)s
        ORDER BY earlier.open_time DESC
        LIMIT 1
    ) IS NULL
"""

# Each row yields the unsure range up to the next row; ranges are joined afterwards, from few rows.
# The last LIMIT 1 is no EXISTS, for the same reason as above.
_TO_ASK = """
WITH steps AS (
    SELECT
        symbol,
        open_time,
        status = 'verified' AS is_sure,
        lead(open_time) OVER (PARTITION BY symbol ORDER BY open_time) AS next_time
    FROM market.candles_1m
    WHERE
        symbol = ANY(%(symbols)s) AND open_time >= %(start)s
        AND open_time <= coalesce(%(now)s::timestamptz, 'infinity')
),

parts AS (
    SELECT
        symbol,
        tstzrange(
            CASE WHEN is_sure THEN open_time + interval '1 minute' ELSE open_time END,
            coalesce(next_time, open_time + interval '1 minute')
        ) AS span
    FROM steps
    WHERE NOT is_sure OR next_time > open_time + interval '1 minute'

    UNION ALL

    SELECT wanted.symbol, tstzrange(%(start)s, first.open_time)
    FROM unnest(%(symbols)s::text[]) AS wanted (symbol)
    CROSS JOIN LATERAL (
        SELECT c.open_time FROM market.candles_1m AS c
        WHERE c.symbol = wanted.symbol AND c.open_time >= %(start)s
        ORDER BY c.open_time
        LIMIT 1
    ) AS first
    WHERE
        first.open_time > %(start)s
        AND (
            SELECT true FROM market.candles_1m AS earlier
            WHERE earlier.symbol = wanted.symbol AND earlier.open_time < %(start)s
            ORDER BY earlier.open_time DESC
            LIMIT 1
        )
),

unsure AS (
    SELECT symbol, market.market_of(symbol) AS market, range_agg(span) AS minutes
    FROM parts
    GROUP BY symbol
),

halts AS (
    SELECT market, symbol, range_agg(minutes) AS minutes
    FROM ops.outages
    WHERE upper(minutes) > %(start)s
    GROUP BY market, symbol
)

SELECT unsure.symbol, lower(gap.span), upper(gap.span)
FROM unsure
LEFT JOIN halts AS everywhere
    ON unsure.market = everywhere.market AND everywhere.symbol IS NULL
LEFT JOIN halts AS own
    ON unsure.market = own.market AND unsure.symbol = own.symbol
CROSS JOIN LATERAL unnest(
    unsure.minutes - coalesce(everywhere.minutes, '{}') - coalesce(own.minutes, '{}')
) AS gap (span)
ORDER BY 1, 2
"""


def read_candles(connection: Connection, symbol: str, start_us: int, end_us: int) -> list[Candle]:
    """Return a symbol's stored 1m candles that open in [``start_us``, ``end_us``)."""
    with translated(connection):
        rows = connection.execute(_READ, (symbol, from_us(start_us), from_us(end_us))).fetchall()
    return [Candle(row[0], to_us(row[1]), *row[2:]) for row in rows]


def last_minutes(
    connection: Connection, symbols: Iterable[str], *, now_us: int | None = None
) -> dict[str, int]:
    """Return the open time (µs) of each symbol's newest row; symbols without rows are absent.

    Args:
        now_us: the exchange's time; later rows are wrong and do not count.
    """
    arguments = {"symbols": list(symbols), "now": None if now_us is None else from_us(now_us)}
    with translated(connection):
        rows = connection.execute(_LAST, arguments).fetchall()
    return {symbol: to_us(open_time) for symbol, open_time in rows}


def first_minutes(connection: Connection, symbols: Iterable[str], start_us: int) -> dict[str, int]:
    """Return the first row's open time (µs) of each symbol without rows before ``start_us``."""
    arguments = {"symbols": list(symbols), "start": from_us(start_us)}
    with translated(connection):
        rows = connection.execute(_FIRST, arguments).fetchall()
    return {symbol: to_us(open_time) for symbol, open_time in rows}


def last_traded_minute(
    connection: Connection, symbol: str, start_us: int, end_us: int
) -> int | None:
    """Return the open time of the range's last minute with trades, by the exchange's rows."""
    arguments = (symbol, from_us(start_us), from_us(end_us))
    with translated(connection):
        row = connection.execute(_LAST_TRADED, arguments).fetchone()
    return None if row is None else to_us(row[0])


def minutes_to_request(
    connection: Connection, symbols: Sequence[str], start_us: int, *, now_us: int | None = None
) -> dict[str, list[tuple[int, int]]]:
    """Return the minutes up to each symbol's newest row without a verified row.

    They begin at ``start_us``, or at the symbol's first row if that is later, and exclude outages.
    The newest row is included if it is not verified. One query serves all symbols.

    Args:
        start_us: open time of the first minute.
        now_us: the exchange's time; later rows are wrong and do not count.

    Returns:
        Half-open ranges (µs), ascending; symbols with every minute verified are absent.

    Raises:
        PermanentError: the bound is not a full minute.
    """
    if start_us % MINUTE_US:
        raise PermanentError(f"{start_us} must be the open time of a minute")
    arguments = {
        "symbols": list(symbols),
        "start": from_us(start_us),
        "now": None if now_us is None else from_us(now_us),
    }
    with translated(connection):
        rows = connection.execute(_TO_ASK, arguments).fetchall()
    ranges: dict[str, list[tuple[int, int]]] = {}
    for symbol, start, end in rows:
        ranges.setdefault(symbol, []).append((to_us(start), to_us(end)))
    return ranges


def missing_minutes(
    connection: Connection, symbol: str, start_us: int, end_us: int, *, unsure: bool = False
) -> list[tuple[int, int]]:
    """Return minutes without a row and without an outage, as half-open ranges (µs), ascending.

    Args:
        start_us, end_us: half-open range of open times.
        unsure: also return minutes whose row is not verified.

    Raises:
        PermanentError: the bounds are not full minutes.
    """
    if start_us % MINUTE_US or end_us % MINUTE_US:
        raise PermanentError(f"{start_us} and {end_us} must be open times of minutes")
    if start_us >= end_us:
        return []
    arguments = {
        "symbol": symbol,
        "start": from_us(start_us),
        "end": from_us(end_us),
        "unsure": unsure,
    }
    with translated(connection):
        rows = connection.execute(_MISSING, arguments).fetchall()
    return [(to_us(start), to_us(end)) for start, end in rows]
