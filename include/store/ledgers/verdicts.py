"""Read and write the results of comparing days, and find the files they are based on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, time

from psycopg.rows import class_row

from include.domain.timeframes import from_us, to_us
from include.store.candles.merging import Connection
from include.store.ledgers.reconciliation import DayVerdict
from include.store.postgres.pools import translated

_RECORD = """
INSERT INTO ops.reconciliations AS r (
    symbol, day, verdict, is_complete, expected_minutes, stored_minutes, verified_minutes,
    outage_minutes, revised_minutes, live_minutes, live_differing, rest_minutes, rest_differing,
    daily_minutes, daily_differing, monthly_minutes, monthly_differing
)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
ON CONFLICT (symbol, day) DO UPDATE SET
    verdict = excluded.verdict,
    is_complete = excluded.is_complete,
    expected_minutes = excluded.expected_minutes,
    stored_minutes = excluded.stored_minutes,
    verified_minutes = excluded.verified_minutes,
    outage_minutes = excluded.outage_minutes,
    revised_minutes = excluded.revised_minutes,
    live_minutes = excluded.live_minutes,
    live_differing = excluded.live_differing,
    rest_minutes = excluded.rest_minutes,
    rest_differing = excluded.rest_differing,
    daily_minutes = excluded.daily_minutes,
    daily_differing = excluded.daily_differing,
    monthly_minutes = excluded.monthly_minutes,
    monthly_differing = excluded.monthly_differing,
    reconciled_at = clock_timestamp()
"""

_READ = """
SELECT
    symbol, day, verdict, is_complete, expected_minutes, stored_minutes, verified_minutes,
    outage_minutes, revised_minutes, live_minutes, live_differing, rest_minutes, rest_differing,
    daily_minutes, daily_differing, monthly_minutes, monthly_differing
FROM ops.reconciliations
WHERE symbol = ANY(%(symbols)s) AND day >= %(since)s AND day < %(before)s
ORDER BY day, symbol
"""


_LOADED = """
SELECT published_at
FROM ops.dump_files
WHERE
    path = %(path)s AND kind = %(kind)s AND verdict = 'loaded'
    AND (detail ->> 'from')::timestamptz <= %(start)s
    AND (detail ->> 'to')::timestamptz >= %(end)s
ORDER BY fetched_at DESC
LIMIT 1
"""

_BEFORE_FILE = """
SELECT r.day
FROM ops.reconciliations AS r
WHERE
    r.symbol = %(symbol)s AND r.day >= %(since)s AND r.day < %(before)s
    AND r.reconciled_at < (
        SELECT max(f.fetched_at) FROM ops.dump_files AS f
        WHERE f.path = %(path)s AND f.kind = %(kind)s AND f.verdict = 'loaded'
    )
ORDER BY r.day
"""


@dataclass(frozen=True, slots=True)
class LoadedFile:
    """A dump file that was merged completely; ``published_at_us`` if the site has it."""

    published_at_us: int | None


def record_verdicts(connection: Connection, verdicts: Sequence[DayVerdict]) -> None:
    """Store results of a comparison; a repeated day replaces its rows."""
    rows = [
        (
            one.symbol, one.day, one.verdict, one.is_complete, one.expected_minutes,
            one.stored_minutes, one.verified_minutes, one.outage_minutes, one.revised_minutes,
            one.live_minutes, one.live_differing, one.rest_minutes, one.rest_differing,
            one.daily_minutes, one.daily_differing, one.monthly_minutes, one.monthly_differing,
        )
        for one in verdicts
    ]  # fmt: skip
    with translated(connection), connection.transaction(), connection.cursor() as cursor:
        cursor.executemany(_RECORD, rows)


def read_verdicts(
    connection: Connection, symbols: Sequence[str], since_us: int, before_us: int
) -> list[DayVerdict]:
    """Return the results for these symbols in a range (µs), by day and symbol."""
    arguments = {
        "symbols": list(symbols),
        "since": from_us(since_us).date(),
        "before": from_us(before_us).date(),
    }
    with translated(connection), connection.cursor(row_factory=class_row(DayVerdict)) as cursor:
        return cursor.execute(_READ, arguments).fetchall()


def find_loaded(
    connection: Connection, path: str, start_us: int, end_us: int, *, kind: str
) -> LoadedFile | None:
    """Return the newest version of a dump file that was merged over a whole range (µs)."""
    arguments = {
        "path": path, "kind": kind, "start": from_us(start_us), "end": from_us(end_us),
    }  # fmt: skip
    with translated(connection):
        row = connection.execute(_LOADED, arguments).fetchone()
    return None if row is None else LoadedFile(None if row[0] is None else to_us(row[0]))


def days_before_file(
    connection: Connection, symbol: str, path: str, start_us: int, end_us: int, *, kind: str
) -> list[int]:
    """Return the days (starts, µs) of a range whose verdicts are older than the loaded file."""
    arguments = {
        "symbol": symbol,
        "path": path,
        "kind": kind,
        "since": from_us(start_us).date(),
        "before": from_us(end_us).date(),
    }
    with translated(connection):
        rows = connection.execute(_BEFORE_FILE, arguments).fetchall()
    return [to_us(datetime.combine(day, time(), UTC)) for (day,) in rows]
