"""Days of raw capture to be archived, and what the tables have of them."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import psycopg
from psycopg import sql

from include.config import Settings
from include.domain.books.order_book import BookSnapshot
from include.domain.timeframes import DAY_US, to_us
from include.jobs.storage.archive import ArchiveSummary, archive_days, list_days, restore_day
from include.store.trades.captured import (
    AGG_TRADES,
    BOOK_TICKERS,
    DEPTH_DIFFS,
    DEPTH_SNAPSHOTS,
    LIQUIDATIONS,
    TRADES,
    RawTable,
    write_raw,
)
from include.store.trades.liquidations import Liquidation

Connection = psycopg.Connection[Any]

DAY = date(2026, 11, 18)
NOON_US = to_us(datetime(2026, 11, 18, 12, tzinfo=UTC))
NOW = datetime(2026, 11, 21, 3, tzinfo=UTC)
BEFORE = date(2026, 11, 19)


def agg_trade(number: int, symbol: str = "BTCUSDT", *, days: int = 0) -> str:
    price = Decimal(93_000) + Decimal(number) / 100
    at_us = NOON_US + number * 997 + days * DAY_US
    quantity = Decimal(f"{number % 7}.{number:08d}")
    return AGG_TRADES.line(
        (symbol, number, price, quantity, 2 * number, 2 * number + 1, at_us, number % 3 == 0)
    )


def trade(number: int, quote: str | None = "5.00000001") -> str:
    told = None if quote is None else Decimal(quote)
    return TRADES.line(
        ("1000SATS", number, Decimal("1E-8"), Decimal("92141578987.5"), told, NOON_US, False)
    )


def book_ticker(number: int, event_us: int | None) -> str:
    bid, ask = (Decimal("0.10"), Decimal(0)), (Decimal("0.11"), Decimal("1234.5"))
    return BOOK_TICKERS.line(("币安人生USDT", number, *bid, *ask, event_us, NOON_US + number))


def liquidation(order_us: int = NOON_US) -> str:
    amounts = (Decimal("34738.38"), Decimal("0.029"), Decimal("0.023"), Decimal("0.029"))
    return LIQUIDATIONS.line(
        [
            Liquidation(
                "BTCUSDT.P", order_us, order_us + 5_000, NOON_US + 7, "SELL", "LIMIT", "IOC",
                Decimal("34603.03"), *amounts, "FILLED",
            )
        ]
    )  # fmt: skip


def depth_diff(number: int, previous: int | None) -> str:
    bids = [("0.10", "0.00000000"), ("93000.1", "1234567890.00000001")]
    return DEPTH_DIFFS.line(
        ("BTCUSDT", number, number, previous, NOON_US, previous and NOON_US, NOON_US + 1, bids, [])
    )


def depth_snapshot(number: int) -> str:
    snapshot = BookSnapshot(number, [("9", "1")], [("10.5", "2"), ("11", "3")], None, "11")
    return DEPTH_SNAPSHOTS.line(("BTCUSDT", snapshot, "checkpoint", NOON_US))


def fill(connection: Connection) -> None:
    """Rows of each table, out of order, on a day to be archived and on one to be kept."""
    lines = [agg_trade(n, symbol) for symbol in ("ETHUSDT", "BTCUSDT") for n in range(300, 0, -1)]
    write_raw(connection, AGG_TRADES, [*lines, agg_trade(900, days=2)])
    write_raw(connection, TRADES, [trade(1), trade(2, None), trade(3, "0")])
    write_raw(connection, BOOK_TICKERS, [book_ticker(1, None), book_ticker(2, NOON_US)])
    write_raw(connection, LIQUIDATIONS, [liquidation()])
    write_raw(connection, DEPTH_DIFFS, [depth_diff(3, None), depth_diff(2, 1)])
    write_raw(connection, DEPTH_SNAPSHOTS, [depth_snapshot(2)])


def rows_of(connection: Connection, table: RawTable = AGG_TRADES) -> list[tuple[Any, ...]]:
    query = sql.SQL("SELECT {} FROM {} ORDER BY symbol, day, {}")
    columns = sql.SQL(", ").join(map(sql.Identifier, table.columns))
    names = (columns, table.path, sql.Identifier(table.id_column))
    return connection.execute(query.format(*names)).fetchall()


def partitions(connection: Connection) -> set[str]:
    rows = connection.execute(
        "SELECT relname FROM pg_class WHERE relispartition AND relkind = 'r'"
    ).fetchall()
    return {name for (name,) in rows}


def archive(settings: Settings) -> ArchiveSummary:
    return archive_days(settings=settings, before=BEFORE, now=NOW)


def only(settings: Settings, dataset: str = "agg_trades") -> Any:
    (entry,) = list_days(settings=settings, dataset=dataset)
    return entry


def restore(settings: Settings, entry: Any) -> Any:
    return restore_day(settings=settings, archived=entry, until=NOW + timedelta(days=1))
