"""Read the minutes of a symbol's day, and find out which of them have changed since.

Changes come from the change log, whoever made them: the streamer, a DAG, an import or a command.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from include.domain.candles import Candle
from include.domain.ranges import Ranges, united
from include.domain.timeframes import from_us, to_us
from include.store.candles.merging import Connection
from include.store.candles.minutes import read_candles
from include.store.postgres.pools import translated

_NEWEST_LISTING = """
SELECT listed_from, count(*) OVER () > 1 FROM market.instruments
WHERE symbol = %s
ORDER BY listed_from DESC LIMIT 1
"""

_OUTAGES = """
SELECT lower(span), upper(span)
FROM ops.outages AS o,
    unnest(o.minutes * tstzmultirange(tstzrange(%(start)s, %(end)s))) AS span
WHERE
    o.market = market.market_of(%(symbol)s)
    AND (o.symbol IS NULL OR o.symbol = %(symbol)s)
"""

_CHANGED = """
WITH changed AS (
    SELECT
        c.symbol,
        unnest(range_agg(c.minutes) * tstzmultirange(tstzrange(%(start)s, %(end)s))) AS span
    FROM ops.candle_changes AS c
    WHERE
        c.changed_by >= pg_snapshot_xmin(%(seen)s::pg_snapshot)
        AND NOT pg_visible_in_snapshot(c.changed_by, %(seen)s::pg_snapshot)
        AND c.symbol = ANY(%(symbols)s)
    GROUP BY c.symbol
)

SELECT present.snapshot, changed.symbol, lower(changed.span), upper(changed.span)
FROM (SELECT pg_current_snapshot()::text) AS present (snapshot)
LEFT JOIN changed ON true
"""

_READ_RANGES = """
SELECT
    c.symbol, c.open_time, c.open, c.high, c.low, c.close, c.volume, c.quote_volume,
    c.trade_count, c.taker_buy_volume, c.taker_buy_quote_volume, c.first_trade_id,
    c.last_trade_id
FROM unnest(%s::text[], %s::timestamptz[], %s::timestamptz[]) AS w (symbol, first, until)
CROSS JOIN LATERAL (
    SELECT * FROM market.candles_1m AS m
    WHERE m.symbol = w.symbol AND m.open_time >= w.first AND m.open_time < w.until
) AS c
"""


@dataclass(frozen=True, slots=True)
class StoredDay:
    """A range of a symbol's minutes, as the table has it.

    Attributes:
        listed_us: start of a reused ticker's newest listing, to which the minutes belong; 0 for
            other symbols.
        excused: ranges (µs) that need no row: outages, and the time before the listing.
    """

    listed_us: int
    candles: list[Candle]
    excused: Ranges


def read_stored_day(connection: Connection, symbol: str, start_us: int, end_us: int) -> StoredDay:
    """Return the minutes that open in [``start_us``, ``end_us``), of the newest listing."""
    arguments = {"symbol": symbol, "start": from_us(start_us), "end": from_us(end_us)}
    with translated(connection):
        listing = connection.execute(_NEWEST_LISTING, (symbol,)).fetchone()
        outages = connection.execute(_OUTAGES, arguments).fetchall()
    excused = [(to_us(start), to_us(end)) for start, end in outages]
    listed_us, is_reused = (0, False) if listing is None else (to_us(listing[0]), listing[1])
    if start_us < listed_us:
        excused.append((start_us, min(listed_us, end_us)))
    first_us = max(start_us, listed_us) if is_reused else start_us
    return StoredDay(
        listed_us if is_reused else 0,
        read_candles(connection, symbol, first_us, end_us),
        united(excused),
    )


def current_snapshot(connection: Connection) -> str:
    """Return the current position in the change log."""
    with translated(connection):
        row = connection.execute("SELECT pg_current_snapshot()::text").fetchone()
    return "" if row is None else str(row[0])


def changed_minutes(
    connection: Connection, symbols: Iterable[str], start_us: int, end_us: int, seen: str
) -> tuple[str, dict[str, Ranges]]:
    """Return minutes that were written, deleted or excused since a position in the change log.

    Args:
        start_us, end_us: half-open range of open times.
        seen: an earlier position, on the same server.

    Returns:
        The new position, and ascending ranges (µs) of each changed symbol.
    """
    arguments = {
        "symbols": list(symbols),
        "start": from_us(start_us),
        "end": from_us(end_us),
        "seen": seen,
    }
    with translated(connection):
        rows = connection.execute(_CHANGED, arguments).fetchall()
    changed: dict[str, Ranges] = {}
    for _, symbol, start, end in rows:
        if symbol is not None:
            changed.setdefault(symbol, []).append((to_us(start), to_us(end)))
    return str(rows[0][0]), changed


def read_ranges(connection: Connection, ranges: Sequence[tuple[str, int, int]]) -> list[Candle]:
    """Return the stored minutes of many half-open ranges: symbol, start and end (µs)."""
    columns = (
        [symbol for symbol, _, _ in ranges],
        [from_us(start_us) for _, start_us, _ in ranges],
        [from_us(end_us) for _, _, end_us in ranges],
    )
    with translated(connection):
        rows = connection.execute(_READ_RANGES, columns).fetchall()
    return [Candle(row[0], to_us(row[1]), *row[2:]) for row in rows]
