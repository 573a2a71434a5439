"""Quality runs: their scope and result, and where the next one starts."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from include.store.candles.merging import Connection
from include.store.ledgers.files import QualityResult, record_quality_results
from include.store.postgres.pools import translated

_RECORD = """
INSERT INTO ops.quality_runs (
    run_id, run_at, scope, advances, from_time, to_time, success, symbols, candles, trades, took_ms
) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
ON CONFLICT (run_id) DO UPDATE SET
    run_at = excluded.run_at,
    scope = excluded.scope,
    advances = excluded.advances,
    from_time = excluded.from_time,
    to_time = excluded.to_time,
    success = excluded.success,
    symbols = excluded.symbols,
    candles = excluded.candles,
    trades = excluded.trades,
    took_ms = excluded.took_ms
"""


@dataclass(frozen=True, slots=True)
class QualityRun:
    """One run, a row of ``ops.quality_runs``.

    Attributes:
        scope: ``changed``, ``all`` or ``window``.
        from_time: start of a window; for changes the end of the previous run; None: everything.
        success: whether every rule of severity error passed.
        candles, trades: rows checked; ``symbols`` are those of the candles.
        snapshot: position in the change log; None if the next run of scope ``changed`` does not
            continue from here.
    """

    run_id: str
    run_at: datetime
    scope: str
    from_time: datetime | None
    to_time: datetime
    success: bool
    symbols: int
    candles: int
    trades: int
    took_ms: int
    snapshot: str | None


def record_quality_run(
    connection: Connection, run: QualityRun, results: Iterable[QualityResult]
) -> None:
    """Record a run with its results and advance the cursor, in one transaction; repeating replaces
    it."""
    row = (
        run.run_id, run.run_at, run.scope, run.snapshot is not None, run.from_time, run.to_time,
        run.success, run.symbols, run.candles, run.trades, run.took_ms,
    )  # fmt: skip
    with translated(connection), connection.transaction():
        connection.execute(_RECORD, row)
        record_quality_results(connection, run.run_id, run.run_at, results)
        if run.snapshot is not None:
            connection.execute(
                "SELECT ops.advance_quality_cursor(%s::pg_snapshot)", (run.snapshot,)
            )
