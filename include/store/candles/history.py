"""Read a symbol's stored history before a load: rows, files, listings."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from include.domain.timeframes import MINUTE_US, from_us, to_us
from include.store.candles.merging import Connection
from include.store.postgres.pools import translated

# Two index probes at the ends of the primary key; min and max together would read all of it.
_SPAN = """
SELECT oldest.open_time, coalesce(newest.open_time, oldest.open_time)
FROM (
    SELECT c.open_time FROM market.candles_1m AS c
    WHERE c.symbol = %(symbol)s ORDER BY c.open_time LIMIT 1
) AS oldest
LEFT JOIN (
    SELECT c.open_time FROM market.candles_1m AS c
    WHERE c.symbol = %(symbol)s AND c.open_time < %(until)s ORDER BY c.open_time DESC LIMIT 1
) AS newest ON true
"""

_FILES = """
SELECT DISTINCT ON (f.path)
    f.path, f.verdict, f.fetched_at, used.published_at, used.span_from, used.span_to
FROM ops.dump_files AS f
LEFT JOIN LATERAL (
    SELECT
        one.published_at, one.detail ->> 'from' AS span_from, one.detail ->> 'to' AS span_to
    FROM ops.dump_files AS one
    WHERE one.path = f.path AND one.verdict = 'loaded'
    ORDER BY one.fetched_at DESC LIMIT 1
) AS used ON true
WHERE f.symbol = %s AND f.kind = %s
ORDER BY f.path, f.fetched_at DESC
"""

_LISTED = """
SELECT
    min(listed_from) FILTER (WHERE listed_from > %(unknown)s),
    CASE WHEN bool_and(listed_to IS NOT NULL) THEN max(listed_to) END
FROM market.instruments
WHERE symbol = %(symbol)s
"""


@dataclass(frozen=True, slots=True)
class FileState:
    """State of a dump file: its last fetch and its last load.

    Attributes:
        verdict: of the last fetch, as in ``ops.dump_files``; ``loaded`` or the reason why not.
        published_at_us: of the version loaded last, which may be older than the version of
            ``verdict``; None if none was loaded.
        loaded_us: half-open range of the minutes loaded from that version; None if none was.
    """

    verdict: str
    fetched_at_us: int
    published_at_us: int | None
    loaded_us: tuple[int, int] | None


def stored_span(connection: Connection, symbol: str, until_us: int) -> tuple[int, int] | None:
    """Return the range of a symbol's stored minutes; None without rows.

    Args:
        until_us: rows from this time on do not extend the range: their time may be wrong.
    """
    arguments = {"symbol": symbol, "until": from_us(until_us)}
    with translated(connection):
        row = connection.execute(_SPAN, arguments).fetchone()
    return None if row is None else (to_us(row[0]), to_us(row[1]) + MINUTE_US)


def file_states(connection: Connection, symbol: str, kind: str) -> dict[str, FileState]:
    """Return the files of a symbol and kind that were ever requested, by path."""
    with translated(connection):
        rows = connection.execute(_FILES, (symbol, kind)).fetchall()
    return {
        path: FileState(
            verdict,
            to_us(fetched),
            None if published is None else to_us(published),
            _range(start, end),
        )
        for path, verdict, fetched, published, start, end in rows
    }


def listed_span(connection: Connection, symbol: str) -> tuple[int | None, int | None]:
    """Return when a symbol was first listed and when its listing ended, by the registry.

    Both are None if the registry does not know; the end is None while the symbol is listed.
    """
    arguments = {"symbol": symbol, "unknown": from_us(0)}
    with translated(connection):
        row = connection.execute(_LISTED, arguments).fetchone()
    start, end = row or (None, None)
    return None if start is None else to_us(start), None if end is None else to_us(end)


def _range(start: str | None, end: str | None) -> tuple[int, int] | None:
    if start is None or end is None:
        return None
    return to_us(datetime.fromisoformat(start)), to_us(datetime.fromisoformat(end))
