"""Bars of several minutes before the marts' first build, rolled up from minutes on the fly."""

from __future__ import annotations

from typing import Any

from psycopg import sql

from include.domain.timeframes import DAY_US, MINUTE_US, Timeframe, from_us, to_us
from include.errors import PermanentError
from include.store.candles.merging import Connection
from include.store.postgres.pools import translated

MAX_MINUTES = 1_000_000
"""Maximum minutes rolled up for one answer: about two years, which takes some two seconds."""
MINUTES_AT_ONCE = 131_072
"""Maximum minutes of one statement."""
LONGEST_MONTH_US = 31 * DAY_US

# The rule of include/domain/rollup.py. A bar is closed when its last minute is, or when a later
# minute exists.
_BARS = """
SELECT
    minutes.symbol,
    {open_time} AS bar_time,
    coalesce(
        (
            array_agg(minutes.open ORDER BY minutes.open_time)
            FILTER (WHERE minutes.trade_count > 0)
        )[1],
        (array_agg(minutes.close ORDER BY minutes.open_time DESC))[1]
    ),
    coalesce(
        max(minutes.high) FILTER (WHERE minutes.trade_count > 0),
        (array_agg(minutes.close ORDER BY minutes.open_time DESC))[1]
    ),
    coalesce(
        min(minutes.low) FILTER (WHERE minutes.trade_count > 0),
        (array_agg(minutes.close ORDER BY minutes.open_time DESC))[1]
    ),
    coalesce(
        (
            array_agg(minutes.close ORDER BY minutes.open_time DESC)
            FILTER (WHERE minutes.trade_count > 0)
        )[1],
        (array_agg(minutes.close ORDER BY minutes.open_time DESC))[1]
    ),
    sum(minutes.volume),
    CASE WHEN count(minutes.quote_volume) = count(*) THEN sum(minutes.quote_volume) END,
    sum(minutes.trade_count)::bigint,
    sum(minutes.taker_buy_volume),
    CASE
        WHEN count(minutes.taker_buy_quote_volume) = count(*)
            THEN sum(minutes.taker_buy_quote_volume)
    END,
    (
        array_agg(minutes.first_trade_id ORDER BY minutes.open_time)
        FILTER (WHERE minutes.trade_count > 0)
    )[1],
    (
        array_agg(minutes.last_trade_id ORDER BY minutes.open_time DESC)
        FILTER (WHERE minutes.trade_count > 0)
    )[1],
    count(*)::integer,
    {next_open} <= %(over)s,
    NULL,
    NULL
FROM market.candles_1m_live AS minutes
WHERE
    minutes.symbol = %(symbol)s
    AND minutes.open_time >= %(start)s
    AND minutes.open_time < %(end)s
GROUP BY minutes.symbol, 2
ORDER BY 2 {direction}
LIMIT %(limit)s
"""

_EDGE = """
SELECT minutes.open_time, minutes.status <> 'live'
FROM market.candles_1m_live AS minutes
WHERE
    minutes.symbol = %(symbol)s
    AND minutes.open_time >= %(start)s
    AND minutes.open_time < coalesce(%(end)s::timestamptz, 'infinity')
ORDER BY minutes.open_time {direction}
LIMIT 1
"""

_RELISTED = """
SELECT max(i.listed_from) FROM market.instruments AS i
WHERE i.symbol = %(symbol)s
HAVING count(*) > 1
"""


def read_unbuilt_bars(
    connection: Connection,
    symbol: str,
    timeframe: Timeframe,
    start_us: int,
    end_us: int | None,
    *,
    limit: int,
    newest: bool,
    minutes_at_once: int = MINUTES_AT_ONCE,
    max_minutes: int = MAX_MINUTES,
) -> list[tuple[Any, ...]]:
    """Return rows of bars that open in [``start_us``, ``end_us``), of the newest listing.

    Args:
        end_us: None for the newest.
        limit: maximum bars.
        newest: begin with the newest bar and go back; fewer bars are returned if they have more
            than ``max_minutes``.
        minutes_at_once: per statement; a bar is always read completely.

    Raises:
        PermanentError: going forward, the bars have more than ``max_minutes``.
    """
    edge = _edge(connection, symbol, 0, None, newest=True)
    if edge is None or (end_us is not None and end_us <= 0):
        return []
    over_us = edge[0] + MINUTE_US if edge[1] else edge[0]
    # Bars that open within the range, including their minutes beyond its end.
    start_us = max(_next_open(timeframe, max(start_us, 0) - 1), listed_from_us(connection, symbol))
    last_us = edge[0] if end_us is None else min(end_us - 1, edge[0])
    end_us = _next_open(timeframe, last_us)
    query = sql.SQL(_BARS).format(
        open_time=_open_time(timeframe),
        next_open=_next_open_time(timeframe),
        direction=sql.SQL("DESC" if newest else "ASC"),
    )
    found: list[tuple[Any, ...]] = []
    count = 0
    while len(found) < limit and start_us < end_us:
        edge = _edge(connection, symbol, start_us, end_us, newest=newest)
        if edge is None:
            break
        if count >= max_minutes:
            if newest:
                break
            raise PermanentError(
                f"{timeframe.name} bars of {symbol}: the marts are not built, and more than "
                f"{max_minutes:,} minutes would have to be rolled up; build them (DAG "
                "build_marts), or request less"
            )
        width_us = timeframe.width_us or LONGEST_MONTH_US
        reach_us = max(min((limit - len(found)) * width_us, minutes_at_once * MINUTE_US), width_us)
        if newest:
            from_us_ = max(start_us, timeframe.open_time_us(edge[0] + width_us - reach_us))
            span = (from_us_, end_us)
            end_us = from_us_
        else:
            until_us = min(end_us, _next_open(timeframe, edge[0] + reach_us - width_us))
            span = (max(start_us, timeframe.open_time_us(edge[0])), until_us)
            start_us = until_us
        count += (span[1] - span[0]) // MINUTE_US
        arguments = {
            "symbol": symbol,
            "start": from_us(span[0]),
            "end": from_us(span[1]),
            "over": from_us(over_us),
            "limit": limit - len(found),
        }
        with translated(connection):
            found += connection.execute(query, arguments).fetchall()
    return found


def listed_from_us(connection: Connection, symbol: str) -> int:
    """Return the start of a symbol's bars (µs): bars must not cross listings.

    Returns:
        0 unless the ticker was reused: then the start of its newest listing.
    """
    with translated(connection):
        row = connection.execute(_RELISTED, {"symbol": symbol}).fetchone()
    return 0 if row is None else to_us(row[0])


# --- inside


def _edge(
    connection: Connection, symbol: str, start_us: int, end_us: int | None, *, newest: bool
) -> tuple[int, bool] | None:
    """Return the open time of the newest or oldest minute of a range, and whether it is closed."""
    query = sql.SQL(_EDGE).format(direction=sql.SQL("DESC" if newest else "ASC"))
    arguments = {
        "symbol": symbol,
        "start": from_us(start_us),
        "end": None if end_us is None else from_us(end_us),
    }
    with translated(connection):
        row = connection.execute(query, arguments).fetchone()
    return None if row is None else (to_us(row[0]), row[1])


def _next_open(timeframe: Timeframe, moment_us: int) -> int:
    """Return the open time of the bar after the one that contains a time."""
    return timeframe.next_open_us(timeframe.open_time_us(moment_us))


def _open_time(timeframe: Timeframe) -> sql.Composable:
    if timeframe.width_us is None:
        return sql.SQL("date_trunc('month', minutes.open_time, 'UTC')")
    return sql.SQL("date_bin({}, minutes.open_time, '2001-01-01 00:00:00+00')").format(
        _width(timeframe.width_us)
    )


def _next_open_time(timeframe: Timeframe) -> sql.Composable:
    if timeframe.width_us is None:  # months in UTC, whatever the session's time zone
        return sql.SQL(
            "(date_trunc('month', min(minutes.open_time) AT TIME ZONE 'UTC') + interval '1 month')"
            " AT TIME ZONE 'UTC'"
        )
    return sql.SQL("date_bin({0}, min(minutes.open_time), '2001-01-01 00:00:00+00') + {0}").format(
        _width(timeframe.width_us)
    )


def _width(width_us: int) -> sql.Composable:
    return sql.SQL("interval {}").format(sql.Literal(f"{width_us // MINUTE_US} minutes"))
