"""Choose the captured trades that a run checks.

Only ids are indexed. Ids ascend with time, so the first id after a given time is found by
bisection: some twenty probes for a symbol and day, however many trades it has.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import LiteralString

import structlog
from psycopg import sql

from include.quality.limits import LATE, ScopeKind
from include.quality.scope import Scope, array
from include.quality.session import CheckSession

log = structlog.get_logger(__name__)

CHUNK_SYMBOL_DAYS = 10
"""Days of one symbol that are checked at a time: some millions of rows at most."""

MAX_SYMBOL_DAYS = 200
"""Maximum changed days of one symbol in a run; the daily run checks a load of years."""
DAY = timedelta(days=1)

DATASETS = {"agg_trades": "agg_trade_id", "trades": "trade_id"}
"""Tables of captured trades and the column of their ids."""

_DAYS: LiteralString = """
SELECT to_date(right(child.relname, 11), '"y"YYYY"m"MM"d"DD')
FROM pg_inherits AS parts
INNER JOIN pg_class AS child ON child.oid = parts.inhrelid
WHERE parts.inhparent = {table}::regclass AND child.relname ~ '_y[0-9]{{4}}m[0-9]{{2}}d[0-9]{{2}}$'
ORDER BY 1
"""

_SYMBOLS: LiteralString = """
WITH RECURSIVE seen (symbol) AS (
    (SELECT symbol FROM {table} WHERE day = {day} ORDER BY symbol LIMIT 1)
    UNION ALL
    SELECT (
        SELECT captured.symbol FROM {table} AS captured
        WHERE captured.day = {day} AND captured.symbol > seen.symbol
        ORDER BY captured.symbol LIMIT 1
    )
    FROM seen WHERE seen.symbol IS NOT NULL
)
SELECT symbol FROM seen WHERE symbol IS NOT NULL AND ({all_symbols} OR symbol = ANY ({symbols}))
ORDER BY 1
"""

# Each symbol with the trade before: of the same day, or the last of the day before, because after a
# disconnect at midnight the missing trades are between the two days.
_LOAD: LiteralString = """
INSERT INTO quality_trades
SELECT
    {dataset}, captured.symbol, captured.day, captured.{id}, captured.price, captured.quantity,
    captured.trade_time,
    captured.{first_id}, captured.{last_id}
FROM unnest({symbols}, {moments}) AS names (name, since)
CROSS JOIN LATERAL (
    WITH RECURSIVE search (low, high) AS (
        SELECT
            (
                SELECT bound.{id} FROM {table} AS bound
                WHERE bound.symbol = name AND bound.day = {day} ORDER BY bound.{id} LIMIT 1
            ),
            (
                SELECT bound.{id} + 1 FROM {table} AS bound
                WHERE bound.symbol = name AND bound.day = {day} ORDER BY bound.{id} DESC LIMIT 1
            )
        UNION ALL
        SELECT
            CASE WHEN probe.trade_time < names.since THEN probe.id + 1 ELSE search.low END,
            CASE WHEN probe.trade_time < names.since
                THEN search.high ELSE (search.low + search.high) / 2
            END
        FROM search
        CROSS JOIN LATERAL (
            SELECT one.{id} AS id, one.trade_time FROM {table} AS one
            WHERE
                one.symbol = name AND one.day = {day}
                AND one.{id} >= (search.low + search.high) / 2
            ORDER BY one.{id} LIMIT 1
        ) AS probe
        WHERE search.low < search.high
    )

    SELECT max(low) AS id FROM search
) AS begun
CROSS JOIN LATERAL (
    SELECT one.* FROM {table} AS one
    WHERE one.symbol = name AND one.day = {day} AND one.{id} >= begun.id
    UNION ALL
    (
        SELECT earlier.* FROM {table} AS earlier
        WHERE
            earlier.symbol = name
            AND earlier.day >= {day} - 1 AND earlier.day <= {day}
            AND earlier.{id} < begun.id
        ORDER BY earlier.day DESC, earlier.{id} DESC LIMIT 1
    )
) AS captured
"""

# Changed rows are checked with all later rows of their day. A clock correction may swap two trades
# by less than a minute; days with trades of another instrument, and days with a failed rule, are
# checked completely.
_CHANGED: LiteralString = """
SELECT
    changes.day,
    changes.symbol,
    CASE WHEN bool_and(changes.since IS NOT NULL) THEN min(changes.since) END
FROM (
    SELECT
        changed.day,
        changed.symbol,
        CASE
            WHEN changed.minutes <@ tstzrange(
                changed.day::timestamp AT TIME ZONE 'UTC',
                (changed.day + 1)::timestamp AT TIME ZONE 'UTC'
            )
                THEN lower(changed.minutes) - interval '1 minute'
        END AS since
    FROM ops.changed_trades({cursor}::pg_snapshot) AS changed
    UNION ALL
    SELECT days.day::date, faults.symbol, NULL
    FROM quality_open AS faults
    CROSS JOIN LATERAL generate_series(
        date_trunc('day', lower(faults.span), 'UTC') AT TIME ZONE 'UTC',
        upper(faults.span) AT TIME ZONE 'UTC',
        interval '1 day'
    ) AS days (day)
    WHERE faults.suite = 'trades'
) AS changes
WHERE changes.day <= {end}::date AND ({all_symbols} OR changes.symbol = ANY ({symbols}))
GROUP BY changes.day, changes.symbol
ORDER BY changes.day DESC, changes.symbol
"""


@dataclass(frozen=True, slots=True)
class TradeChunk:
    """Trades of a day that are checked together.

    Attributes:
        datasets: the tables.
        since: by symbol; earlier trades were checked before. None: the whole day.
    """

    day: date
    datasets: tuple[str, ...]
    since: dict[str, datetime | None]


def chunks_of(
    session: CheckSession, scope: Scope, values: dict[str, sql.Composable]
) -> list[TradeChunk]:
    """Return days and symbols with captured trades, in chunks.

    Archived days have no rows and are not included.
    """
    if scope.kind is ScopeKind.CHANGED:
        changed = session.execute(_CHANGED, values)
        work, left = packed(changed, scope.end)
        if left:
            log.info("trade_check_postponed", symbol_days=left)
        return work
    since = None if scope.start is None else scope.start - LATE
    work = []
    for dataset in DATASETS:
        table = sql.Identifier("market", dataset)
        name = sql.Literal(f"market.{dataset}")
        for (day,) in session.execute(_DAYS, {"table": name}):
            if day > scope.end.date() or (since is not None and day < since.date()):
                continue
            placeholders = values | {"table": table, "day": sql.Literal(day)}
            symbols = [symbol for (symbol,) in session.execute(_SYMBOLS, placeholders)]
            work += [
                TradeChunk(
                    day,
                    (dataset,),
                    dict.fromkeys(symbols[first : first + CHUNK_SYMBOL_DAYS], since),
                )
                for first in range(0, len(symbols), CHUNK_SYMBOL_DAYS)
            ]
    return work


def packed(
    changed: Iterable[tuple[date, str, datetime | None]],
    end: datetime,
    *,
    chunk_days: int = CHUNK_SYMBOL_DAYS,
    max_days: int = MAX_SYMBOL_DAYS,
) -> tuple[list[TradeChunk], int]:
    """Split days of symbols into chunks, each from a start time.

    Args:
        changed: day, symbol and start time, by day. None: whole days, which are never skipped.
        end: no later trades exist.
        chunk_days: days of one symbol in a chunk; many short ends of days count as one.
        max_days: maximum days of one symbol in all; if there are more, the first ones are used.

    Returns:
        The chunks, and the number of skipped days of a symbol.
    """
    work: list[TradeChunk] = []
    in_chunk = in_all = timedelta()
    left = 0
    for day, symbol, since in changed:
        midnight = datetime.combine(day, time(), UTC)
        begun = max(since or midnight, midnight)
        length = max(min(midnight + DAY, end) - begun, timedelta())
        if since is not None and in_all + length > max_days * DAY:
            left += 1
            continue
        in_all += length
        if not work or work[-1].day != day or in_chunk + length > chunk_days * DAY:
            work.append(TradeChunk(day, tuple(DATASETS), {}))
            in_chunk = timedelta()
        in_chunk += length
        work[-1].since[symbol] = since
    return work, left


def load_trades(session: CheckSession, chunk: TradeChunk) -> int:
    """Fill ``quality_trades`` with a chunk; return the number of rows."""
    session.execute("TRUNCATE quality_trades")
    moments = [
        sql.Literal("-infinity" if since is None else since) for since in chunk.since.values()
    ]
    for dataset in chunk.datasets:
        own = DATASETS[dataset]
        is_aggregate = dataset == "agg_trades"
        session.execute(
            _LOAD,
            {
                "dataset": sql.Literal(dataset),
                "table": sql.Identifier("market", dataset),
                "id": sql.Identifier(own),
                "first_id": sql.Identifier("first_trade_id" if is_aggregate else own),
                "last_id": sql.Identifier("last_trade_id" if is_aggregate else own),
                "day": sql.Literal(chunk.day),
                "symbols": array(list(chunk.since)),
                "moments": sql.SQL("ARRAY[{}]::timestamptz[]").format(sql.SQL(", ").join(moments)),
            },
        )
    session.execute("ANALYZE quality_trades")
    return int(session.execute("SELECT count(*) FROM quality_trades")[0][0])
