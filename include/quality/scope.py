"""Determine the scope of a run: changed minutes and trades, a window, or everything.

The scope is stored in temporary tables of the session, which the suites' batches read::

    quality_symbols  symbols with rows in the last day before the end
    quality_wanted   stretches to be checked, in chunks of bounded size
    quality_open     time spans in which rules failed, to be checked again
    quality_candles  rows of one chunk: its stretches, each with the row before and after
    quality_minutes  checked minutes of USD-M, and whether they had trades
    quality_trades   captured trades of one chunk

Changed candles (by value or status) are found like in the health marts: by the snapshot of
``ops.coverage_changes`` that the last run stored in ``ops.build_cursors``. Some rows become faults
by time alone: a gap that is not repaired, a minute that is not confirmed. They are checked when
they become overdue. Rows that failed a rule are checked until they pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import LiteralString

from psycopg import sql

from include.quality.limits import LATE, Limits, ScopeKind
from include.quality.open_faults import BROKEN_LEDGERS, OPEN
from include.quality.rules.halts import FAILED_BEFORE, MINUTES, NOTE_MINUTES
from include.quality.session import CheckSession

CURSOR = "quality.candles"
"""Our row in ``ops.build_cursors``. It prevents pruning of changes that we have not read."""
TARGET = "quality"

CHUNK_MINUTES = 1_000_000
"""Minutes checked at a time: a temporary table of about 300 MB."""
PIECE = timedelta(days=7)
"""Maximum length of a stretch of one symbol in a chunk."""
IDS_WITHIN = timedelta(hours=1)
"""Maximum distance to the earlier row whose trade ids the first row of a stretch must continue."""

_TABLES: tuple[LiteralString, ...] = (
    'CREATE TEMPORARY TABLE quality_symbols (symbol text COLLATE "C" PRIMARY KEY)',
    """
    CREATE TEMPORARY TABLE quality_wanted (
        chunk integer NOT NULL,
        symbol text COLLATE "C" NOT NULL,
        from_time timestamptz NOT NULL,
        to_time timestamptz NOT NULL
    )
    """,
    MINUTES,
    # No constraints: a rule must see rows that a dropped constraint let in.
    """
    CREATE TEMPORARY TABLE quality_candles AS
    SELECT 0::bigint AS stretch, * FROM market.candles_1m WITH NO DATA
    """,
    """
    CREATE TEMPORARY TABLE quality_trades AS
    SELECT
        'agg_trades'::text AS dataset, symbol, day, agg_trade_id AS id, price, quantity, trade_time,
        first_trade_id, last_trade_id
    FROM market.agg_trades WITH NO DATA
    """,
)

# Loose index scan: a condition on open_time alone would read whole months.
_SYMBOLS: LiteralString = """
INSERT INTO quality_symbols
WITH RECURSIVE seen (symbol) AS (
    (
        SELECT symbol FROM market.candles_1m
        WHERE open_time >= {since} AND open_time < {end}
        ORDER BY symbol LIMIT 1
    )
    UNION ALL
    SELECT (
        SELECT candles.symbol FROM market.candles_1m AS candles
        WHERE
            candles.symbol > seen.symbol
            AND candles.open_time >= {since} AND candles.open_time < {end}
        ORDER BY candles.symbol LIMIT 1
    )
    FROM seen WHERE seen.symbol IS NOT NULL
)
SELECT symbol FROM seen WHERE symbol IS NOT NULL AND ({all_symbols} OR symbol = ANY ({symbols}))
"""

_CHANGED: LiteralString = """
SELECT changes.symbol, spans.span
FROM ops.coverage_changes AS changes, unnest(changes.minutes) AS spans (span)
WHERE
    changes.changed_by >= pg_snapshot_xmin({cursor}::pg_snapshot)
    AND NOT pg_visible_in_snapshot(changes.changed_by, {cursor}::pg_snapshot)
UNION ALL
SELECT symbol, tstzrange({last_end} - {min_age} - interval '5 minutes', {end})
FROM quality_symbols
UNION ALL
SELECT
    symbol,
    tstzrange(
        {last_end} - {unverified_after} - interval '1 minute',
        {end} - {unverified_after} + interval '1 minute'
    )
FROM quality_symbols
UNION ALL
SELECT symbol, span FROM quality_open WHERE suite = 'candles'
"""

_WINDOW: LiteralString = "SELECT symbol, tstzrange({start}, {end}) AS span FROM quality_symbols"

_ALL: LiteralString = """
SELECT names.symbol, ops.stored_minutes(names.symbol) AS span
FROM ops.candle_symbols() AS names (symbol)
"""

# Split into weeks and ordered by month, so that a chunk reads few partitions.
_WANTED: LiteralString = """
INSERT INTO quality_wanted
WITH united AS (
    SELECT symbol, range_agg(span * tstzrange('1970-01-01 00:00Z', {end})) AS spans
    FROM ({spans}) AS wanted (symbol, span)
    WHERE {all_symbols} OR symbol = ANY ({symbols})
    GROUP BY symbol
),

pieces AS (
    SELECT
        united.symbol,
        greatest(lower(spans.span), begun) AS from_time,
        least(upper(spans.span), begun + {piece}) AS to_time
    FROM
        united,
        unnest(united.spans) AS spans (span),
        generate_series(lower(spans.span), upper(spans.span) - interval '1 microsecond', {piece})
            AS begun
)

SELECT
    (sum(extract(epoch FROM to_time - from_time) / 60) OVER (
        ORDER BY date_trunc('month', from_time), symbol, from_time
    ) / {chunk_minutes})::integer,
    symbol,
    from_time,
    to_time
FROM pieces
"""

_CANDLES: LiteralString = """
INSERT INTO quality_candles
WITH reached AS (
    SELECT
        wanted.symbol,
        tstzrange(
            least(wanted.from_time, earlier.open_time, with_ids.open_time),
            greatest(wanted.to_time, later.open_time + interval '1 minute')
        ) AS span
    FROM quality_wanted AS wanted
    LEFT JOIN LATERAL (
        SELECT candle.open_time FROM market.candles_1m AS candle
        WHERE candle.symbol = wanted.symbol AND candle.open_time < wanted.from_time
        ORDER BY candle.open_time DESC LIMIT 1
    ) AS earlier ON true
    LEFT JOIN LATERAL (
        SELECT candle.open_time FROM market.candles_1m AS candle
        WHERE
            candle.symbol = wanted.symbol
            AND candle.open_time < wanted.from_time
            AND candle.open_time >= wanted.from_time - {ids_within}
            AND candle.last_trade_id IS NOT NULL
        ORDER BY candle.open_time DESC LIMIT 1
    ) AS with_ids ON true
    LEFT JOIN LATERAL (
        SELECT candle.open_time FROM market.candles_1m AS candle
        WHERE
            candle.symbol = wanted.symbol
            AND candle.open_time >= wanted.to_time AND candle.open_time < {end}
        ORDER BY candle.open_time LIMIT 1
    ) AS later ON true
    WHERE wanted.chunk = {chunk}
),

stretches AS (
    SELECT
        united.symbol,
        row_number() OVER () AS stretch,
        lower(spans.span) AS from_time,
        upper(spans.span) AS to_time
    FROM (SELECT symbol, range_agg(span) AS spans FROM reached GROUP BY symbol) AS united
    CROSS JOIN LATERAL unnest(united.spans) AS spans (span)
)

SELECT stretches.stretch, candle.*
FROM stretches
INNER JOIN market.candles_1m AS candle
    ON
        candle.symbol = stretches.symbol
        AND candle.open_time >= stretches.from_time AND candle.open_time < stretches.to_time
"""


@dataclass(frozen=True, slots=True)
class Scope:
    """Scope of one run.

    Attributes:
        kind: the requested kind; ``all`` also if there is no cursor to continue from.
        start: of the window; for changed rows the end of the last run, at the earliest a day before
            ``end``.
        end: exclusive end of the checked minutes.
        snapshot: this run's position in the change log, as text.
        symbols: number of symbols.
        chunks: numbers of the chunks.
    """

    kind: ScopeKind
    start: datetime | None
    end: datetime
    snapshot: str
    symbols: int
    chunks: tuple[int, ...]


def values_of(
    limits: Limits, end: datetime, symbols: Sequence[str] | None
) -> dict[str, sql.Composable]:
    """Return the values of the placeholders in our queries."""
    return {
        "end": sql.Literal(end),
        "since": sql.Literal(end - limits.followed_for),
        "all_symbols": sql.Literal(symbols is None),
        "symbols": array(list(symbols or ())),
        "min_age": sql.Literal(limits.min_age),
        "unverified_after": sql.Literal(limits.unverified_after),
        "stale_after": sql.Literal(limits.stale_after),
        "followed_for": sql.Literal(limits.followed_for),
        "jump_multiple": sql.Literal(limits.jump_multiple),
        "least_jump": sql.Literal(limits.min_jump),
        "usual_rows": sql.Literal(limits.usual_rows),
        "silence_before": sql.Literal(limits.silence_before),
        "longest_halt": sql.Literal(limits.longest_halt),
        "piece": sql.Literal(PIECE),
        "chunk_minutes": sql.Literal(CHUNK_MINUTES),
        "ids_within": sql.Literal(IDS_WITHIN),
    }


def array(texts: list[str]) -> sql.Composable:
    """Return a text array without braces, which Great Expectations would read as placeholders."""
    items = sql.SQL(", ").join(map(sql.Literal, texts))
    return sql.SQL("ARRAY[{}]::text[]").format(items)


_KEEP_CURSOR: LiteralString = "SELECT ops.advance_quality_cursor({snapshot}::pg_snapshot)"

_KNOWN: LiteralString = """
SELECT
    pg_current_snapshot()::text,
    date_trunc('minute', clock_timestamp(), 'UTC'),
    (
        SELECT cursors.snapshot::text FROM ops.build_cursors AS cursors
        WHERE
            cursors.relation = {relation} AND cursors.target = {target}
            AND cursors.system_identifier = ops.system_identifier()
    ),
    last.to_time,
    last.run_at,
    last.run_at - last.took_ms * interval '1 millisecond' - {late}
FROM (SELECT) AS present
LEFT JOIN (
    SELECT to_time, run_at, took_ms FROM ops.quality_runs
    WHERE advances ORDER BY run_at DESC LIMIT 1
) AS last ON true
"""


def prepare(
    session: CheckSession,
    kind: ScopeKind,
    *,
    limits: Limits,
    start: datetime | None,
    end: datetime | None,
    symbols: Sequence[str] | None,
) -> tuple[Scope, dict[str, sql.Composable]]:
    """Determine what to check, and store it in ``quality_wanted``.

    Args:
        start: of a window; otherwise unused.
        end: None: the database's clock.
        symbols: None: all.

    Returns:
        The scope, and the values of the queries' placeholders.
    """
    cursor_key: dict[str, sql.Composable] = {
        "relation": sql.Literal(CURSOR),
        "target": sql.Literal(TARGET),
        "late": sql.Literal(LATE),
    }
    ((snapshot, now, cursor, last_end, last_run_at, open_since),) = session.execute(
        _KNOWN, cursor_key
    )
    end = end or now
    if kind is ScopeKind.CHANGED and (cursor is None or last_end is None):
        kind = ScopeKind.ALL
        if cursor is None:
            # From here on, changes are not pruned before this run has read them.
            session.execute(_KEEP_CURSOR, {"snapshot": sql.Literal(snapshot)})
    spans = {ScopeKind.CHANGED: _CHANGED, ScopeKind.WINDOW: _WINDOW, ScopeKind.ALL: _ALL}[kind]
    since: datetime | None = start
    ledger_since: sql.Composable = sql.SQL("'-infinity'::timestamptz")
    if kind is ScopeKind.CHANGED:
        since = max(min(last_end, end), end - limits.followed_for)
        ((ledgers_are_broken,),) = session.execute(
            BROKEN_LEDGERS, {"open_since": sql.Literal(open_since)}
        )
        if not ledgers_are_broken:
            ledger_since = sql.Literal(last_run_at - LATE)
    elif kind is ScopeKind.WINDOW:
        ledger_since = sql.Literal(start)
    values = values_of(limits, end, symbols) | {
        "cursor": sql.Literal(cursor),
        "last_end": sql.Literal(since),
        "start": sql.Literal(start),
        "ledger_since": ledger_since,
    }
    for statement in _TABLES:
        session.execute(statement)
    if kind is ScopeKind.CHANGED:
        values["open_since"] = sql.Literal(open_since)
        session.execute(OPEN, values)
        session.execute(FAILED_BEFORE, values)
    if kind is ScopeKind.WINDOW and start is not None:
        # includes symbols whose rows ended shortly before the window
        values["since"] = sql.Literal(start - limits.followed_for)
    session.execute(_SYMBOLS, values)
    session.execute(_WANTED, values | {"spans": sql.SQL(spans).format(**values)})
    session.execute("ANALYZE quality_wanted, quality_symbols")
    ((found, chunks),) = session.execute(
        "SELECT count(DISTINCT symbol), array_agg(DISTINCT chunk ORDER BY chunk)"
        " FROM quality_wanted"
    )
    return Scope(kind, since, end, snapshot, found, tuple(chunks or (0,))), values


def load_candles(session: CheckSession, chunk: int, values: dict[str, sql.Composable]) -> int:
    """Fill ``quality_candles`` with a chunk, record its minutes; return the number of rows."""
    session.execute("TRUNCATE quality_candles")
    session.execute(_CANDLES, values | {"chunk": sql.Literal(chunk)})
    session.execute("ANALYZE quality_candles")
    session.execute(NOTE_MINUTES)
    return int(session.execute("SELECT count(*) FROM quality_candles")[0][0])
