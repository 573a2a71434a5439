"""Read recorded outages of the exchange, of any age."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from psycopg.rows import class_row

from include.store.candles.merging import Connection
from include.store.postgres.pools import translated

MAX_OUTAGES = 1_000

_READ = """
SELECT
    o.market,
    o.cause,
    CASE WHEN isfinite(lower(m.span)) THEN lower(m.span) END AS from_time,
    CASE WHEN isfinite(upper(m.span)) THEN upper(m.span) END AS to_time,
    bool_or(o.symbol IS NULL) AS is_of_market,
    coalesce(array_agg(o.symbol ORDER BY o.symbol) FILTER (WHERE o.symbol IS NOT NULL), '{}')
        AS symbols
FROM ops.outages AS o
CROSS JOIN LATERAL unnest(o.minutes) AS m (span)
WHERE
    cardinality(%(symbols)s::text[]) = 0
    OR o.symbol = ANY(%(symbols)s::text[])
    OR (
        o.symbol IS NULL
        AND o.market IN (
            SELECT market.market_of(s.symbol) FROM unnest(%(symbols)s::text[]) AS s (symbol)
        )
    )
GROUP BY o.market, o.cause, m.span
ORDER BY lower(m.span) DESC NULLS LAST, o.market, o.cause
LIMIT %(most)s
"""


@dataclass(frozen=True, slots=True)
class Outage:
    """Minutes without rows at the exchange itself.

    Attributes:
        from_time, to_time: half-open range; None if it has no start or no end.
        is_of_market: whether all symbols of the market had none.
        symbols: the symbols that had none, if it is not the market.
    """

    market: str
    cause: str
    from_time: datetime | None
    to_time: datetime | None
    is_of_market: bool
    symbols: list[str]

    @property
    def minutes(self) -> int | None:
        """Number of minutes; None if it has no start or no end."""
        if self.from_time is None or self.to_time is None:
            return None
        return round((self.to_time - self.from_time).total_seconds() / 60)


def read_outages(connection: Connection, symbols: Sequence[str] = ()) -> list[Outage]:
    """Return the outages, newest first; at most ``MAX_OUTAGES``.

    Args:
        symbols: limits them to these and to outages of their markets; empty for all.
    """
    arguments = {"symbols": list(symbols), "most": MAX_OUTAGES}
    with translated(connection), connection.cursor(row_factory=class_row(Outage)) as cursor:
        return cursor.execute(_READ, arguments).fetchall()
