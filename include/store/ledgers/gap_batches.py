"""Write gaps of many symbols at a time: a disconnect of the streamer affects hundreds together.

A row is identified by symbol, id and opening time: after a failover the new server may lack it and
use its id for another gap.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

from psycopg.types.json import Jsonb

from include.domain.timeframes import from_us, to_us
from include.store.candles.merging import AsyncConnection
from include.store.ledgers.gaps import CANDLES, CLOSE_PROVEN
from include.store.postgres.pools import translated

# In index order, so that two streamers cannot deadlock.
_OPEN = """
INSERT INTO ops.gaps AS g (symbol, dataset, from_time, to_time, cause, opened_at, detail)
SELECT
    n.symbol, %(dataset)s, n.from_time, n.to_time, n.cause,
    clock_timestamp() - n.age_s * interval '1 second', n.detail
FROM unnest(
    %(symbols)s::text[], %(starts)s::timestamptz[], %(ends)s::timestamptz[], %(causes)s::text[],
    %(ages_s)s::float8[], %(details)s::jsonb[]
) AS n (symbol, from_time, to_time, cause, age_s, detail)
ORDER BY n.symbol COLLATE "C", n.from_time, n.to_time
ON CONFLICT (symbol, dataset, from_time, to_time) WHERE repaired_at IS NULL
DO UPDATE SET detail = g.detail || excluded.detail
RETURNING g.symbol, g.from_time, g.to_time, g.id, g.opened_at
"""

# Another streamer may have opened the wider range; then its row is the gap.
_WIDEN = """
UPDATE ops.gaps AS g
SET from_time = n.from_time, to_time = n.to_time, detail = g.detail || n.detail
FROM (
    SELECT w.*, m.dataset
    FROM unnest(
        %(symbols)s::text[], %(ids)s::bigint[], %(opened)s::timestamptz[],
        %(starts)s::timestamptz[], %(ends)s::timestamptz[], %(details)s::jsonb[]
    ) AS w (symbol, id, opened_at, from_time, to_time, detail)
    INNER JOIN ops.gaps AS m
        ON w.id = m.id AND w.symbol = m.symbol AND w.opened_at = m.opened_at
    WHERE m.dataset = %(dataset)s AND m.repaired_at IS NULL
    ORDER BY w.id
    FOR UPDATE OF m
) AS n
WHERE
    g.id = n.id
    AND NOT EXISTS (
        SELECT FROM ops.gaps AS o
        WHERE
            o.symbol = n.symbol AND o.dataset = n.dataset
            AND o.from_time = n.from_time AND o.to_time = n.to_time
            AND o.repaired_at IS NULL AND o.id <> n.id
    )
RETURNING g.symbol, g.id, g.opened_at
"""

_CLOSE = """
UPDATE ops.gaps AS g
SET
    repaired_at = clock_timestamp() - n.age_s * interval '1 second',
    repaired_by = n.by,
    claimed_at = NULL,
    claimed_by = NULL
FROM (
    SELECT c.* FROM unnest(
        %(symbols)s::text[], %(ids)s::bigint[], %(opened)s::timestamptz[],
        %(ages_s)s::float8[], %(proofs)s::text[]
    ) AS c (symbol, id, opened_at, age_s, by)
    INNER JOIN ops.gaps AS m
        ON c.id = m.id AND c.symbol = m.symbol AND c.opened_at = m.opened_at
    WHERE m.dataset = %(dataset)s AND m.repaired_at IS NULL
    ORDER BY c.id
    FOR UPDATE OF m
) AS n
WHERE g.id = n.id
"""

_GIVE_UP = """
UPDATE ops.gaps AS g
SET claimed_at = NULL, claimed_by = NULL, detail = g.detail || n.detail
FROM (
    SELECT c.* FROM unnest(
        %(symbols)s::text[], %(ids)s::bigint[], %(opened)s::timestamptz[], %(details)s::jsonb[]
    ) AS c (symbol, id, opened_at, detail)
    INNER JOIN ops.gaps AS m
        ON c.id = m.id AND c.symbol = m.symbol AND c.opened_at = m.opened_at
    WHERE m.dataset = %(dataset)s AND m.repaired_at IS NULL
    ORDER BY c.id
    FOR UPDATE OF m
) AS n
WHERE g.id = n.id
"""

_NOT_OPEN = """
SELECT named.symbol, named.id, named.opened_at, g.id IS NULL AS is_gone
FROM unnest(%(symbols)s::text[], %(ids)s::bigint[], %(opened)s::timestamptz[])
AS named (symbol, id, opened_at)
LEFT JOIN ops.gaps AS g
    ON
        named.id = g.id AND named.symbol = g.symbol AND named.opened_at = g.opened_at
        AND g.dataset = %(dataset)s
WHERE g.id IS NULL OR g.repaired_at IS NOT NULL
"""


class GapRow(NamedTuple):
    """A row of ``ops.gaps``; ``opened_us`` is its opening time by PostgreSQL's clock."""

    symbol: str
    id: int
    opened_us: int


@dataclass(frozen=True, slots=True)
class NewGap:
    """Missed minutes of a symbol; times in µs, ``age_s`` is the time since they were noticed."""

    symbol: str
    start_us: int
    end_us: int
    cause: str
    age_s: float
    detail: dict[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class WiderGap:
    """A gap of the ledger that has grown."""

    row: GapRow
    start_us: int
    end_us: int
    detail: dict[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ClosedGap:
    """A gap whose minutes were all proven ``age_s`` ago, ``by`` which sources."""

    row: GapRow
    age_s: float
    by: str


@dataclass(frozen=True, slots=True)
class GivenUpGap:
    """A gap that its streamer gives up, so that other workers can claim it."""

    row: GapRow
    detail: dict[str, object] = field(default_factory=dict)


async def open_gaps_async(connection: AsyncConnection, gaps: Sequence[NewGap]) -> list[GapRow]:
    """Open gaps of candles; a gap that is already open gets the new detail added.

    Args:
        gaps: no two with the same symbol and range.

    Returns:
        Their rows, in the order given.

    Raises:
        TransientError, PermanentError: as any statement.
    """
    if not gaps:
        return []
    arguments = {
        "dataset": CANDLES,
        "symbols": [gap.symbol for gap in gaps],
        "starts": [from_us(gap.start_us) for gap in gaps],
        "ends": [from_us(gap.end_us) for gap in gaps],
        "causes": [gap.cause for gap in gaps],
        "ages_s": [gap.age_s for gap in gaps],
        "details": [Jsonb(gap.detail) for gap in gaps],
    }
    with translated(connection):
        cursor = await connection.execute(_OPEN, arguments)
        found = {
            (symbol, start, end): _row(symbol, number, opened_at)
            for symbol, start, end, number, opened_at in await cursor.fetchall()
        }
    return [found[gap.symbol, from_us(gap.start_us), from_us(gap.end_us)] for gap in gaps]


async def widen_gaps_async(connection: AsyncConnection, gaps: Sequence[WiderGap]) -> set[GapRow]:
    """Widen open gaps; return the widened ones.

    The others were closed in the meantime, no longer exist, or another open gap covers their new
    range.
    """
    if not gaps:
        return set()
    arguments = {
        **_rows([gap.row for gap in gaps]),
        "starts": [from_us(gap.start_us) for gap in gaps],
        "ends": [from_us(gap.end_us) for gap in gaps],
        "details": [Jsonb(gap.detail) for gap in gaps],
    }
    with translated(connection):
        cursor = await connection.execute(_WIDEN, arguments)
        return {_row(*row) for row in await cursor.fetchall()}


async def close_gaps_async(connection: AsyncConnection, gaps: Sequence[ClosedGap]) -> int:
    """Mark gaps as repaired; return how many were still open."""
    if not gaps:
        return 0
    arguments = {
        **_rows([gap.row for gap in gaps]),
        "ages_s": [gap.age_s for gap in gaps],
        "proofs": [gap.by for gap in gaps],
    }
    return await _update(connection, _CLOSE, arguments)


async def give_up_gaps_async(connection: AsyncConnection, gaps: Sequence[GivenUpGap]) -> int:
    """Give up gaps, with the reason in their detail; return how many are still open."""
    if not gaps:
        return 0
    arguments = {
        **_rows([gap.row for gap in gaps]),
        "details": [Jsonb(gap.detail) for gap in gaps],
    }
    return await _update(connection, _GIVE_UP, arguments)


async def close_proven_gaps_async(
    connection: AsyncConnection, rows: Sequence[GapRow], *, others: Sequence[GapRow] = ()
) -> tuple[set[GapRow], set[GapRow]]:
    """Close gaps whose minutes all have verified rows or outages.

    Args:
        others: gaps that other workers repair: their minutes, possibly of days, are not read.

    Returns:
        Gaps that are closed, by any worker, and gaps that no longer exist.
    """
    with translated(connection):
        if rows:
            arguments = {"symbols": None, "ids": [row.id for row in rows]}
            await connection.execute(CLOSE_PROVEN, arguments)
        cursor = await connection.execute(_NOT_OPEN, _rows([*rows, *others]))
        found = await cursor.fetchall()
    closed = {_row(*row) for *row, is_gone in found if not is_gone}
    return closed, {_row(*row) for *row, is_gone in found if is_gone}


def _row(symbol: str, number: int, opened_at: datetime) -> GapRow:
    return GapRow(symbol, number, to_us(opened_at))


def _rows(rows: Sequence[GapRow]) -> dict[str, Any]:
    return {
        "dataset": CANDLES,
        "symbols": [row.symbol for row in rows],
        "ids": [row.id for row in rows],
        "opened": [from_us(row.opened_us) for row in rows],
    }


async def _update(connection: AsyncConnection, statement: str, arguments: dict[str, Any]) -> int:
    with translated(connection):
        return (await connection.execute(statement, arguments)).rowcount
