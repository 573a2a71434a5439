"""Files of the archive: one Parquet file per table and day, exact and sorted by the key.

Values leave PostgreSQL as CSV in a canonical format, whose SHA-256 is computed on the way. Rows
read back from a file are converted to the same format. Equal hashes mean that every value of every
row is equal, in the same order. Rows are processed in blocks, so that memory does not grow with the
day.

Prices and quantities are DECIMAL(38, 8): eight decimals are the exchange's finest unit, and a
product of two such columns still fits into DuckDB's and polars' 38 digits. A value with more
decimals is refused, never rounded.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any

import polars as pl
from polars.io.plugins import register_io_source
from psycopg import sql

from include.errors import PermanentError, RejectedInputError
from include.store.candles.merging import Connection
from include.store.postgres.pools import translated
from include.store.trades.captured import RawTable
from include.store.trades.depth_lines import LEVEL_COLUMNS

DECIMALS = 8
"""Decimal places of the exchange's prices and quantities, spot and USD-M."""
EXACT = pl.Decimal(38, DECIMALS)
EXACT_LIST = pl.List(EXACT)
MOMENT = pl.Datetime("us", "UTC")

BLOCK_BYTES = 8 * 1_048_576
"""Size of a CSV block; about 100,000 rows, which take 20 MB in polars."""
TEXTS = frozenset(
    {"symbol", "trade_type", "side", "order_type", "time_in_force", "order_status", "source"}
)
_READ_AS: dict[Any, Any] = {MOMENT: pl.Int64(), EXACT_LIST: pl.String()}
"""Types of CSV columns that are converted after reading."""
ADDED_LATER = frozenset({"trade_type"})
"""Columns that files of older versions lack; their rows have NULL."""
ROW_GROUP_ROWS = 122_880
"""DuckDB's default, the unit of its parallelism. Statistics of symbol let readers skip row groups.
Rows of depth are larger, and their groups have fewer.
"""


@dataclass(frozen=True, slots=True)
class Content:
    """Content of a file or of a table's day.

    Attributes:
        rows: number of rows.
        sha256: of all values in the order of the key, in canonical format.
    """

    rows: int
    sha256: str


@cache
def schema_of(table: RawTable) -> dict[str, pl.DataType]:
    """Return the columns of a file: the table's without the day, which is in the path."""
    return {name: _type_of(name) for name in table.columns if name != "day"}


def write_day(connection: Connection, table: RawTable, day: str, path: Path) -> Content:
    """Write the rows of a UTC day, as the connection's snapshot has them, to a new file.

    Returns:
        What was written: the file has to be read back to know that it is there.

    Raises:
        TransientError: the database is away.
        PermanentError: a value has more decimals or digits than the file can hold exactly.
        OSError: the disk is full, or the folder cannot be written.
    """
    digest, rows = hashlib.sha256(), 0

    def frames(*_pushed_down: object) -> Iterator[pl.DataFrame]:
        nonlocal rows
        # An open COPY blocks the connection.
        with closing(_blocks(connection, table, day)) as blocks:
            for block in blocks:
                digest.update(block)
                frame = _parse(table, block)
                rows += frame.height
                yield frame

    try:
        with translated(connection), connection.transaction():
            register_io_source(frames, schema=schema_of(table)).sink_parquet(
                path, compression="zstd", row_group_size=_group_rows(table), sync_on_close="all"
            )
    except (pl.exceptions.ComputeError, pl.exceptions.InvalidOperationError) as error:
        raise PermanentError(_inexact(connection, table, day) or str(error)) from error
    return Content(rows, digest.hexdigest())


def read_day(table: RawTable, path: Path) -> Iterator[pl.DataFrame]:
    """Yield the rows of a file, in blocks.

    Raises:
        RejectedInputError: it is missing, or no file of this table.
    """
    try:
        found = dict(pl.read_parquet_schema(path))
        if found not in (schema_of(table), _older_schema_of(table)):
            raise RejectedInputError(f"{path} has other columns than an archive of {table.name}")
        yield from pl.scan_parquet(path, hive_partitioning=False).collect_batches(
            chunk_size=_group_rows(table), maintain_order=True
        )
    except FileNotFoundError as error:
        raise RejectedInputError(f"{path} is missing; put the archived file back there") from error
    except pl.exceptions.ComputeError as error:
        text = str(error).splitlines()[0]
        raise RejectedInputError(f"{path} cannot be read as Parquet: {text}") from error


def content_of(table: RawTable, path: Path) -> Content:
    """Read a whole file; return its number of rows and hash. Errors as ``read_day``."""
    digest, rows = hashlib.sha256(), 0
    for frame in read_day(table, path):
        rows += frame.height
        moments = pl.col(MOMENT).cast(pl.Int64)
        rows_text = _with_text_arrays(frame).with_columns(moments)
        digest.update(rows_text.write_csv(include_header=False).encode())
    return Content(rows, digest.hexdigest())


def copy_lines(table: RawTable, frame: pl.DataFrame) -> str:
    """Format the rows of a file as CSV for COPY, in the order of the table's columns."""
    schema = schema_of(table)
    added = (pl.lit(None, of).alias(name) for name, of in schema.items() if name not in frame)
    rows = _with_text_arrays(frame).with_columns(added).select(list(schema))
    return rows.write_csv(include_header=False, datetime_format="%Y-%m-%d %H:%M:%S%.6f+00")


def sync_folder(folder: Path) -> None:
    """Sync a folder, so that renames in it survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


# --- inside


def _group_rows(table: RawTable) -> int:
    return ROW_GROUP_ROWS // table.relative_size


def _with_text_arrays(frame: pl.DataFrame) -> pl.DataFrame:
    """Convert lists of amounts to arrays as PostgreSQL writes them."""
    texts = (
        pl.concat_str(
            pl.lit("{"),
            pl.col(name).list.eval(pl.element().cast(pl.String())).list.join(","),
            pl.lit("}"),
        ).alias(name)
        for name, of in frame.schema.items()
        if of == EXACT_LIST
    )
    return frame.with_columns(texts)


def _older_schema_of(table: RawTable) -> dict[str, pl.DataType]:
    """Return the columns of files that were written before some were added."""
    return {name: of for name, of in schema_of(table).items() if name not in ADDED_LATER}


def _type_of(column: str) -> Any:
    if column in TEXTS:
        return pl.String()
    if column in LEVEL_COLUMNS:
        return EXACT_LIST
    if column.startswith("is_"):
        return pl.Boolean()
    if column.endswith(("_time", "_at")):
        return MOMENT
    return pl.Int64() if column.endswith("_id") else EXACT


def _parse(table: RawTable, block: bytes) -> pl.DataFrame:
    schema = schema_of(table)
    read_types = {name: _READ_AS.get(of, of) for name, of in schema.items()}
    moments = [pl.col(name).cast(MOMENT) for name, of in schema.items() if of == MOMENT]
    lists = [
        pl.col(name)
        .str.strip_chars("{}")
        .str.split(",")
        .list.eval(pl.element().filter(pl.element() != "").cast(EXACT))
        for name, of in schema.items()
        if of == EXACT_LIST
    ]
    return pl.read_csv(BytesIO(block), has_header=False, schema=read_types).with_columns(
        moments + lists
    )


def _blocks(connection: Connection, table: RawTable, day: str) -> Generator[bytes, None, None]:
    """Yield a day in canonical format: symbols in byte order, ids ascending, whole lines."""
    waiting: list[bytes] = []
    size = 0
    query = sql.SQL(
        "COPY (SELECT {columns} FROM {table} WHERE day = {day} "
        "ORDER BY symbol COLLATE \"C\", {id}) TO STDOUT (FORMAT csv, ENCODING 'UTF8')"
    ).format(
        columns=sql.SQL(", ").join(_canonical(table, name) for name in schema_of(table)),
        table=table.path,
        day=sql.Literal(day),
        id=sql.Identifier(table.id_column),
    )
    with translated(connection), connection.cursor() as cursor, cursor.copy(query) as copy:
        for line in copy:
            waiting.append(bytes(line))
            size += len(line)
            if size >= BLOCK_BYTES:
                yield b"".join(waiting)
                waiting, size = [], 0
        if waiting:
            yield b"".join(waiting)


def _canonical(table: RawTable, column: str) -> sql.Composed:
    """Convert a column to the canonical format; values that would be rounded become NaN, which the
    file rejects."""
    of = schema_of(table)[column]
    text = "{c}"
    if of == EXACT:
        text = "CASE WHEN {c} <> round({c}, {n}) THEN 'NaN' ELSE round({c}, {n}) END"
    elif of == EXACT_LIST:
        text = "CASE WHEN {c} <> {c}::numeric(38, {n})[] THEN '{{NaN}}' "
        text += "ELSE {c}::numeric(38, {n})[]::text END"
    elif of == MOMENT:
        text = "(extract(epoch FROM {c}) * 1000000)::bigint"
    elif of == pl.Boolean:
        text = "{c}::text"
    return sql.SQL(text).format(c=sql.Identifier(column), n=sql.Literal(DECIMALS))


def _inexact(connection: Connection, table: RawTable, day: str) -> str | None:
    """Describe a row with a value that does not fit."""
    amounts = [name for name, of in schema_of(table).items() if of == EXACT]
    if not amounts or LEVEL_COLUMNS[0] in table.columns:
        return None  # the writers of depth refuse such numbers
    too_fine = sql.SQL(" OR ").join(
        sql.SQL("{c} <> round({c}, {n}) OR abs({c}) >= 1e30").format(
            c=sql.Identifier(name), n=sql.Literal(DECIMALS)
        )
        for name in amounts
    )
    query = sql.SQL("SELECT symbol, {id}, {amounts} FROM {t} WHERE day = %s AND ({w}) LIMIT 1")
    with translated(connection):
        row = connection.execute(
            query.format(
                id=sql.Identifier(table.id_column),
                amounts=sql.SQL(", ").join(map(sql.Identifier, amounts)),
                t=table.path,
                w=too_fine,
            ),
            (day,),
        ).fetchone()
    if row is None:
        return None
    shown = ", ".join(f"{name}={value:f}" for name, value in zip(amounts, row[2:], strict=True))
    return (
        f"market.{table.name} of {day}: {row[0]} {row[1]} has {shown}; the archive holds "
        f"{DECIMALS} decimals and 30 digits before them, so this day stays in the table"
    )
