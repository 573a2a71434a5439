"""Compare bars in the marts with their minutes, a month of a symbol at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg import Connection
from psycopg.types.multirange import Multirange
from psycopg.types.range import Range

from include.store.postgres.pools import translated

FUNCTION = "marts.differing_bars(text, timestamptz, timestamptz)"
"""Created by the dbt model ``differing_bars``."""

_TURNS = """
WITH months AS (
    SELECT
        s.symbol,
        generate_series(
            date_trunc('month', lower(s.stored), 'UTC') AT TIME ZONE 'UTC',
            upper(s.stored) AT TIME ZONE 'UTC' - interval '1 microsecond',
            interval '1 month'
        ) AT TIME ZONE 'UTC' AS month
    FROM (
        SELECT k.symbol, ops.stored_minutes(k.symbol) AS stored
        FROM ops.candle_symbols() AS k (symbol)
    ) AS s
    WHERE NOT isempty(s.stored)
    UNION
    -- Bars whose minutes are gone.
    SELECT b.symbol, b.open_time FROM marts.candles_1mo AS b
)

SELECT m.symbol, m.month
FROM months AS m
LEFT JOIN ops.mart_audits AS a ON m.symbol = a.symbol AND m.month = a.month
ORDER BY a.audited_at NULLS FIRST, m.month DESC, m.symbol
LIMIT %s
"""

_DIFFERING = """
SELECT timeframe, open_time, next_open_time, stored, expected
FROM marts.differing_bars(%s, %s, %s)
"""

_REBUILD = "INSERT INTO ops.candle_changes (symbol, minutes) VALUES (%s, %s)"

_RECORD = """
INSERT INTO ops.mart_audits AS a (symbol, month, audited_at, differing_bars)
VALUES (%s, %s, clock_timestamp(), %s)
ON CONFLICT (symbol, month) DO UPDATE SET
    audited_at = excluded.audited_at, differing_bars = excluded.differing_bars
"""


@dataclass(frozen=True, slots=True)
class DifferingBar:
    """A bar of a mart that differs from the bar rolled up again.

    Attributes:
        stored: values in the mart by column, as text or JSON numbers; None: the bar is missing.
        expected: values that a build would write; None: there should be no bar.
    """

    timeframe: str
    open_time: datetime
    next_open_time: datetime
    stored: dict[str, Any] | None
    expected: dict[str, Any] | None

    @property
    def differing_columns(self) -> list[str]:
        """Names of the columns that differ; all if one side is missing."""
        stored, expected = self.stored or {}, self.expected or {}
        names = list(stored or expected)
        return [name for name in names if stored.get(name) != expected.get(name)]


def has_audit(connection: Connection[Any]) -> bool:
    """Return whether dbt has created the function that compares."""
    with translated(connection):
        row = connection.execute("SELECT to_regprocedure(%s) IS NOT NULL", (FUNCTION,)).fetchone()
    return row == (True,)


def next_months(connection: Connection[Any], *, limit: int) -> list[tuple[str, datetime]]:
    """Return (symbol, first moment of a month) to compare next: never compared ones, then oldest.

    Raises:
        TransientError: the database is away.
    """
    with translated(connection):
        return list(connection.execute(_TURNS, (limit,)).fetchall())


def audit_month(connection: Connection[Any], symbol: str, month: datetime) -> list[DifferingBar]:
    """Compare a month of a symbol; log the minutes of differing bars, so that builds rebuild them.

    Args:
        month: first moment of a month, UTC.

    Returns:
        The differing bars of all timeframes.

    Raises:
        TransientError: the database is away.
    """
    following = month.replace(year=month.year + month.month // 12, month=month.month % 12 + 1)
    with translated(connection), connection.transaction():
        rows = connection.execute(_DIFFERING, (symbol, month, following)).fetchall()
        bars = [DifferingBar(*row) for row in rows]
        if bars:
            connection.execute(_REBUILD, (symbol, _minutes_of(bars)))
        connection.execute(_RECORD, (symbol, month, len(bars)))
    return bars


def _minutes_of(bars: Sequence[DifferingBar]) -> Multirange[datetime]:
    return Multirange([Range(one.open_time, one.next_open_time) for one in bars])
