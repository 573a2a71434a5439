"""Gaps of many symbols at once, as a streamer writes them: a cut hits hundreds together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from psycopg.types.json import Jsonb

from include.domain.timeframes import from_us
from include.store.gaps import CANDLES, CLOSE_PROVEN
from include.store.merging import AsyncConnection
from include.store.pools import translated

# In the order of the index, so that two streamers cannot lock each other out.
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
RETURNING g.symbol, g.from_time, g.to_time, g.id
"""

# Another streamer may have opened the wider range by itself: then that row is the gap.
_WIDEN = """
UPDATE ops.gaps AS g
SET from_time = n.from_time, to_time = n.to_time, detail = g.detail || n.detail
FROM (
    SELECT w.*, m.symbol, m.dataset
    FROM unnest(
        %(ids)s::bigint[], %(starts)s::timestamptz[], %(ends)s::timestamptz[],
        %(details)s::jsonb[]
    ) AS w (id, from_time, to_time, detail)
    INNER JOIN ops.gaps AS m ON w.id = m.id
    WHERE m.repaired_at IS NULL
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
RETURNING g.id
"""

_CLOSE = """
UPDATE ops.gaps AS g
SET
    repaired_at = clock_timestamp() - n.age_s * interval '1 second',
    repaired_by = n.by,
    claimed_at = NULL,
    claimed_by = NULL
FROM (
    SELECT c.* FROM unnest(%(ids)s::bigint[], %(ages_s)s::float8[], %(proofs)s::text[])
    AS c (id, age_s, by)
    INNER JOIN ops.gaps AS m ON c.id = m.id
    WHERE m.repaired_at IS NULL
    ORDER BY c.id
    FOR UPDATE OF m
) AS n
WHERE g.id = n.id
"""

_LEAVE = """
UPDATE ops.gaps AS g
SET claimed_at = NULL, claimed_by = NULL, detail = g.detail || n.detail
FROM (
    SELECT c.* FROM unnest(%(ids)s::bigint[], %(details)s::jsonb[]) AS c (id, detail)
    INNER JOIN ops.gaps AS m ON c.id = m.id
    WHERE m.repaired_at IS NULL
    ORDER BY c.id
    FOR UPDATE OF m
) AS n
WHERE g.id = n.id
"""

_NOT_OPEN = """
SELECT asked.id FROM unnest(%(ids)s::bigint[]) AS asked (id)
WHERE NOT EXISTS (SELECT FROM ops.gaps AS g WHERE g.id = asked.id AND g.repaired_at IS NULL)
"""


@dataclass(frozen=True, slots=True)
class NewGap:
    """Missed minutes of a symbol; times in µs, ``age_s`` is how long ago they were noticed."""

    symbol: str
    start_us: int
    end_us: int
    cause: str
    age_s: float
    detail: dict[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class WiderGap:
    """A gap of the ledger that has grown."""

    id: int
    start_us: int
    end_us: int
    detail: dict[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ClosedGap:
    """A gap whose minutes were all proven ``age_s`` ago, ``by`` which sources."""

    id: int
    age_s: float
    by: str


@dataclass(frozen=True, slots=True)
class LeftGap:
    """A gap that its streamer gives up, for others to claim."""

    id: int
    detail: dict[str, object] = field(default_factory=dict)


async def open_gaps_async(connection: AsyncConnection, gaps: Sequence[NewGap]) -> list[int]:
    """Open gaps of candles; one that is open already stays and takes the detail over.

    Args:
        gaps: no two with the same symbol and range.

    Returns:
        Their ids, in the order given.

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
        ids = {tuple(row[:3]): int(row[3]) for row in await cursor.fetchall()}
    return [ids[gap.symbol, from_us(gap.start_us), from_us(gap.end_us)] for gap in gaps]


async def widen_gaps_async(connection: AsyncConnection, gaps: Sequence[WiderGap]) -> set[int]:
    """Widen open gaps; returns the ids of those that were.

    The others were closed meanwhile, or another open one has their new range by now.
    """
    if not gaps:
        return set()
    arguments = {
        "ids": [gap.id for gap in gaps],
        "starts": [from_us(gap.start_us) for gap in gaps],
        "ends": [from_us(gap.end_us) for gap in gaps],
        "details": [Jsonb(gap.detail) for gap in gaps],
    }
    with translated(connection):
        cursor = await connection.execute(_WIDEN, arguments)
        return {int(row[0]) for row in await cursor.fetchall()}


async def close_gaps_async(connection: AsyncConnection, gaps: Sequence[ClosedGap]) -> int:
    """Mark gaps as repaired; returns how many were open until now."""
    if not gaps:
        return 0
    arguments = {
        "ids": [gap.id for gap in gaps],
        "ages_s": [gap.age_s for gap in gaps],
        "proofs": [gap.by for gap in gaps],
    }
    return await _update(connection, _CLOSE, arguments)


async def leave_gaps_async(connection: AsyncConnection, gaps: Sequence[LeftGap]) -> int:
    """Give gaps up, with the reason in their detail; returns how many are still open."""
    if not gaps:
        return 0
    arguments = {
        "ids": [gap.id for gap in gaps],
        "details": [Jsonb(gap.detail) for gap in gaps],
    }
    return await _update(connection, _LEAVE, arguments)


async def close_proven_gaps_async(
    connection: AsyncConnection, ids: Sequence[int], *, others: Sequence[int] = ()
) -> set[int]:
    """Close those whose minutes are all verified rows or outages by now.

    Args:
        others: ids of gaps that are left to others: their minutes, of days perhaps, are not read.

    Returns:
        The ids of all that are not open any more, whoever closed them.
    """
    with translated(connection):
        if ids:
            await connection.execute(CLOSE_PROVEN, {"symbols": None, "ids": list(ids)})
        cursor = await connection.execute(_NOT_OPEN, {"ids": [*ids, *others]})
        return {int(row[0]) for row in await cursor.fetchall()}


async def _update(connection: AsyncConnection, statement: str, arguments: dict[str, Any]) -> int:
    with translated(connection):
        return (await connection.execute(statement, arguments)).rowcount
