"""What sources of derivative series were asked for, and what is missing all the same."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from psycopg.types.multirange import Multirange
from psycopg.types.range import Range

from include.domain.ranges import Ranges
from include.domain.series.kinds import Series
from include.domain.timeframes import from_us, to_us
from include.store.candles.merging import Connection
from include.store.postgres.pools import translated

_ADD = """
INSERT INTO ops.series_coverage AS v (series, symbol, source, times) VALUES (%s, %s, %s, %s)
ON CONFLICT (series, symbol, source) DO UPDATE SET times = v.times + excluded.times
WHERE NOT v.times @> excluded.times
"""

_READ = """
SELECT lower(m.span), upper(m.span)
FROM (
    SELECT range_agg(v.times) AS times FROM ops.series_coverage AS v
    WHERE v.series = %s AND v.symbol = %s AND (%s::text[] IS NULL OR v.source = ANY (%s))
) AS a
CROSS JOIN LATERAL unnest(a.times * tstzmultirange(tstzrange(%s, %s))) AS m (span)
ORDER BY 1
"""

_GAPS = """
SELECT from_time, to_time, missing, reason
FROM ops.series_gaps(%s, %s, of_symbol => %s, of_series => %s) ORDER BY 1
"""

_STORED = "SELECT symbol, series FROM ops.series_coverage GROUP BY 1, 2 ORDER BY 1, 2"

LACKED, NOT_LOADED = "exchange_lacks", "not_loaded"


@dataclass(frozen=True, slots=True)
class SeriesGap:
    """Missing rows of a series; half-open (µs).

    Attributes:
        missing: number of rows.
        reason: ``exchange_lacks``, or ``not_loaded`` if no source was asked.
    """

    start_us: int
    end_us: int
    missing: int
    reason: str


def add_series_coverage(
    connection: Connection,
    series: Series,
    symbol: str,
    source: str,
    spans: Iterable[tuple[int, int]],
) -> None:
    """Add times (half-open, µs) that a source answered for."""
    times = Multirange([Range(from_us(start), from_us(end)) for start, end in spans if start < end])
    if times:
        with translated(connection):
            connection.execute(_ADD, (series.value, symbol, source, times))


def read_series_coverage(
    connection: Connection,
    series: Series,
    symbol: str,
    start_us: int,
    end_us: int,
    *,
    sources: Sequence[str] | None = None,
) -> Ranges:
    """Return the times within a range that any of some sources, by default of all, answered for."""
    names = None if sources is None else list(sources)
    arguments = (series.value, symbol, names, names, from_us(start_us), from_us(end_us))
    with translated(connection):
        rows = connection.execute(_READ, arguments).fetchall()
    return [(to_us(start), to_us(end)) for start, end in rows]


def series_gaps(
    connection: Connection, series: Series, symbol: str, start_us: int, end_us: int
) -> list[SeriesGap]:
    """Return the holes between the first stored row and the end of what is covered."""
    arguments = (from_us(start_us), from_us(end_us), symbol, series.value)
    with translated(connection):
        rows = connection.execute(_GAPS, arguments).fetchall()
    return [SeriesGap(to_us(start), to_us(end), missing, why) for start, end, missing, why in rows]


def covered_series(connection: Connection) -> list[tuple[str, Series]]:
    """Return each symbol and series that was ever loaded."""
    with translated(connection):
        rows = connection.execute(_STORED).fetchall()
    return [(symbol, Series(name)) for symbol, name in rows]
