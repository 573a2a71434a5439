"""Write rows of derivative series by one SQL function, which merges them with the stored rows.

All sources use it, so that the stored row is the most authoritative one, whatever the order of
writes. ``ops.merge_series`` defines the rule.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import psycopg
import structlog
from psycopg import errors, sql
from psycopg.pq import TransactionStatus

from include.backoff import Backoff, retried
from include.domain.series.kinds import TABLES, Series
from include.store.candles.merging import Connection, MergeCounts
from include.store.postgres.pools import translated

log = structlog.get_logger(__name__)

SeriesRow = Sequence[Any]
"""Values in the order of ``SeriesTable.columns``; numbers as text or Decimal, times with a zone."""

ATTEMPTS = 6
BACKOFF = Backoff(first_s=0.05, max_s=2.0)
CHUNK_ROWS = 100_000

_RETRIED = (errors.SerializationFailure, errors.DeadlockDetected, errors.LockNotAvailable)

_CREATE = sql.SQL(
    "CREATE TEMPORARY TABLE IF NOT EXISTS {} (LIKE {} INCLUDING DEFAULTS) ON COMMIT DELETE ROWS"
)


def merge_series(
    connection: Connection,
    series: Series,
    rows: Iterable[SeriesRow],
    *,
    record: Callable[[], None] | None = None,
) -> MergeCounts:
    """Merge rows into the table of a series, all or none.

    Retries after a deadlock or serialization failure, unless the connection is in a transaction of
    the caller.

    Args:
        record: writes ledgers over the same connection, in the transaction of the merge and after
            it; called again if the merge is repeated.

    Raises:
        TransientError: the database is away, or conflicts occurred in all attempts.
        PermanentError: a row breaks a rule of the table; the message shows it.
    """
    table, given = TABLES[series], list(rows)
    candidates = sql.Identifier("pg_temp", f"candidates_{series}")
    copied = sql.SQL("COPY {} ({}) FROM STDIN").format(
        candidates, sql.SQL(", ").join(map(sql.Identifier, table.columns))
    )
    is_alone = connection.info.transaction_status == TransactionStatus.IDLE

    def once() -> MergeCounts:
        with connection.transaction(), connection.cursor() as cursor:
            cursor.execute(
                _CREATE.format(
                    sql.Identifier(f"candidates_{series}"), sql.Identifier("market", table.table)
                )
            )
            counts = MergeCounts()
            for first in range(0, len(given), CHUNK_ROWS):
                cursor.execute(sql.SQL("TRUNCATE {}").format(candidates))
                with cursor.copy(copied) as copy:
                    for row in given[first : first + CHUNK_ROWS]:
                        copy.write_row(row)
                counts += _merge(cursor, series)
            if record is not None:
                record()
            return counts

    with translated(connection):
        return retried(
            once,
            backoff=BACKOFF,
            attempts=ATTEMPTS if is_alone else 1,
            retry_on=_RETRIED,
            on_retry=partial(log.info, "series_merge_retried"),
        )


def _merge(cursor: psycopg.Cursor[Any], series: Series) -> MergeCounts:
    row = cursor.execute("SELECT * FROM ops.merge_series(%s)", (series.value,)).fetchone()
    return MergeCounts(*(row or ()))
