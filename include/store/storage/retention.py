"""Prune ledgers that grow with time; evidence stays.

The builds that read ``ops.candle_changes`` prune it. Discrepancies, outages, gaps, dump files,
rejected rows and coverage stay: they grow with events, not with time.
"""

from __future__ import annotations

from datetime import datetime

from include.store.candles.merging import Connection
from include.store.postgres.pools import translated

_PASSED = "DELETE FROM ops.quality_results WHERE success AND run_at < %s"

# A rule that fails for a day fails in 288 runs: the first and last contain the same information.
_FAILED_BETWEEN = """
DELETE FROM ops.quality_results AS q
USING (
    SELECT
        r.id,
        row_number() OVER (of_a_day ORDER BY r.run_at, r.id) AS from_first,
        row_number() OVER (of_a_day ORDER BY r.run_at DESC, r.id DESC) AS from_last
    FROM ops.quality_results AS r
    WHERE NOT r.success AND r.run_at < %s
    WINDOW of_a_day AS (
        PARTITION BY r.check_name, r.symbol, (r.run_at AT TIME ZONE 'UTC')::date
    )
) AS n
WHERE q.id = n.id AND n.from_first > 1 AND n.from_last > 1
"""

_RUNS = """
DELETE FROM ops.quality_runs AS r
WHERE
    r.run_at < %s
    AND NOT EXISTS (SELECT FROM ops.quality_results AS q WHERE q.run_id = r.run_id)
"""


def prune_quality_results(connection: Connection, *, before: datetime) -> int:
    """Remove old results of passed checks, and all but a day's first and last failed ones.

    Args:
        before: results of earlier runs are old; ideally the start of a UTC day.

    Returns:
        The number removed. Runs without remaining results are removed too.
    """
    with translated(connection), connection.transaction():
        passed = connection.execute(_PASSED, (before,)).rowcount
        removed = passed + connection.execute(_FAILED_BETWEEN, (before,)).rowcount
        connection.execute(_RUNS, (before,))
    return removed
