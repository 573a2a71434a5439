"""Write raw capture: trades, book tickers, liquidations and depth.

Rows are stored exactly once by id. Usually no row repeats, so rows are copied straight into the
table, which is fastest. If the copy meets a stored row (an overlap, a replay, a second streamer),
the rows are copied to a temporary table and inserted with ``ON CONFLICT DO NOTHING``, in key order.

The day of a row is part of its key. A spot book ticker has no time of the exchange, so its day is
that of its receipt. Around midnight two processes may receive the same book ticker on different
days. Book tickers of the two minutes around midnight are therefore also searched on the adjacent
day, by one writer after another.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import psycopg
from psycopg import errors, sql

from include.store.candles.merging import AsyncConnection, Connection
from include.store.postgres.pools import translated
from include.store.trades.copy_text import NULL, moment_text
from include.store.trades.depth_lines import (
    LEVEL_COLUMNS,
    depth_diff_line,
    depth_snapshot_line,
)
from include.store.trades.liquidations import COLUMNS, ID_COLUMN, liquidation_line

AggTradeRow = tuple[str, int, Decimal, Decimal, int, int, int, bool]
"""Symbol, id, price, quantity, first and last trade id, trade time (µs), whether the buyer was
maker."""
TradeRow = tuple[str, int, Decimal, Decimal, Decimal | None, int, bool, str | None]
"""Symbol, id, price, quantity, quote quantity if known, trade time (µs), whether the buyer was
maker, and the trade type if known (may be omitted)."""
BookTickerRow = tuple[str, int, Decimal, Decimal, Decimal, Decimal, int | None, int]
"""Symbol, update id, bid and its quantity, ask and its quantity, event time if known, and time of
receipt (both µs)."""

ABOUT_MIDNIGHT = frozenset({"23:59", "00:00"})
"""Minutes in which another process may have stored the same row on the adjacent day."""
LINES_A_WRITE = 1_024
"""About 100 kB of trades: joining them blocks the event loop for a tenth of a millisecond."""

# !s converts a Decimal to text without parsing a format.


def agg_trade_line(
    symbol: str,
    number: int,
    price: Decimal,
    quantity: Decimal,
    first: int,
    last: int,
    time_us: int,
    is_maker: bool,
) -> str:
    """Format an ``AggTradeRow`` as a line of COPY."""
    at = moment_text(time_us)
    return (
        f"{symbol}\t{at[:10]}\t{number}\t{price!s}\t{quantity!s}\t{first}\t{last}\t{at}"
        f"\t{'t' if is_maker else 'f'}\n"
    )


def trade_line(
    symbol: str,
    number: int,
    price: Decimal,
    quantity: Decimal,
    quote: Decimal | None,
    time_us: int,
    is_maker: bool,
    trade_type: str | None = None,
) -> str:
    """Format a ``TradeRow`` as a line of COPY."""
    at = moment_text(time_us)
    quote_text = NULL if quote is None else quote
    return (
        f"{symbol}\t{at[:10]}\t{number}\t{price!s}\t{quantity!s}\t{quote_text!s}\t{at}"
        f"\t{'t' if is_maker else 'f'}\t{trade_type or NULL}\n"
    )


def book_ticker_line(
    symbol: str,
    number: int,
    bid: Decimal | str,
    bid_quantity: Decimal | str,
    ask: Decimal | str,
    ask_quantity: Decimal | str,
    event_us: int | None,
    received_us: int,
) -> str:
    """Format a ``BookTickerRow`` as a line of COPY."""
    received = moment_text(received_us)
    if event_us is None:
        event, event_text = received, "\\N"
    else:
        event = event_text = moment_text(event_us)
    return (
        f"{symbol}\t{event[:10]}\t{number}\t{bid!s}\t{bid_quantity!s}\t{ask!s}"
        f"\t{ask_quantity!s}\t{event_text}\t{received}\n"
    )


@dataclass(frozen=True, slots=True)
class RawTable:
    """One table of raw capture.

    Attributes:
        name: within schema ``market``; also the dataset's name everywhere else.
        columns: in the order of a line.
        id_column: unique within symbol and day.
        time_column: time of the event.
        line_of: formats a row's values, in the order of its type above, as a line of COPY.
        relative_size: typical size of a row, where a trade is 1.
    """

    name: str
    columns: tuple[str, ...]
    id_column: str
    time_column: str
    line_of: Callable[..., str]
    relative_size: int = 1

    def line(self, row: Sequence[Any]) -> str:
        """Format a row as a line of COPY's text format."""
        return self.line_of(*row)

    def padded(self, lines: list[str]) -> list[str]:
        """Add NULL to lines from an older version of the program, which had fewer columns."""
        missing = len(self.columns) - 1 - lines[0].count("\t") if lines else 0
        ending = f"\t{NULL}" * missing + "\n"
        return [line[:-1] + ending for line in lines] if missing else lines

    @property
    def path(self) -> sql.Identifier:
        """The table's name in SQL."""
        return sql.Identifier("market", self.name)

    @property
    def id_index(self) -> int:
        """Position of the id in a line."""
        return self.columns.index(self.id_column)

    @property
    def time_index(self) -> int:
        """Position of the time in a line."""
        return self.columns.index(self.time_column)


AGG_TRADES = RawTable(
    "agg_trades",
    (
        "symbol", "day", "agg_trade_id", "price", "quantity", "first_trade_id", "last_trade_id",
        "trade_time", "is_buyer_maker",
    ),
    "agg_trade_id",
    "trade_time",
    agg_trade_line,
)  # fmt: skip
TRADES = RawTable(
    "trades",
    (
        "symbol", "day", "trade_id", "price", "quantity", "quote_quantity", "trade_time",
        "is_buyer_maker", "trade_type",
    ),
    "trade_id",
    "trade_time",
    trade_line,
)  # fmt: skip
BOOK_TICKERS = RawTable(
    "book_tickers",
    (
        "symbol", "day", "update_id", "bid_price", "bid_quantity", "ask_price", "ask_quantity",
        "event_time", "received_at",
    ),
    "update_id",
    "received_at",
    book_ticker_line,
)  # fmt: skip
LIQUIDATIONS = RawTable("liquidations", COLUMNS, ID_COLUMN, "received_at", liquidation_line)
DEPTH_DIFFS = RawTable(
    "depth_diffs",
    (
        "symbol", "day", "last_update_id", "first_update_id", "previous_update_id", "event_time",
        "transaction_time", "received_at", *LEVEL_COLUMNS,
    ),
    "last_update_id",
    "event_time",
    depth_diff_line,
    relative_size=16,
)  # fmt: skip
DEPTH_SNAPSHOTS = RawTable(
    "depth_snapshots",
    (
        "symbol", "day", "last_update_id", "source", "at_time", *LEVEL_COLUMNS, "bid_reach",
        "ask_reach",
    ),
    "last_update_id",
    "at_time",
    depth_snapshot_line,
    relative_size=512,
)  # fmt: skip
RAW_TABLES = {
    table.name: table
    for table in (AGG_TRADES, TRADES, BOOK_TICKERS, LIQUIDATIONS, DEPTH_DIFFS, DEPTH_SNAPSHOTS)
}
DATASETS = {
    "agg_trades": (AGG_TRADES,),
    "trades": (TRADES,),
    "book_tickers": (BOOK_TICKERS,),
    "liquidations": (LIQUIDATIONS,),
    "depth": (DEPTH_DIFFS, DEPTH_SNAPSHOTS),
}
"""What can be captured, and its tables."""


def tables_of(datasets: Iterable[str]) -> tuple[str, ...]:
    """Return the names of the tables of some datasets, or of tables, in the order of writing."""
    wanted = {
        table.name
        for name in datasets
        for table in DATASETS.get(name, (RAW_TABLES.get(name),))
        if table is not None
    }
    return tuple(name for name in RAW_TABLES if name in wanted)


def days_of(lines: Sequence[str]) -> set[str]:
    """Return the UTC days (``2026-11-21``) of some lines: their second field."""
    return {line.split("\t", 2)[1] for line in lines}


def may_bear_two_days(table: RawTable, lines: Sequence[str]) -> bool:
    r"""Whether some rows are book tickers without a time of the exchange, received around midnight.

    Their last two fields have fixed widths: ``\\N`` and a time like ``2026-11-21 23:59:59.9…+00``.
    """
    return table is BOOK_TICKERS and any(
        line[-19:-14] in ABOUT_MIDNIGHT and line[-33:-31] == "\\N" for line in lines
    )


async def write_raw_async(
    connection: AsyncConnection,
    table: RawTable,
    lines: Sequence[str],
    *,
    expect_repeats: bool = False,
) -> tuple[int, bool]:
    """Write rows, each once, all or none.

    Args:
        lines: from ``table.line``.
        expect_repeats: use the temporary table immediately.

    Returns:
        The number of new rows, and whether some existed already.

    Raises:
        TransientError: the database is away, or another writer was in the way.
        PermanentError: a row is refused; its cause is the driver's error.
    """
    is_about_midnight = may_bear_two_days(table, lines)
    with translated(connection):
        if not (expect_repeats or is_about_midnight):
            try:
                await _copy(connection, table, lines)
            except errors.UniqueViolation:
                pass  # some rows exist already: the statement below handles them
            except errors.CheckViolation:
                pass  # rarely a row, mostly a missing partition, which is created below
            else:
                return len(lines), False
        for day in sorted(days_of(lines)):
            await connection.execute(_ENSURE, (f"market.{table.name}", f"{day} 00:00Z"))
        staging, create, insert = _staged(table, is_about_midnight=is_about_midnight)
        async with connection.transaction(), connection.cursor() as cursor:
            await cursor.execute(create)
            await _copy_lines(cursor, staging, table, lines)
            if is_about_midnight:
                await cursor.execute(_ONE_AFTER_ANOTHER)
            await cursor.execute(insert)
            return cursor.rowcount, cursor.rowcount < len(lines)


def write_raw(connection: Connection, table: RawTable, lines: Sequence[str]) -> int:
    """Write rows, each once, all or none; return how many were new. Errors as above."""
    is_about_midnight = may_bear_two_days(table, lines)
    staging, create, insert = _staged(table, is_about_midnight=is_about_midnight)
    with translated(connection):
        for day in sorted(days_of(lines)):
            connection.execute(_ENSURE, (f"market.{table.name}", f"{day} 00:00Z"))
        with connection.transaction(), connection.cursor() as cursor:
            cursor.execute(create)
            with cursor.copy(_copy_into(staging, table)) as copy:
                copy.write("".join(lines))
            if is_about_midnight:
                cursor.execute(_ONE_AFTER_ANOTHER)
            cursor.execute(insert)
            return cursor.rowcount


# --- inside

_ENSURE = "SELECT ops.ensure_partition(%s::regclass, %s::timestamptz)"

# A separate statement: the next one then sees what the previous writer has committed.
_ONE_AFTER_ANOTHER = (
    "SELECT pg_advisory_xact_lock(hashtextextended('candelabra quotes about midnight', 0))"
)

# LIMIT forces one index lookup per row, however large the planner estimates the day. A ticker that
# passed to another instrument may reuse an id, but not within two minutes.
_NOT_ON_THE_DAY_BESIDE = sql.SQL("""
LEFT JOIN LATERAL (
    SELECT true FROM {table} AS b
    WHERE
        b.symbol = s.symbol
        AND b.update_id = s.update_id
        AND b.event_time IS NULL
        AND b.day = CASE
            WHEN s.event_time IS NOT NULL THEN NULL
            WHEN ((s.received_at + interval '1 minute') AT TIME ZONE 'UTC')::date > s.day
                THEN s.day + 1
            WHEN ((s.received_at - interval '1 minute') AT TIME ZONE 'UTC')::date < s.day
                THEN s.day - 1
        END
        AND b.received_at BETWEEN
            s.received_at - interval '2 minutes' AND s.received_at + interval '2 minutes'
    LIMIT 1
) AS beside (is_there) ON true
WHERE beside.is_there IS NULL
""")


def _copy_into(target: sql.Identifier, table: RawTable) -> sql.Composed:
    columns = sql.SQL(", ").join(map(sql.Identifier, table.columns))
    return sql.SQL("COPY {} ({}) FROM STDIN (ENCODING 'UTF8')").format(target, columns)


def _staged(
    table: RawTable, *, is_about_midnight: bool = False
) -> tuple[sql.Identifier, sql.Composed, sql.Composed]:
    """Return the temporary table, the statement to create it, and the one to move its rows."""
    staging = sql.Identifier("pg_temp", f"captured_{table.name}")
    create = sql.SQL(
        "CREATE TEMPORARY TABLE IF NOT EXISTS {} (LIKE {}) ON COMMIT DELETE ROWS"
    ).format(sql.Identifier(f"captured_{table.name}"), table.path)
    # In key order, so that two writers of the same rows cannot deadlock.
    insert = sql.SQL(
        "INSERT INTO {table} ({columns}) SELECT {staged} FROM {staging} AS s {only} "
        'ORDER BY s.symbol COLLATE "C", s.day, s.{id} ON CONFLICT DO NOTHING'
    ).format(
        table=table.path,
        columns=sql.SQL(", ").join(map(sql.Identifier, table.columns)),
        staged=sql.SQL(", ").join(sql.Identifier("s", column) for column in table.columns),
        staging=staging,
        only=_NOT_ON_THE_DAY_BESIDE.format(table=table.path) if is_about_midnight else sql.SQL(""),
        id=sql.Identifier(table.id_column),
    )
    return staging, create, insert


async def _copy(connection: AsyncConnection, table: RawTable, lines: Sequence[str]) -> None:
    """Copy rows in one statement without an explicit transaction, which saves two round trips."""
    async with connection.cursor() as cursor:
        await _copy_lines(cursor, table.path, table, lines)


async def _copy_lines(
    cursor: psycopg.AsyncCursor[Any], target: sql.Identifier, table: RawTable, lines: Sequence[str]
) -> None:
    async with cursor.copy(_copy_into(target, table)) as copy:
        count = max(1, LINES_A_WRITE // table.relative_size)
        for start in range(0, len(lines), count):
            await copy.write("".join(lines[start : start + count]))
