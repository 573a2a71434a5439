"""Write rows of trade files to ``market.agg_trades`` and ``market.trades``, each exactly once.

Like ``captured`` for streamed rows: straight into the table if none of the rows exist yet, through
a temporary table otherwise.
"""

from __future__ import annotations

import polars as pl
from psycopg import errors, sql

from include.domain.columns.candles import TIME
from include.store.candles.merging import Connection, write_csv
from include.store.postgres.pools import translated
from include.store.trades.captured import AGG_TRADES, TRADES, RawTable

RAW_OF_KIND = {"agg_trades": AGG_TRADES, "trades": TRADES}

_ENSURE = "SELECT ops.ensure_partition(%s::regclass, %s::timestamptz)"


def write_raw_frame(
    connection: Connection, table: RawTable, rows: pl.DataFrame, *, symbol: str
) -> int:
    """Write rows of one symbol, all or none; return how many were new.

    Args:
        rows: as ``TradeBlock.rows``: ``id``, ``trade_time`` (µs) and the table's other columns,
            numbers as text; without ``trade_type``, which files do not have.

    Raises:
        TransientError: the database is away, or another writer conflicted.
        PermanentError: a row is refused.
    """
    if rows.is_empty():
        return 0
    frame = _as_table(rows, table, symbol)
    with translated(connection):
        for day in frame["day"].unique().sort():
            connection.execute(_ENSURE, (f"market.{table.name}", f"{day} 00:00Z"))
        try:
            with connection.transaction():
                _copy(connection, table.path, table, frame)
        except errors.UniqueViolation:
            return _write_new(connection, table, frame)
    return frame.height


def _as_table(rows: pl.DataFrame, table: RawTable, symbol: str) -> pl.DataFrame:
    """Return the rows with the table's columns in its order."""
    moments = rows.with_columns(pl.col("trade_time").cast(TIME))
    return (
        moments.rename({"id": table.id_column})
        .with_columns(
            symbol=pl.lit(symbol),
            day=pl.col("trade_time").dt.date(),
            trade_type=pl.lit(None, pl.String),
        )
        .select(table.columns)
    )


def _write_new(connection: Connection, table: RawTable, frame: pl.DataFrame) -> int:
    """Insert rows that do not exist yet, by a temporary table."""
    name = f"filed_{table.name}"
    columns = _names(table)
    with connection.transaction(), connection.cursor() as cursor:
        cursor.execute(
            sql.SQL("CREATE TEMPORARY TABLE {} (LIKE {}) ON COMMIT DROP").format(
                sql.Identifier(name), table.path
            )
        )
        _copy(connection, sql.Identifier("pg_temp", name), table, frame)
        # In key order, so that two writers cannot deadlock.
        cursor.execute(
            sql.SQL(
                "INSERT INTO {table} ({columns}) SELECT {columns} FROM {staged} "
                'ORDER BY symbol COLLATE "C", day, {id} ON CONFLICT DO NOTHING'
            ).format(
                table=table.path,
                columns=columns,
                staged=sql.Identifier("pg_temp", name),
                id=sql.Identifier(table.id_column),
            )
        )
        return cursor.rowcount


def _copy(
    connection: Connection, target: sql.Identifier, table: RawTable, frame: pl.DataFrame
) -> None:
    statement = sql.SQL("COPY {} ({}) FROM STDIN (FORMAT csv, ENCODING 'UTF8')").format(
        target, _names(table)
    )
    with connection.cursor() as cursor, cursor.copy(statement) as copy:
        write_csv(frame, copy)


def _names(table: RawTable) -> sql.Composed:
    return sql.SQL(", ").join(map(sql.Identifier, table.columns))
