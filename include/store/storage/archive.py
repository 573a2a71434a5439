"""The ledger of archived days, and restoring the rows of a file to their table."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, datetime

import polars as pl
from psycopg import sql

from include.errors import TransientError
from include.store.candles.merging import Connection
from include.store.postgres.pools import translated
from include.store.storage.parquet import copy_lines, schema_of
from include.store.storage.partitions import Fingerprint
from include.store.trades.captured import RAW_TABLES, RawTable

_COLUMNS = (
    "dataset, day, path, rows, bytes, fingerprint, content_sha256, archived_at, dropped_at, "
    "kept_until"
)

_LOCK = "hashtextextended('candelabra archive', 0)"


@dataclass(frozen=True, slots=True)
class ArchivedDay:
    """A row of ``ops.archived_partitions``.

    Attributes:
        path: of the file, relative to the archive folder.
        bytes: size of the file.
        dropped_at: None while the partition contains every row of the file.
        kept_until: a restored day is not dropped again before this time.
    """

    table: RawTable
    day: date
    path: str
    rows: int
    bytes: int
    fingerprint: Fingerprint
    sha256: str
    archived_at: datetime
    dropped_at: datetime | None
    kept_until: datetime | None


@dataclass(frozen=True, slots=True)
class RestoredRows:
    """Result of restoring a file.

    Attributes:
        rows: of the file.
        inserted: rows that the table lacked.
        replaced: rows that the table had with other values; the archived values win, being older.
    """

    rows: int
    inserted: int
    replaced: int


@contextmanager
def only_one(connection: Connection) -> Iterator[None]:
    """Keep any other work on the archive away, in all processes.

    Raises:
        TransientError: another is at it.
    """
    with translated(connection):
        row = connection.execute(f"SELECT pg_try_advisory_lock({_LOCK})").fetchone()
    if row != (True,):
        raise TransientError("another process works on the archive; try again when it has ended")
    try:
        yield
    finally:
        if not connection.closed:
            with translated(connection):
                connection.execute(f"SELECT pg_advisory_unlock({_LOCK})")


@contextmanager
def snapshot(connection: Connection) -> Iterator[None]:
    """Read everything in the block from one snapshot."""
    with translated(connection), connection.transaction():
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        yield


def read_archived(
    connection: Connection,
    *,
    dataset: str | None = None,
    first: date | None = None,
    last: date | None = None,
) -> list[ArchivedDay]:
    """Return archived days, oldest first; by default of all datasets and days."""
    query = sql.SQL(
        "SELECT {} FROM ops.archived_partitions WHERE dataset = coalesce(%s::text, dataset) "
        "AND day BETWEEN coalesce(%s::date, '-infinity') AND coalesce(%s::date, 'infinity') "
        "ORDER BY day, dataset"
    ).format(sql.SQL(_COLUMNS))
    with translated(connection):
        rows = connection.execute(query, (dataset, first, last)).fetchall()
    return [
        ArchivedDay(
            RAW_TABLES[name], day, path, count, size, Fingerprint(count, int(value)), *others
        )
        for name, day, path, count, size, value, *others in rows
    ]


def record_archived(
    connection: Connection,
    table: RawTable,
    day: date,
    *,
    path: str,
    file_bytes: int,
    fingerprint: Fingerprint,
    sha256: str,
    is_dropped: bool = False,
) -> None:
    """Record a file that was verified; unless ``is_dropped``, the partition has all its rows."""
    with translated(connection):
        connection.execute(
            "INSERT INTO ops.archived_partitions AS a "
            "(dataset, day, path, rows, bytes, fingerprint, content_sha256, dropped_at) "
            "VALUES (%s, %s, %s, %s, %s, %s, %s, CASE WHEN %s THEN now() END) "
            "ON CONFLICT (dataset, day) DO UPDATE SET path = excluded.path, "
            "rows = excluded.rows, bytes = excluded.bytes, fingerprint = excluded.fingerprint, "
            "content_sha256 = excluded.content_sha256, "
            "archived_at = clock_timestamp(), dropped_at = excluded.dropped_at",
            (
                *(table.name, day, path, fingerprint.rows, file_bytes, fingerprint.value),
                *(sha256, is_dropped),
            ),
        )


def keep_until(connection: Connection, archived: ArchivedDay, moment: datetime | None) -> None:
    """Set the time before which a day is not dropped again."""
    with translated(connection):
        connection.execute(
            "UPDATE ops.archived_partitions SET kept_until = %s WHERE dataset = %s AND day = %s",
            (moment, archived.table.name, archived.day),
        )


def restore_rows(
    connection: Connection, archived: ArchivedDay, frames: Iterable[pl.DataFrame]
) -> RestoredRows:
    """Restore the rows of a file, all or none; then the partition contains all of them.

    Args:
        frames: the file, from ``parquet.read_day``.

    Raises:
        TransientError: the database is away.
        RejectedInputError: the file is damaged; nothing has changed.
    """
    rows = inserted = replaced = 0
    create, copy_in, delete, insert = _statements(archived.table)
    day = (archived.day,)
    with translated(connection), connection.transaction(), connection.cursor() as cursor:
        cursor.execute(
            "SELECT ops.ensure_partition(%s::regclass, %s::date::timestamp AT TIME ZONE 'UTC')",
            (f"market.{archived.table.name}", *day),
        )
        cursor.execute(create)
        for frame in frames:
            with cursor.copy(copy_in) as copy:
                copy.write(copy_lines(archived.table, frame))
            rows += frame.height
            cursor.execute(delete, day)
            replaced += cursor.rowcount
            cursor.execute(insert, day)
            inserted += cursor.rowcount
            cursor.execute("TRUNCATE pg_temp.restored")
        cursor.execute(
            "UPDATE ops.archived_partitions SET dropped_at = NULL WHERE dataset = %s AND day = %s",
            (archived.table.name, *day),
        )
        cursor.execute("DROP TABLE pg_temp.restored")
    return RestoredRows(rows, inserted - replaced, replaced)


# --- inside


def _statements(
    table: RawTable,
) -> tuple[sql.Composed, sql.Composed, sql.Composed, sql.Composed]:
    """Fill a temporary table, delete rows that differ from it, insert missing ones."""
    names = list(schema_of(table))
    columns = sql.SQL(", ").join(map(sql.Identifier, names))
    of_table, of_file = (
        sql.SQL(", ").join(sql.Identifier(alias, name) for name in names) for alias in "tr"
    )
    parts = {"table": table.path, "columns": columns, "id": sql.Identifier(table.id_column)}
    create = sql.SQL(
        "CREATE TEMPORARY TABLE restored AS SELECT {columns} FROM {table} WITH NO DATA"
    ).format(**parts)
    copy_in = sql.SQL(
        "COPY pg_temp.restored ({columns}) FROM STDIN (FORMAT csv, ENCODING 'UTF8')"
    ).format(**parts)
    delete = sql.SQL(
        "DELETE FROM {table} AS t USING pg_temp.restored AS r "
        "WHERE t.day = %s AND t.symbol = r.symbol AND t.{id} = r.{id} "
        "AND ({of_table}) IS DISTINCT FROM ({of_file})"
    ).format(**parts, of_table=of_table, of_file=of_file)
    insert = sql.SQL(
        "INSERT INTO {table} (day, {columns}) SELECT %s, {columns} FROM pg_temp.restored "
        'ORDER BY symbol COLLATE "C", {id} ON CONFLICT DO NOTHING'
    ).format(**parts)
    return create, copy_in, delete, insert
