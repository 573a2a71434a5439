"""Raw capture: ``market.agg_trades``, ``market.trades`` and ``market.book_tickers``.

Rows are kept exactly once by id. In the usual case nothing comes twice, so rows are copied
straight into the table, which is the fastest way there is; only where that meets a row that is
there already (an overlap, a replay, a second streamer) do they go through a temporary table and
``ON CONFLICT DO NOTHING``, in the order of the key.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache
from typing import Any

import psycopg
from psycopg import errors, sql

from include.domain.timeframes import SECOND_US, from_us, to_us
from include.store.merging import AsyncConnection, Connection
from include.store.pools import translated

AggTradeRow = tuple[str, int, Decimal, Decimal, int, int, int, bool]
"""Symbol, id, price, quantity, first and last trade id, trade time (µs), whether the buyer made."""
TradeRow = tuple[str, int, Decimal, Decimal, Decimal | None, int, bool]
"""Symbol, id, price, quantity, quote quantity where told, trade time (µs), as above."""
BookTickerRow = tuple[str, int, Decimal, Decimal, Decimal, Decimal, int | None, int]
"""Symbol, update id, bid and its quantity, ask and its quantity, event time where told, and the
time of receipt (both µs)."""

LINES_A_WRITE = 1_024
"""About 100 kB: joining them holds up an event loop for a tenth of a millisecond."""

MOST_HOLES = 10_000
"""Holes that one look at a table tells; more are found by the next one."""


@lru_cache(maxsize=4_096)
def _second(seconds: int) -> str:
    return f"{from_us(seconds * SECOND_US):%Y-%m-%d %H:%M:%S}"


def _moment(moment_us: int) -> str:
    seconds, micros = divmod(moment_us, SECOND_US)
    return f"{_second(seconds)}.{micros:06d}+00"


def _agg_trade_line(row: AggTradeRow) -> str:
    symbol, number, price, quantity, first, last, time_us, is_maker = row
    at = _moment(time_us)
    maker = "t" if is_maker else "f"
    return f"{symbol}\t{at[:10]}\t{number}\t{price}\t{quantity}\t{first}\t{last}\t{at}\t{maker}\n"


def _trade_line(row: TradeRow) -> str:
    symbol, number, price, quantity, quote, time_us, is_maker = row
    at = _moment(time_us)
    maker = "t" if is_maker else "f"
    told = "\\N" if quote is None else quote
    return f"{symbol}\t{at[:10]}\t{number}\t{price}\t{quantity}\t{told}\t{at}\t{maker}\n"


def _book_ticker_line(row: BookTickerRow) -> str:
    symbol, number, bid, bid_quantity, ask, ask_quantity, event_us, received_us = row
    received = _moment(received_us)
    event = received if event_us is None else _moment(event_us)
    told = "\\N" if event_us is None else event
    return (
        f"{symbol}\t{event[:10]}\t{number}\t{bid}\t{bid_quantity}\t{ask}\t{ask_quantity}"
        f"\t{told}\t{received}\n"
    )


@dataclass(frozen=True, slots=True)
class RawTable:
    """One table of raw capture.

    Attributes:
        name: within schema ``market``; the dataset's name everywhere.
        columns: in the order of a line.
        id_column: unique within symbol and day.
        time_column: when the row came about.
        line: a row as one line of COPY's text format.
    """

    name: str
    columns: tuple[str, ...]
    id_column: str
    time_column: str
    line: Callable[[Any], str]

    @property
    def path(self) -> sql.Identifier:
        """Its name in SQL."""
        return sql.Identifier("market", self.name)

    @property
    def time_index(self) -> int:
        """Which field of a line is its time."""
        return self.columns.index(self.time_column)


AGG_TRADES = RawTable(
    "agg_trades",
    (
        "symbol", "day", "agg_trade_id", "price", "quantity", "first_trade_id", "last_trade_id",
        "trade_time", "is_buyer_maker",
    ),
    "agg_trade_id",
    "trade_time",
    _agg_trade_line,
)  # fmt: skip
TRADES = RawTable(
    "trades",
    (
        "symbol", "day", "trade_id", "price", "quantity", "quote_quantity", "trade_time",
        "is_buyer_maker",
    ),
    "trade_id",
    "trade_time",
    _trade_line,
)  # fmt: skip
BOOK_TICKERS = RawTable(
    "book_tickers",
    (
        "symbol", "day", "update_id", "bid_price", "bid_quantity", "ask_price", "ask_quantity",
        "event_time", "received_at",
    ),
    "update_id",
    "received_at",
    _book_ticker_line,
)  # fmt: skip
RAW_TABLES = {table.name: table for table in (AGG_TRADES, TRADES, BOOK_TICKERS)}


@dataclass(frozen=True, slots=True)
class IdHole:
    """Ids of a symbol between two stored rows that have no row, and the times of those two."""

    symbol: str
    first_id: int
    last_id: int
    from_us: int
    to_us: int


def days_of(lines: Sequence[str]) -> set[str]:
    """The UTC days (``2026-11-21``) of some lines: their second field."""
    return {line.split("\t", 2)[1] for line in lines}


async def write_raw_async(
    connection: AsyncConnection,
    table: RawTable,
    lines: Sequence[str],
    *,
    known_days: set[str],
    expect_repeats: bool = False,
) -> tuple[int, bool]:
    """Write rows, each once, all or none.

    Args:
        lines: as ``table.line`` makes them.
        known_days: days whose partitions exist; completed here.
        expect_repeats: go through the temporary table at once.

    Returns:
        How many rows were new, and whether some were there already.

    Raises:
        TransientError: the database is away, or another writer was in the way.
        PermanentError: a row is refused; its cause is the driver's error.
    """
    with translated(connection):
        if not expect_repeats:
            try:
                await _ensure_days(connection, table, lines, known_days)
                await _copy(connection, table.path, table, lines)
            except errors.UniqueViolation:
                pass  # some rows are there already: below, they are told apart
            except errors.CheckViolation:
                known_days.clear()  # maintenance may have dropped a partition
            else:
                return len(lines), False
        await _ensure_days(connection, table, lines, known_days)
        staging, create, insert = _staged(table)
        async with connection.transaction(), connection.cursor() as cursor:
            await cursor.execute(create)
            await _copy_lines(cursor, staging, table, lines)
            await cursor.execute(insert)
            return cursor.rowcount, cursor.rowcount < len(lines)


def write_raw(connection: Connection, table: RawTable, lines: Sequence[str]) -> int:
    """Write rows, each once, all or none; returns how many were new. Errors as above."""
    staging, create, insert = _staged(table)
    with translated(connection):
        for day in sorted(days_of(lines)):
            connection.execute(_ENSURE, (f"market.{table.name}", f"{day} 00:00Z"))
        with connection.transaction(), connection.cursor() as cursor:
            cursor.execute(create)
            with cursor.copy(_copy_into(staging, table)) as copy:
                copy.write("".join(lines))
            cursor.execute(insert)
            return cursor.rowcount


def last_rows(
    connection: Connection,
    table: RawTable,
    symbols: Sequence[str],
    since_us: int,
    *,
    before_us: int | None = None,
) -> dict[str, tuple[int, int]]:
    """The greatest id of each symbol and the time (µs) of that row, of days since a moment.

    Args:
        before_us: leave out rows that are not older than this.
    """
    query = sql.SQL(
        "SELECT s.symbol, r.{id}, r.{time} FROM unnest(%s::text[]) AS s (symbol) "
        "CROSS JOIN LATERAL (SELECT t.{id}, t.{time} FROM {table} AS t "
        "WHERE t.symbol = s.symbol AND t.day >= %s "
        "AND t.{time} < coalesce(%s, 'infinity'::timestamptz) "
        "ORDER BY t.day DESC, t.{id} DESC LIMIT 1) AS r"
    ).format(**_names(table))
    with translated(connection):
        rows = connection.execute(
            query,
            (
                list(symbols),
                from_us(since_us).date(),
                None if before_us is None else from_us(before_us),
            ),
        ).fetchall()
    return {symbol: (number, to_us(moment)) for symbol, number, moment in rows}


def missing_ids(
    connection: Connection, table: RawTable, symbols: Sequence[str], since_us: int
) -> list[IdHole]:
    """Ids without a row between stored rows, of days since a moment; the oldest first."""
    query = sql.SQL(
        "SELECT h.symbol, h.id + 1, h.next_id - 1, h.at, h.next_at FROM ("
        "SELECT t.symbol, t.{id} AS id, t.{time} AS at, lead(t.{id}) OVER w AS next_id, "
        "lead(t.{time}) OVER w AS next_at FROM {table} AS t "
        "WHERE t.symbol = ANY(%s) AND t.day >= %s "
        "WINDOW w AS (PARTITION BY t.symbol ORDER BY t.day, t.{id})"
        ") AS h WHERE h.next_id > h.id + 1 ORDER BY h.at, h.symbol LIMIT %s"
    ).format(**_names(table))
    arguments = (list(symbols), from_us(since_us).date(), MOST_HOLES)
    with translated(connection):
        rows = connection.execute(query, arguments).fetchall()
    return [
        IdHole(symbol, first_id, last_id, to_us(since), to_us(until))
        for symbol, first_id, last_id, since, until in rows
    ]


# --- inside

_ENSURE = "SELECT ops.ensure_partition(%s::regclass, %s::timestamptz)"


def _names(table: RawTable) -> dict[str, sql.Identifier]:
    return {
        "table": table.path,
        "id": sql.Identifier(table.id_column),
        "time": sql.Identifier(table.time_column),
    }


def _copy_into(target: sql.Identifier, table: RawTable) -> sql.Composed:
    columns = sql.SQL(", ").join(map(sql.Identifier, table.columns))
    return sql.SQL("COPY {} ({}) FROM STDIN (ENCODING 'UTF8')").format(target, columns)


def _staged(table: RawTable) -> tuple[sql.Identifier, sql.Composed, sql.Composed]:
    """The temporary table, the statement that makes it, and the one that empties it into ours."""
    staging = sql.Identifier("pg_temp", f"captured_{table.name}")
    create = sql.SQL(
        "CREATE TEMPORARY TABLE IF NOT EXISTS {} (LIKE {}) ON COMMIT DELETE ROWS"
    ).format(sql.Identifier(f"captured_{table.name}"), table.path)
    columns = sql.SQL(", ").join(map(sql.Identifier, table.columns))
    # In the order of the key, so that two writers of the same rows cannot lock each other out.
    insert = sql.SQL(
        "INSERT INTO {table} ({columns}) SELECT {columns} FROM {staging} "
        'ORDER BY symbol COLLATE "C", day, {id} ON CONFLICT DO NOTHING'
    ).format(table=table.path, columns=columns, staging=staging, id=sql.Identifier(table.id_column))
    return staging, create, insert


async def _ensure_days(
    connection: AsyncConnection, table: RawTable, lines: Sequence[str], known_days: set[str]
) -> None:
    for day in sorted(days_of(lines) - known_days):
        await connection.execute(_ENSURE, (f"market.{table.name}", f"{day} 00:00Z"))
        known_days.add(day)


async def _copy(
    connection: AsyncConnection, target: sql.Identifier, table: RawTable, lines: Sequence[str]
) -> None:
    async with connection.transaction(), connection.cursor() as cursor:
        await _copy_lines(cursor, target, table, lines)


async def _copy_lines(
    cursor: psycopg.AsyncCursor[Any], target: sql.Identifier, table: RawTable, lines: Sequence[str]
) -> None:
    async with cursor.copy(_copy_into(target, table)) as copy:
        for start in range(0, len(lines), LINES_A_WRITE):
            await copy.write("".join(lines[start : start + LINES_A_WRITE]))
