"""Read bars of any timeframe for serving."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from psycopg import errors, sql

from include.domain.candles import Candle, Source, Status
from include.domain.exact import ZERO
from include.domain.live_bars import BarPart, reach_of
from include.domain.timeframes import MINUTE_US, Timeframe, from_us, to_us
from include.errors import PermanentError, TransientError
from include.store.candles.merging import Connection
from include.store.candles.minutes import read_candles
from include.store.candles.unbuilt_bars import MAX_MINUTES, listed_from_us, read_unbuilt_bars
from include.store.postgres.pools import translated

# Joins minutes by the rule of include/domain/rollup.py.
_JOINED = """
SELECT
    date_bin(%(width)s, c.open_time, '2001-01-01 00:00:00+00') AS bar_time,
    coalesce(
        (array_agg(c.open ORDER BY c.open_time) FILTER (WHERE c.trade_count > 0))[1],
        (array_agg(c.close ORDER BY c.open_time DESC))[1]
    ),
    coalesce(max(c.high) FILTER (WHERE c.trade_count > 0), max(c.close)),
    coalesce(min(c.low) FILTER (WHERE c.trade_count > 0), min(c.close)),
    coalesce(
        (array_agg(c.close ORDER BY c.open_time DESC) FILTER (WHERE c.trade_count > 0))[1],
        (array_agg(c.close ORDER BY c.open_time DESC))[1]
    ),
    sum(c.volume),
    sum(c.quote_volume),
    sum(c.trade_count)::bigint,
    sum(c.taker_buy_volume),
    sum(c.taker_buy_quote_volume),
    (array_agg(c.first_trade_id ORDER BY c.open_time) FILTER (WHERE c.trade_count > 0))[1],
    (array_agg(c.last_trade_id ORDER BY c.open_time DESC) FILTER (WHERE c.trade_count > 0))[1],
    count(*)::integer
FROM market.candles_1m AS c
WHERE c.symbol = %(symbol)s AND c.open_time >= %(start)s AND c.open_time < %(end)s
GROUP BY 1
ORDER BY 1
"""

_PAGE = """
SELECT
    symbol, open_time, open, high, low, close, volume, quote_volume, trade_count,
    taker_buy_volume, taker_buy_quote_volume, first_trade_id, last_trade_id,
    {details}
FROM {relation}
WHERE
    symbol = %(symbol)s
    AND open_time >= %(start)s
    AND open_time < coalesce(%(end)s::timestamptz, 'infinity')
ORDER BY open_time {direction}
LIMIT %(limit)s
"""


NEWEST_TIMEOUT_MS = 1_000
"""For reading the newest bars from a mart. During a load most bars of a mart are stale, and its
view would roll up all of them to find the newest; a lock may hold it too.
"""
NEWEST_MINUTES = 262_144
"""Minutes that are rolled up instead, which takes half a second."""
_LIMITED = """
SELECT
    set_config('statement_timeout', %(most)s, true),
    set_config('lock_timeout', %(most)s, true)
"""

_OF_A_MINUTE = "1, status <> 'live', status, source"
_OF_A_BAR = "minute_count, is_closed, NULL, NULL"


@dataclass(frozen=True, slots=True)
class StoredBar:
    """A bar as stored.

    Attributes:
        status, source: of a minute; None for bars of several minutes, and for minutes without
            confirmation by the exchange.
        has_quotes: False if the quote volumes are not known yet.
    """

    candle: Candle
    minute_count: int
    status: Status | None = None
    source: Source | None = None
    is_closed: bool = True
    has_quotes: bool = True


def read_parts(
    connection: Connection, symbol: str, newest_us: int, *, since_us: int = 0
) -> tuple[list[Candle], list[BarPart], list[BarPart]]:
    """Read the parts from which the newest bars of every timeframe are joined.

    Args:
        newest_us: open time of the newest minute (µs).
        since_us: start of the newest listing if the caller knows it; otherwise 0.

    Returns:
        Minutes, hours and days of ``reach_of(newest_us)``, of the newest listing only.
    """
    reach = reach_of(newest_us)
    end_us = newest_us + MINUTE_US
    since_us = max(since_us, listed_from_us(connection, symbol))
    hours_us, minutes_us = reach.hours_from_us, reach.minutes_from_us
    return (
        read_candles(connection, symbol, max(minutes_us, since_us), end_us),
        _joined(connection, symbol, "1 hour", max(hours_us, since_us), minutes_us),
        _joined(connection, symbol, "1 day", max(reach.days_from_us, since_us), hours_us),
    )


def read_bars(
    connection: Connection,
    symbol: str,
    timeframe: Timeframe,
    start_us: int,
    end_us: int | None,
    *,
    limit: int,
    newest: bool = False,
) -> list[StoredBar]:
    """Return stored bars that open in [``start_us``, ``end_us``), oldest first.

    Before the marts' first build, bars of several minutes are rolled up from the minutes. So are
    the newest bars if the mart does not answer within a second; they may then be fewer.

    Args:
        end_us: None for the newest.
        limit: maximum bars.
        newest: if there are more bars, return the newest instead of the oldest.
    """
    is_minutes = timeframe.parent is None
    query = sql.SQL(_PAGE).format(
        relation=relation_of(timeframe),
        details=sql.SQL(_OF_A_MINUTE if is_minutes else _OF_A_BAR),
        direction=sql.SQL("DESC" if newest else "ASC"),
    )
    arguments = {
        "symbol": symbol,
        "start": from_us(start_us),
        "end": None if end_us is None else from_us(end_us),
        "limit": limit,
    }
    try:
        with translated(connection), soon(connection, timeframe, newest=newest):
            rows = connection.execute(query, arguments).fetchall()
    except (PermanentError, TransientError) as error:
        is_busy = newest and is_slow(error, timeframe)
        if not is_busy and not is_unbuilt(error, timeframe):
            raise
        rows = read_unbuilt_bars(
            connection, symbol, timeframe, start_us, end_us, limit=limit, newest=newest,
            max_minutes=NEWEST_MINUTES if is_busy else MAX_MINUTES,
        )  # fmt: skip
    found = [_bar(row) for row in rows]
    return found[::-1] if newest else found


def relation_of(timeframe: Timeframe) -> sql.Identifier:
    """Return the relation to read bars from; it includes open bars."""
    if timeframe.parent is None:
        return sql.Identifier("market", "candles_1m_live")
    return sql.Identifier("marts", f"{timeframe.table}_live")


@contextmanager
def soon(connection: Connection, timeframe: Timeframe, *, newest: bool) -> Iterator[None]:
    """Limit the time of a statement that reads the newest bars of a mart."""
    if timeframe.parent is None or not newest:
        yield
        return
    with translated(connection), connection.transaction():
        connection.execute(_LIMITED, {"most": str(NEWEST_TIMEOUT_MS)})
        yield


def is_slow(error: Exception, timeframe: Timeframe) -> bool:
    """Whether a mart did not answer in time, because of a load or a lock."""
    causes = (errors.QueryCanceled, errors.LockNotAvailable)
    return timeframe.parent is not None and isinstance(error.__cause__, causes)


def is_unbuilt(error: Exception, timeframe: Timeframe) -> bool:
    """Whether bars could not be read because the marts were never built."""
    return timeframe.parent is not None and isinstance(error.__cause__, errors.UndefinedTable)


# --- inside


def _joined(
    connection: Connection, symbol: str, width: str, start_us: int, end_us: int
) -> list[BarPart]:
    arguments = {
        "symbol": symbol,
        "width": width,
        "start": from_us(start_us),
        "end": from_us(end_us),
    }
    with translated(connection):
        rows = connection.execute(_JOINED, arguments).fetchall()
    return [BarPart(Candle(symbol, to_us(row[0]), *row[1:12]), row[12]) for row in rows]


def _bar(row: Sequence[Any]) -> StoredBar:
    values, (minute_count, is_closed, status, source) = list(row[2:13]), row[13:]
    has_quotes = values[5] is not None and values[8] is not None
    if not has_quotes:
        values[5] = values[8] = ZERO
    has_status = status in set(Status)
    return StoredBar(
        Candle(row[0], to_us(row[1]), *values),
        minute_count=minute_count,
        status=Status(status) if has_status else None,
        source=Source(source) if has_status else None,
        is_closed=is_closed,
        has_quotes=has_quotes,
    )
