"""Cheap queries about the platform's health.

Candles are read by ``(symbol, open_time)`` only: for each symbol the rows of the window, and one
index probe before it. Nothing here writes; the reader's privileges suffice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import psycopg
from psycopg import errors
from psycopg.rows import class_row

from include.store.candles.merging import Connection
from include.store.postgres.pools import translated

STATEMENT_TIMEOUT_S = 120

# A loose index scan: a GROUP BY would read all rows. The bound is a partition's, so that every row
# of the partitions read satisfies it.
_SYMBOLS = """
WITH RECURSIVE known AS (
    (
        SELECT c.symbol FROM market.candles_1m AS c
        WHERE c.open_time >= date_trunc('month', %(since)s::timestamptz, 'UTC')
        ORDER BY c.symbol, c.open_time LIMIT 1
    )
    UNION ALL
    SELECT (
        SELECT c.symbol FROM market.candles_1m AS c
        WHERE
            c.symbol > k.symbol
            AND c.open_time >= date_trunc('month', %(since)s::timestamptz, 'UTC')
        ORDER BY c.symbol, c.open_time LIMIT 1
    )
    FROM known AS k WHERE k.symbol IS NOT NULL
)
SELECT symbol FROM known WHERE symbol IS NOT NULL
UNION
SELECT symbol FROM market.live_candles
ORDER BY 1
"""

_SYMBOL_ROWS = """
SELECT
    s.symbol,
    stored.minutes,
    stored.verified,
    stored.unconfirmed,
    stored.partial,
    stored.repaired,
    stored.unsure,
    following.broken,
    stored.from_stream > 0 OR coalesce(live.updated_at >= %(since)s, false) AS is_streamed,
    coalesce(stored.newest, earlier.open_time) AS newest,
    extract(epoch FROM
        %(now)s - coalesce(stored.newest, earlier.open_time) - interval '1 minute'
    )::float8 AS behind_s,
    extract(epoch FROM %(now)s - live.updated_at)::float8 AS live_age_s,
    coalesce(missing.minutes, 0) AS missing,
    coalesce(missing.overdue, 0) AS overdue,
    coalesce(gaps.open, 0) AS gaps,
    coalesce(gaps.overdue, 0) AS overdue_gaps,
    coalesce(differing.rows, 0) AS discrepancies,
    live.oldest AS oldest_live,
    EXISTS (SELECT FROM market.instruments AS i WHERE i.symbol = s.symbol) AS is_listed
FROM unnest(%(symbols)s::text[]) AS s (symbol)
LEFT JOIN (
    SELECT g.symbol, range_agg(tstzrange(g.from_time, g.to_time)) AS minutes
    FROM ops.gaps AS g
    WHERE g.repaired_at IS NOT NULL AND g.to_time > %(since)s AND g.from_time < %(now)s
    GROUP BY g.symbol
) AS mended ON s.symbol = mended.symbol
LEFT JOIN LATERAL (
    SELECT c.open_time FROM market.candles_1m AS c
    WHERE c.symbol = s.symbol AND c.open_time < %(since)s
    ORDER BY c.open_time DESC LIMIT 1
) AS earlier ON true
CROSS JOIN LATERAL (
    SELECT
        count(*) AS minutes,
        count(*) FILTER (WHERE r.status = 'verified') AS verified,
        count(*) FILTER (WHERE r.status = 'unconfirmed') AS unconfirmed,
        count(*) FILTER (WHERE r.status = 'partial') AS partial,
        count(*) FILTER (
            WHERE r.revision > 0 OR r.open_time <@ coalesce(mended.minutes, '{}')
        ) AS repaired,
        count(*) FILTER (
            WHERE r.status <> 'verified' AND r.open_time < %(now)s - %(patience)s::interval
        ) AS unsure,
        count(*) FILTER (WHERE r.source IN ('kline', 'stream')) AS from_stream,
        min(r.open_time) AS oldest,
        max(r.open_time) AS newest,
        range_agg(tstzrange(r.open_time + interval '1 minute', r.next_time)) FILTER (
            WHERE r.next_time > r.open_time + interval '1 minute'
        ) AS holes
    FROM (
        SELECT
            c.open_time, c.status, c.revision, c.source,
            lead(c.open_time) OVER (ORDER BY c.open_time) AS next_time
        FROM market.candles_1m AS c
        WHERE c.symbol = s.symbol AND c.open_time >= %(since)s AND c.open_time < %(now)s
    ) AS r
) AS stored
-- As ops.candle_evidence() judges it. Apart from the above, where the rows to sort are wide: that
-- takes half as long again.
CROSS JOIN LATERAL (
    SELECT count(*) FILTER (
        WHERE
            (
                r.surplus < 0
                OR r.counted_from < r.counted_to_before
                -- ids of USD-M trades skip by design
                OR (
                    (r.surplus > 0 OR r.counted_from > r.counted_to_before)
                    AND market.market_of(s.symbol) = 'spot'
                )
            )
            AND NOT EXISTS (
                SELECT FROM market.instruments AS i
                WHERE
                    i.symbol = s.symbol
                    AND i.listed_from > r.time_before AND i.listed_from <= r.open_time
            )
    ) AS broken
    FROM (
        SELECT
            t.open_time,
            t.surplus,
            t.counted_to - t.surplus AS counted_from,
            lag(t.counted_to) OVER with_ids AS counted_to_before,
            lag(t.open_time) OVER with_ids AS time_before
        FROM (
            SELECT
                c.open_time,
                c.last_trade_id - c.first_trade_id + 1 - c.trade_count AS surplus,
                -- the same in all rows that follow, over rows between that have no ids
                c.last_trade_id - sum(c.trade_count) OVER (
                    ORDER BY c.open_time ROWS UNBOUNDED PRECEDING
                ) AS counted_to
            FROM market.candles_1m AS c
            WHERE
                c.symbol = s.symbol
                AND c.open_time >= %(since)s
                AND c.open_time < %(now)s - %(patience)s::interval
        ) AS t
        WINDOW with_ids AS (PARTITION BY t.counted_to IS NULL ORDER BY t.open_time)
    ) AS r
) AS following
LEFT JOIN LATERAL (
    SELECT
        sum(extract(epoch FROM upper(h.span) - lower(h.span)) / 60)::bigint AS minutes,
        sum(extract(epoch FROM upper(h.span) - lower(h.span)) / 60) FILTER (
            WHERE upper(h.span) < %(now)s - %(patience)s::interval
        )::bigint AS overdue
    FROM unnest(
        coalesce(stored.holes, '{}')
        -- with rows before the window, its first row should be at its beginning
        + CASE
            WHEN earlier.open_time IS NOT NULL AND stored.oldest > %(since)s
                THEN tstzmultirange(tstzrange(
                    greatest(%(since)s, earlier.open_time + interval '1 minute'), stored.oldest
                ))
            ELSE '{}'
        END
        - coalesce((
            SELECT range_agg(o.minutes) FROM ops.outages AS o
            WHERE
                o.market = market.market_of(s.symbol)
                AND (o.symbol IS NULL OR o.symbol = s.symbol)
        ), '{}')
    ) AS h (span)
) AS missing ON true
LEFT JOIN (
    SELECT
        l.symbol,
        max(l.updated_at) AS updated_at,
        min(l.open_time) FILTER (
            -- an older one was left by a streamer that ended
            WHERE l.open_time > %(now)s - %(patience)s::interval
        ) AS oldest
    FROM market.live_candles AS l
    GROUP BY l.symbol
) AS live ON s.symbol = live.symbol
LEFT JOIN LATERAL (
    SELECT
        count(*) AS open,
        count(*) FILTER (WHERE g.opened_at < %(now)s - %(gap_patience)s::interval) AS overdue
    FROM ops.gaps AS g
    WHERE g.symbol = s.symbol AND g.dataset = 'candles_1m' AND g.repaired_at IS NULL
) AS gaps ON true
LEFT JOIN (
    SELECT d.symbol, count(*) AS rows FROM ops.discrepancies AS d
    WHERE d.found_at >= %(since)s GROUP BY d.symbol
) AS differing ON s.symbol = differing.symbol
ORDER BY s.symbol
"""

_QUALITY = """
SELECT
    q.run_id,
    q.run_at,
    count(*) AS checks,
    array_agg(DISTINCT q.check_name) FILTER (
        WHERE NOT q.success AND q.severity = 'error'
    ) AS broken
FROM ops.quality_results AS q
WHERE q.run_at = (SELECT max(m.run_at) FROM ops.quality_results AS m)
GROUP BY q.run_id, q.run_at
ORDER BY q.run_id DESC
LIMIT 1
"""

_FILES = """
SELECT verdict, count(*) AS files, sum(rows)::bigint AS rows, max(fetched_at) AS last_fetched_at,
    max(fetched_at) FILTER (WHERE kind = 'klines') AS last_klines_at
FROM ops.dump_files GROUP BY verdict ORDER BY verdict
"""

_WEIGHT = """
SELECT
    host,
    CASE
        WHEN window_start = date_trunc('minute', clock_timestamp(), 'UTC') THEN used ELSE 0
    END AS used,
    CASE WHEN blocked_until > clock_timestamp() THEN blocked_until END AS blocked_until
FROM ops.weight_budget ORDER BY host
"""


@dataclass(frozen=True, slots=True)
class SymbolHealth:
    """One symbol in the window; counts are of minutes unless noted.

    Attributes:
        minutes: rows in the window; ``verified``, ``unconfirmed`` and ``partial`` add up to it.
        repaired: rows within a closed entry of ``ops.gaps``, or whose values changed after they
            were written.
        unsure: unconfirmed or partial for longer than the patience.
        broken: rows older than the patience whose trade ids do not follow the rows before.
        is_streamed: whether a stream wrote an open candle or a row in the window.
        newest: open time of the newest closed minute, in the window or before it.
        behind_s: seconds since that minute's end; None without any row.
        live_age_s: seconds since the open candle was written; None without one.
        missing: neither row nor outage, between rows; ``overdue`` for longer than the patience.
        gaps: open entries of ``ops.gaps``; ``overdue_gaps`` are older than their patience.
        discrepancies: entries of ``ops.discrepancies`` found in the window.
        oldest_live: open time of the oldest open candle that is younger than the patience: since
            then, the stream has waited to store a minute.
        is_listed: whether ``market.instruments`` has the symbol.
    """

    symbol: str
    minutes: int
    verified: int
    unconfirmed: int
    partial: int
    repaired: int
    unsure: int
    broken: int
    is_streamed: bool
    newest: datetime | None
    behind_s: float | None
    live_age_s: float | None
    missing: int
    overdue: int
    gaps: int
    overdue_gaps: int
    discrepancies: int
    oldest_live: datetime | None = None
    is_listed: bool = True


@dataclass(frozen=True, slots=True)
class NewestQualityRun:
    """The newest quality run; ``broken`` counts failed rules of severity error."""

    run_id: str
    run_at: datetime
    checks: int
    broken: list[str] | None


@dataclass(frozen=True, slots=True)
class FilesOfVerdict:
    """Number and age of the dump files with one verdict, of any kind and of 1m klines."""

    verdict: str
    files: int
    rows: int
    last_fetched_at: datetime
    last_klines_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class HostWeight:
    """Request weight used in this clock minute, and until when the exchange demands a pause."""

    host: str
    used: int
    blocked_until: datetime | None


@dataclass(frozen=True, slots=True)
class Health:
    """State of the ledgers; ``symbols`` are ordered by name.

    Attributes:
        klines_loaded_at: when the newest dump file of 1m klines was loaded.
    """

    symbols: list[SymbolHealth]
    quality: NewestQualityRun | None
    files: list[FilesOfVerdict]
    weights: list[HostWeight]
    klines_loaded_at: datetime | None = None


def server_time(connection: Connection) -> datetime:
    """Return the database's clock, the reference for all ages."""
    with translated(connection):
        row = connection.execute("SELECT clock_timestamp()").fetchone()
    moment = row[0] if row else None
    if not isinstance(moment, datetime):
        raise TypeError(f"clock_timestamp() is {moment!r}")
    return moment


def server_started(connection: Connection) -> datetime:
    """Return when the database server started."""
    with translated(connection):
        row = connection.execute("SELECT pg_postmaster_start_time()").fetchone()
    moment = row[0] if row else None
    if not isinstance(moment, datetime):
        raise TypeError(f"pg_postmaster_start_time() is {moment!r}")
    return moment


def schema_revision(connection: Connection) -> str | None:
    """Return the revision of the schema; None if the database was never migrated."""
    with translated(connection):
        try:
            row = connection.execute("SELECT version_num FROM ops.alembic_version").fetchone()
        except (errors.UndefinedTable, errors.InvalidSchemaName):
            return None
    return str(row[0]) if row else None


def known_symbols(connection: Connection, *, since: datetime) -> list[str]:
    """Return symbols with an open candle, or with candles since the month of ``since`` began."""
    with translated(connection):
        return [symbol for (symbol,) in connection.execute(_SYMBOLS, {"since": since})]


def read_health(
    connection: Connection,
    symbols: Sequence[str],
    *,
    since: datetime,
    now: datetime,
    patience_s: float,
    gap_patience_s: float,
) -> Health:
    """Read the whole state in one snapshot.

    Args:
        since, now: the window; ``now`` by the database's clock.
        patience_s: how long a minute may be missing or not confirmed before it counts as such.
        gap_patience_s: how long an entry of ``ops.gaps`` may be open.

    Raises:
        TransientError: the database is away, or took too long.
    """
    parameters = {
        "symbols": list(symbols),
        "since": since,
        "now": now,
        "patience": f"{patience_s} seconds",
        "gap_patience": f"{gap_patience_s} seconds",
    }
    with translated(connection), connection.transaction():
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        connection.execute(
            "SELECT set_config('statement_timeout', %s, true)", (f"{STATEMENT_TIMEOUT_S}s",)
        )
        files = _rows(connection, FilesOfVerdict, _FILES)
        return Health(
            _rows(connection, SymbolHealth, _SYMBOL_ROWS, parameters),
            next(iter(_rows(connection, NewestQualityRun, _QUALITY)), None),
            files,
            _rows(connection, HostWeight, _WEIGHT),
            max((one.last_klines_at for one in files if one.last_klines_at), default=None),
        )


def _rows(
    connection: psycopg.Connection[Any],
    kind: type[Any],
    query: str,
    parameters: dict[str, Any] | None = None,
) -> list[Any]:
    with connection.cursor(row_factory=class_row(kind)) as cursor:
        return cursor.execute(query, parameters).fetchall()
