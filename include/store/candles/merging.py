"""Write candles by one SQL function, which merges them with the stored rows.

The streamer passes a few candles as arrays (``store_async``); jobs copy many to a temporary table
first (``merge_candidates``, ``merge_frame``). All writers use this module, so that the stored row
is the most authoritative candidate, whatever the order of writes; include/domain/merge.py defines
the rule.
"""

from __future__ import annotations

import asyncio
import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import polars as pl
import psycopg
import structlog
from psycopg import errors
from psycopg.pq import TransactionStatus

from include.backoff import Backoff, retried, retried_async
from include.domain.candles import VALUE_NAMES, CandleCandidate
from include.errors import PermanentError
from include.store.postgres.arrays import array_of, array_of_names, joined, moment_text
from include.store.postgres.pools import translated

log = structlog.get_logger(__name__)

Connection = psycopg.Connection[Any]
AsyncConnection = psycopg.AsyncConnection[Any]

CANDIDATE_COLUMNS = (
    "symbol",
    "open_time",
    *VALUE_NAMES,
    "first_trade_id",
    "last_trade_id",
    "status",
    "source",
    "source_rank",
    "evidence_at",
)
"""Columns of a candidate frame and of ``ops.candle_candidates``."""

DECIMAL_COLUMNS = tuple(name for name in VALUE_NAMES if name != "trade_count")

CHUNK_ROWS = 100_000
"""Rows of one transaction: small enough for sorts in memory and short locks."""

WRITTEN_ROWS = 4_000
"""Rows of a frame passed to the driver together, about a megabyte."""

ROWS_A_TURN = 500
"""Rows prepared before yielding to the event loop, which blocks it for one or two milliseconds."""

ATTEMPTS = 6
BACKOFF = Backoff(first_s=0.05, max_s=2.0)

_CREATE = """
CREATE TEMPORARY TABLE IF NOT EXISTS candidates (LIKE ops.candle_candidates)
ON COMMIT DELETE ROWS
"""
# Inside a caller's transaction, rows of an earlier merge are still in the table.
_CLEAR = "TRUNCATE pg_temp.candidates"
_COLUMNS = ", ".join(CANDIDATE_COLUMNS)
_COPY_ROWS = f"COPY pg_temp.candidates ({_COLUMNS}) FROM STDIN"
_COPY_CSV = f"COPY pg_temp.candidates ({_COLUMNS}) FROM STDIN (FORMAT csv, ENCODING 'UTF8')"
_MERGE = "SELECT * FROM ops.merge_candidates()"
_STORE = """
SELECT * FROM ops.store_candles(
    %s::text[], %s::timestamptz[], %s::numeric[], %s::numeric[], %s::numeric[], %s::numeric[],
    %s::numeric[], %s::numeric[], %s::bigint[], %s::numeric[], %s::numeric[], %s::bigint[],
    %s::bigint[], %s::text[], %s::text[], %s::smallint[], %s::timestamptz[]
)
"""
_MOMENT = "%F %T%.f+00"
"""Format of UTC times for COPY; PostgreSQL parses it faster than the form with a T."""

_RETRIED = (errors.SerializationFailure, errors.DeadlockDetected, errors.LockNotAvailable)


@dataclass(frozen=True, slots=True)
class MergeCounts:
    """Counts of a merge; the four outcomes add up to ``offered``.

    Attributes:
        offered: candidates.
        inserted: new rows.
        changed: rows whose nine values were replaced; their revision rose.
        confirmed: rows with better evidence or ids and the same values.
        unchanged: candidates that added nothing, or lost.
        discrepancies: new rows of ``ops.discrepancies``.
    """

    offered: int = 0
    inserted: int = 0
    changed: int = 0
    confirmed: int = 0
    unchanged: int = 0
    discrepancies: int = 0

    def __add__(self, other: MergeCounts) -> MergeCounts:
        return MergeCounts(
            self.offered + other.offered,
            self.inserted + other.inserted,
            self.changed + other.changed,
            self.confirmed + other.confirmed,
            self.unchanged + other.unchanged,
            self.discrepancies + other.discrepancies,
        )


def merge_candidates(
    connection: Connection,
    candidates: Iterable[CandleCandidate],
    *,
    record: Callable[[], None] | None = None,
) -> MergeCounts:
    """Merge candidates into ``market.candles_1m``, all or none.

    Retries after a deadlock or serialization failure, unless the connection is in a transaction of
    the caller: only the caller can repeat that.

    Args:
        record: as ``merge_frames``.

    Raises:
        TransientError: the database is away, or conflicts occurred in all attempts.
        PermanentError: a row breaks a rule of the table; the message shows it.
    """
    given = list(candidates)

    def write(copy: psycopg.Copy) -> None:
        for row in _rows(given):
            copy.write_row(row)

    return _merge_rows(connection, write, _COPY_ROWS, record)


def merge_frame(
    connection: Connection,
    frame: pl.DataFrame,
    *,
    progress: Callable[[int], None] | None = None,
    chunk_rows: int = CHUNK_ROWS,
) -> MergeCounts:
    """Merge a candidate frame into ``market.candles_1m``, one transaction per chunk.

    After an error, chunks merged before stay; merging the whole frame again is safe.

    Args:
        frame: the columns ``CANDIDATE_COLUMNS``; prices and volumes as text or Decimal.
        progress: called after each chunk with the number of rows done so far.
        chunk_rows: rows of one transaction.

    Raises:
        TransientError: the database is away, or conflicts occurred in all attempts.
        PermanentError: the frame has other columns or floats, or a row breaks a rule.
    """
    _check(frame)
    counts = MergeCounts()
    for chunk in frame.select(CANDIDATE_COLUMNS).iter_slices(chunk_rows):
        counts += _merge_rows(connection, partial(write_csv, chunk), _COPY_CSV)
        if progress is not None:
            progress(counts.offered)
    return counts


def merge_frames(
    connection: Connection,
    frames: Iterable[pl.DataFrame],
    *,
    record: Callable[[], None] | None = None,
) -> MergeCounts:
    """Merge frames of candidates, all or none; PostgreSQL stores one while the next is produced.

    Errors of the frames' generator propagate; then nothing was merged.

    Args:
        record: writes ledgers over the same connection, in the transaction of the merge and after
            it; called again if the merge is repeated.

    Raises:
        as ``merge_frame``.
    """
    coming, made = iter(frames), list[pl.DataFrame]()

    def write(copy: psycopg.Copy) -> None:
        for frame in made:  # rows of an attempt that met a conflict
            write_csv(frame, copy)
        for frame in coming:
            _check(frame)
            made.append(frame.select(CANDIDATE_COLUMNS))
            write_csv(made[-1], copy)

    return _merge_rows(connection, write, _COPY_CSV, record)


def write_csv(frame: pl.DataFrame, copy: psycopg.Copy) -> None:
    """Write rows to ``COPY … (FORMAT csv)`` in parts: PostgreSQL reads one while the next is
    written."""
    for part in frame.iter_slices(WRITTEN_ROWS):
        csv = io.BytesIO()
        part.write_csv(csv, include_header=False, datetime_format=_MOMENT)
        # Not getbuffer(): after an error its buffer ends in a reference cycle, in which Python
        # 3.12.1's garbage collector crashes. getvalue() does not copy either.
        copy.write(csv.getvalue())


async def store_async(
    connection: AsyncConnection, candidates: Sequence[CandleCandidate]
) -> MergeCounts:
    """Merge candidates and remove their minutes from the open candles, in one transaction.

    So no reader sees a minute twice or not at all. It is one statement, because on a busy event
    loop each wait for an answer costs a turn of the loop. Retries and errors as in
    ``merge_candidates``.
    """
    if not candidates:
        return MergeCounts()
    is_alone = connection.info.transaction_status == TransactionStatus.IDLE
    columns = await _columns(candidates)

    async def once() -> MergeCounts:
        async with connection.cursor() as cursor:
            await cursor.execute(_STORE, columns)
            return _counts(await cursor.fetchone())

    with translated(connection):
        return await retried_async(
            once,
            backoff=BACKOFF,
            attempts=ATTEMPTS if is_alone else 1,
            retry_on=_RETRIED,
            on_retry=partial(log.info, "merge_retried"),
        )


async def _columns(candidates: Sequence[CandleCandidate]) -> list[str]:
    """Return arrays of the rows' values, in the order of ``CANDIDATE_COLUMNS``."""
    parts = []
    for first in range(0, len(candidates), ROWS_A_TURN):
        if first:
            await asyncio.sleep(0)
        symbols, *others = zip(*_rows(candidates[first : first + ROWS_A_TURN]), strict=True)
        parts.append([array_of_names(symbols), *map(array_of, others)])
    return [joined(column) for column in zip(*parts, strict=True)]


def _merge_rows(
    connection: Connection,
    write: Callable[[psycopg.Copy], object],
    copy_statement: str,
    record: Callable[[], None] | None = None,
) -> MergeCounts:
    is_alone = connection.info.transaction_status == TransactionStatus.IDLE

    def once() -> MergeCounts:
        with connection.transaction(), connection.cursor() as cursor:
            cursor.execute(_CREATE)
            if not is_alone:
                cursor.execute(_CLEAR)
            with cursor.copy(copy_statement) as copy:
                write(copy)
            counts = _counts(cursor.execute(_MERGE).fetchone())
            if record is not None:
                record()
            return counts

    with translated(connection):
        return retried(
            once,
            backoff=BACKOFF,
            attempts=ATTEMPTS if is_alone else 1,
            retry_on=_RETRIED,
            on_retry=partial(log.info, "merge_retried"),
        )


def _rows(candidates: Iterable[CandleCandidate]) -> Iterator[tuple[Any, ...]]:
    """Yield the rows' values in the order of ``CANDIDATE_COLUMNS``."""
    last: CandleCandidate | None = None
    how_known: tuple[object, ...] = ()
    for candidate in candidates:
        # Most rows share these values with the row before, and they cost as much as the rest.
        if last is None or not (
            candidate.status is last.status
            and candidate.source is last.source
            and candidate.evidence_at_us == last.evidence_at_us
        ):
            at_us = candidate.evidence_at_us
            evidence_at = None if at_us is None else moment_text(at_us)
            how_known = (
                candidate.status.value,
                candidate.source.value,
                candidate.rank,
                evidence_at,
            )
            last = candidate
        candle = candidate.candle
        yield (
            candle.symbol,
            moment_text(candle.open_time_us),
            *candle.values,
            candle.first_trade_id,
            candle.last_trade_id,
            *how_known,
        )


def _counts(row: tuple[Any, ...] | None) -> MergeCounts:
    if row is None:
        raise PermanentError("ops.merge_candidates() returned no counts: run `candelabra migrate`")
    return MergeCounts(*row)


def _check(frame: pl.DataFrame) -> None:
    missing = [name for name in CANDIDATE_COLUMNS if name not in frame.columns]
    if missing:
        raise PermanentError(f"a candidate frame needs the columns {', '.join(missing)} as well")
    for name in DECIMAL_COLUMNS:
        kind = frame.schema[name]
        if not (kind == pl.String or kind.is_decimal()):
            raise PermanentError(
                f"column {name} of a candidate frame is {kind}; prices and volumes are text or "
                "Decimal, since a float would round them"
            )
    for name in ("open_time", "evidence_at"):
        kind = frame.schema[name]
        if not (isinstance(kind, pl.Datetime) and kind.time_zone == "UTC"):
            raise PermanentError(
                f"column {name} of a candidate frame is {kind}; expected UTC times"
            )
