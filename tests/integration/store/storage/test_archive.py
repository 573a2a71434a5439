"""Partitions of archived days are dropped only if the archive has every row."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import date
from decimal import Decimal
from typing import Any

import psycopg
import pytest
from psycopg import errors

from include.domain.timeframes import DAY_US
from include.errors import TransientError
from include.store.migrate import DBT, JOBS, READER, STREAMER
from include.store.storage.archive import only_one, read_archived, record_archived
from include.store.storage.partitions import drop_archived, fingerprint_of, raw_days
from include.store.trades.captured import AGG_TRADES, RAW_TABLES, write_raw

Connection = psycopg.Connection[Any]
ActingAs = Callable[[str], AbstractContextManager[Connection]]

DAY = date(2025, 11, 21)
AT_US = 1_763_716_800_000_000
"""2025-11-21 09:20 UTC."""


def line(number: int, *, at_us: int = AT_US, symbol: str = "A") -> str:
    return AGG_TRADES.line((symbol, number, Decimal(2), Decimal(3), number, number, at_us, True))


def record(connection: Connection) -> None:
    """Note the day as archived, as it is now."""
    record_archived(
        connection,
        AGG_TRADES,
        DAY,
        path="agg_trades/day=2025-11-21/agg_trades.parquet",
        file_bytes=1,
        fingerprint=fingerprint_of(connection, AGG_TRADES, DAY),
        sha256="0" * 64,
    )


def days(connection: Connection) -> list[date]:
    return [one.day for one in raw_days(connection, before=date(2100, 1, 1))]


def test_jobs_can_drop_archived_days_only(connection: Connection, acting_as: ActingAs) -> None:
    write_raw(connection, AGG_TRADES, [line(1), line(2), line(3, at_us=AT_US + DAY_US)])
    with acting_as(JOBS):
        with pytest.raises(
            TransientError, match=r"y2025m11d21 changed .* it has 2 rows, the archive 0"
        ):
            drop_archived(connection, AGG_TRADES, DAY)
        record(connection)
        assert drop_archived(connection, AGG_TRADES, DAY)
        assert not drop_archived(connection, AGG_TRADES, DAY)

    (entry,) = read_archived(connection)
    assert entry.dropped_at is not None
    assert days(connection) == [date(2025, 11, 22)]


@pytest.mark.parametrize(
    "change",
    [
        "DELETE FROM market.agg_trades WHERE agg_trade_id = 1",
        """
        DELETE FROM market.agg_trades WHERE agg_trade_id = 1;
        INSERT INTO market.agg_trades
        SELECT 'A', day, 9, 2, 3, 9, 9, trade_time, true FROM market.agg_trades
        """,
        """
        INSERT INTO market.agg_trades
        SELECT 'B', day, 1, 2, 3, 1, 1, trade_time, true FROM market.agg_trades LIMIT 1
        """,
    ],
    ids=["gone", "another", "one more"],
)
def test_changed_partition_is_not_dropped(connection: Connection, change: str) -> None:
    write_raw(connection, AGG_TRADES, [line(1), line(2)])
    record(connection)
    connection.execute(change)

    with pytest.raises(TransientError, match=r"market\.agg_trades_y\d+.* changed since"):
        drop_archived(connection, AGG_TRADES, DAY)

    assert days(connection) == [DAY]


@pytest.mark.parametrize("role", [STREAMER, DBT, READER])
def test_other_roles_cannot_drop_or_record_archives(
    connection: Connection, acting_as: ActingAs, role: str
) -> None:
    for statement in (
        "SELECT ops.drop_archived_partition('agg_trades', '2025-11-21')",
        "UPDATE ops.archived_partitions SET dropped_at = now()",
        "DELETE FROM ops.archived_partitions",
    ):
        with acting_as(role), pytest.raises(errors.InsufficientPrivilege):
            connection.execute(statement)


def test_jobs_cannot_delete_an_archive_entry(acting_as: ActingAs) -> None:
    with acting_as(JOBS) as connection, pytest.raises(errors.InsufficientPrivilege):
        connection.execute("DELETE FROM ops.archived_partitions")


@pytest.mark.parametrize("name", ["candles_1m", "live_candles", "agg_trades_y2025m11d21", "x'; --"])
def test_unknown_dataset_is_refused(connection: Connection, name: str) -> None:
    with pytest.raises(errors.InvalidParameterValue):
        connection.execute("SELECT ops.drop_archived_partition(%s, '2025-11-21')", (name,))


def test_drop_needs_isolation_read_committed(connection: Connection) -> None:
    write_raw(connection, AGG_TRADES, [line(1)])
    record(connection)
    connection.execute("SET default_transaction_isolation = 'repeatable read'")
    with pytest.raises(errors.InvalidTransactionState):
        connection.execute("SELECT ops.drop_archived_partition('agg_trades', '2025-11-21')")


def test_drop_gives_up_after_its_lock_timeout(
    connection: Connection, connect_again: Callable[[str], Connection]
) -> None:
    write_raw(connection, AGG_TRADES, [line(1), line(2, at_us=AT_US + DAY_US)])
    record(connection)
    other = connect_again("other")
    with other.transaction():
        other.execute("SELECT FROM market.agg_trades WHERE day = '2025-11-22'")
        with pytest.raises(TransientError, match="lock timeout"):
            drop_archived(connection, AGG_TRADES, DAY)
        assert other.execute("SELECT count(*) FROM market.agg_trades").fetchone() == (2,)

    assert drop_archived(connection, AGG_TRADES, DAY)


def test_writer_recreates_a_dropped_partition(connection: Connection) -> None:
    write_raw(connection, AGG_TRADES, [line(1)])
    record(connection)
    drop_archived(connection, AGG_TRADES, DAY)

    assert write_raw(connection, AGG_TRADES, [line(2)]) == 1
    assert days(connection) == [DAY]


@pytest.mark.parametrize("table", RAW_TABLES.values(), ids=RAW_TABLES)
def test_empty_partition_needs_no_archive(connection: Connection, table: Any) -> None:
    connection.execute(
        "SELECT ops.ensure_partition(%s::regclass, '2025-11-21')", (f"market.{table.name}",)
    )
    assert drop_archived(connection, table, DAY)


def test_archive_lock_is_released(
    connection: Connection, connect_again: Callable[[str], Connection]
) -> None:
    other = connect_again("other")
    with only_one(connection), pytest.raises(TransientError), only_one(other):
        pass
    with only_one(other):
        pass
