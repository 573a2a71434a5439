"""Gaps: missed minutes with the cause, and the time and proof of their repair."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from psycopg.types.json import Jsonb

from include.domain.timeframes import MINUTE_US, from_us, to_us
from include.errors import PermanentError
from include.store.candles.merging import Connection
from include.store.postgres.pools import translated

CLAIM_TIMEOUT_S = 900.0
"""Age after which a claim is void: its worker has died."""

CANDLES = "candles_1m"

_COLUMNS = "id, symbol, from_time, to_time, cause, opened_at, attempts, detail"

_OPEN = """
INSERT INTO ops.gaps AS g (symbol, dataset, from_time, to_time, cause, detail)
VALUES (%s, %s, %s, %s, %s, %s)
ON CONFLICT (symbol, dataset, from_time, to_time) WHERE repaired_at IS NULL
DO UPDATE SET detail = g.detail || excluded.detail
RETURNING id
"""

_COUNT = """
UPDATE ops.gaps AS g
SET detail = g.detail || jsonb_build_object('rows', known.rows)
FROM (
    SELECT sum(one.value::bigint)
    FROM ops.gaps, jsonb_each_text(detail) AS one
    WHERE id = %(id)s AND one.key LIKE '%%/%%'
) AS known (rows)
WHERE g.id = %(id)s AND known.rows IS NOT NULL
"""

_CLAIM = f"""
UPDATE ops.gaps AS g
SET claimed_at = clock_timestamp(), claimed_by = %(worker)s, attempts = g.attempts + 1
WHERE g.id IN (
    SELECT c.id FROM ops.gaps AS c
    WHERE
        c.repaired_at IS NULL
        AND c.dataset = 'candles_1m'
        AND c.opened_at <= clock_timestamp() - %(older_than_s)s * interval '1 second'
        AND (%(symbols)s::text[] IS NULL OR c.symbol = ANY(%(symbols)s))
        AND (
            c.claimed_at IS NULL
            OR c.claimed_by = %(worker)s
            OR c.claimed_at <= clock_timestamp() - %(claim_timeout_s)s * interval '1 second'
        )
    ORDER BY c.attempts, c.opened_at, c.id
    LIMIT %(limit)s
    FOR UPDATE SKIP LOCKED
)
RETURNING {_COLUMNS}
"""  # noqa: S608 - a constant list of columns

_CLOSE = """
UPDATE ops.gaps
SET
    repaired_at = clock_timestamp(),
    repaired_by = %s,
    claimed_at = NULL,
    claimed_by = NULL,
    detail = detail || %s
WHERE id = %s AND repaired_at IS NULL
"""

# Skip gaps that another worker is closing or claiming now.
CLOSE_PROVEN = """
UPDATE ops.gaps
SET repaired_at = clock_timestamp(), repaired_by = 'rows', claimed_at = NULL, claimed_by = NULL
WHERE id IN (
    SELECT g.id FROM ops.gaps AS g
    WHERE
        g.repaired_at IS NULL
        AND g.dataset = 'candles_1m'
        AND (%(symbols)s::text[] IS NULL OR g.symbol = ANY(%(symbols)s))
        AND (%(ids)s::bigint[] IS NULL OR g.id = ANY(%(ids)s))
        AND tstzmultirange(tstzrange(g.from_time, g.to_time)) <@ (
            coalesce((
                SELECT range_agg(tstzrange(c.open_time, c.open_time + interval '1 minute'))
                FROM market.candles_1m AS c
                WHERE
                    c.symbol = g.symbol
                    AND c.open_time >= g.from_time AND c.open_time < g.to_time
                    AND c.status = 'verified'
            ), '{}')
            + coalesce((
                SELECT range_agg(o.minutes) FROM ops.outages AS o
                WHERE
                    o.market = market.market_of(g.symbol)
                    AND (o.symbol IS NULL OR o.symbol = g.symbol)
            ), '{}')
        )
    FOR UPDATE SKIP LOCKED
)
RETURNING id
"""

_UNKNOWN = """
SELECT symbol, coalesce(min(time) FILTER (WHERE is_missed), max(time))
FROM (
    SELECT
        symbol,
        CASE WHEN repaired_at IS NULL THEN from_time ELSE to_time END,
        repaired_at IS NULL
    FROM ops.gaps
    WHERE dataset = 'candles_1m' AND symbol = ANY(%(symbols)s) AND to_time > %(since)s

    UNION ALL

    SELECT symbol, upper(minutes), false
    FROM ops.outages
    WHERE symbol = ANY(%(symbols)s) AND upper(minutes) > %(since)s
) AS entries (symbol, time, is_missed)
GROUP BY symbol
"""

_RELEASE = """
UPDATE ops.gaps SET claimed_at = NULL, claimed_by = NULL, detail = detail || %s
WHERE id = %s AND repaired_at IS NULL
"""


@dataclass(frozen=True, slots=True)
class Gap:
    """Missed minutes of a symbol in [``start_us``, ``end_us``), not repaired yet.

    Attributes:
        attempts: number of claims.
    """

    id: int
    symbol: str
    start_us: int
    end_us: int
    cause: str
    opened_at_us: int
    attempts: int
    detail: Mapping[str, Any]


def open_gap(
    connection: Connection,
    *,
    symbol: str,
    start_us: int,
    end_us: int,
    cause: str,
    detail: Mapping[str, object] | None = None,
    dataset: str = CANDLES,
) -> int:
    """Record missed minutes; an open gap with the same range is reused.

    Args:
        dataset: the table of schema ``market`` that lacks rows. Gaps of raw capture are only a
            record; ``claim_gaps`` ignores them.

    Returns:
        Its id.

    Raises:
        PermanentError: the bounds are not full minutes, or the start is not before the end.
    """
    if start_us % MINUTE_US or end_us % MINUTE_US or start_us >= end_us:
        raise PermanentError(
            f"[{start_us}, {end_us}) is no gap: both bounds are open times (µs), start first"
        )
    minutes = (from_us(start_us), from_us(end_us))
    row = (symbol, dataset, *minutes, cause, Jsonb(dict(detail or {})))
    with translated(connection):
        found = connection.execute(_OPEN, row).fetchone()
    if found is None:
        raise PermanentError("ops.gaps returned no id")
    return int(found[0])


def count_gap_rows(connection: Connection, gap_id: int) -> None:
    """Set ``rows`` in a gap's detail to the sum of the known counts of its ranges."""
    with translated(connection):
        connection.execute(_COUNT, {"id": gap_id})


def claim_gaps(
    connection: Connection,
    *,
    worker: str,
    older_than_s: float = 0.0,
    claim_timeout_s: float = CLAIM_TIMEOUT_S,
    limit: int = 100,
    symbols: Sequence[str] | None = None,
) -> list[Gap]:
    """Claim open gaps of candles for repair; no two workers get the same one.

    Gaps with the fewest attempts come first, then the oldest, so that unrepairable gaps do not
    block others.

    Args:
        worker: name for the ledger; the worker's own claims are returned again.
        older_than_s: the streamer repairs younger gaps.
        claim_timeout_s: claims older than this are void.
        limit: maximum gaps.
        symbols: only gaps of these.
    """
    arguments = {
        "symbols": None if symbols is None else list(symbols),
        "worker": worker,
        "older_than_s": older_than_s,
        "claim_timeout_s": claim_timeout_s,
        "limit": limit,
    }
    with translated(connection):
        rows = connection.execute(_CLAIM, arguments).fetchall()
    return sorted(map(_gap, rows), key=lambda gap: (gap.opened_at_us, gap.id))


def close_gap(
    connection: Connection,
    gap_id: int,
    *,
    by: str = "rest",
    detail: Mapping[str, object] | None = None,
) -> bool:
    """Mark a gap as repaired; False if it already was or does not exist.

    Args:
        by: the source that proved its minutes.
    """
    with translated(connection):
        closed = connection.execute(_CLOSE, (by, Jsonb(dict(detail or {})), gap_id))
        return closed.rowcount == 1


def close_proven_gaps(connection: Connection, *, symbols: Sequence[str] | None = None) -> int:
    """Close open gaps of candles whose minutes all have verified rows or outages.

    Such gaps stay open if their writer was killed before closing them, or did not know of them (a
    backfill).

    Args:
        symbols: only gaps of these.

    Returns:
        The number closed.
    """
    arguments = {"symbols": None if symbols is None else list(symbols), "ids": None}
    with translated(connection):
        return connection.execute(CLOSE_PROVEN, arguments).rowcount


def unknown_since(connection: Connection, symbols: Sequence[str], since_us: int) -> dict[str, int]:
    """Return the first unknown minute (µs) of symbols without a row.

    Only the ledgers show that these symbols were streamed. The first unknown minute is the start of
    an open gap, otherwise the end of a gap repaired without a row or of an outage. Symbols without
    an entry are absent.

    Args:
        since_us: entries that ended before are ignored.
    """
    arguments = {"symbols": list(symbols), "since": from_us(since_us)}
    with translated(connection):
        rows = connection.execute(_UNKNOWN, arguments).fetchall()
    return {symbol: to_us(time) for symbol, time in rows}


def release_gap(
    connection: Connection, gap_id: int, *, detail: Mapping[str, object] | None = None
) -> bool:
    """Release a claimed gap with the error; False if it is not open."""
    with translated(connection):
        return connection.execute(_RELEASE, (Jsonb(dict(detail or {})), gap_id)).rowcount == 1


def _gap(row: tuple[Any, ...]) -> Gap:
    gap_id, symbol, start, end, cause, opened, attempts, detail = row
    return Gap(gap_id, symbol, to_us(start), to_us(end), cause, to_us(opened), attempts, detail)
