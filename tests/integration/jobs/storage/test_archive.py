"""Old days of raw capture move to files and back, and no row is lost on the way."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from include.config import Settings
from include.errors import PermanentError, RejectedInputError, TransientError
from include.jobs.storage.archive import (
    ArchiveSummary,
    adopt_files,
    archive_days,
    list_days,
    verify_day,
)
from include.store.postgres.pools import connect
from include.store.trades.captured import AGG_TRADES, RAW_TABLES, TRADES, RawTable, write_raw
from tests.integration.jobs.storage.raw_days import (
    BEFORE,
    DAY,
    NOON_US,
    NOW,
    Connection,
    agg_trade,
    archive,
    fill,
    only,
    partitions,
    restore,
    rows_of,
    trade,
)


@pytest.fixture
def settings(raw_settings: Settings) -> Settings:
    return raw_settings


@pytest.fixture
def connection(jobs_connection: Connection) -> Connection:
    return jobs_connection


def test_old_days_are_archived_verified_and_dropped_and_recent_ones_stay(
    settings: Settings, connection: Connection
) -> None:
    fill(connection)

    done = archive(settings)

    assert (done.archived, done.merged, done.dropped, done.rows) == (6, 0, 6, 609)
    assert done.freed_bytes > 0
    assert partitions(connection) == {"agg_trades_y2026m11d20"}
    assert [row[2] for row in rows_of(connection)] == [900]
    for entry in list_days(settings=settings):
        assert verify_day(settings=settings, archived=entry).rows == entry.rows
        assert entry.dropped_at is not None
        assert entry.bytes == (settings.archive / entry.path).stat().st_size
    again = archive(settings)
    assert again == ArchiveSummary()


def test_restored_day_equals_the_original_and_a_second_restore_changes_nothing(
    settings: Settings, connection: Connection
) -> None:
    fill(connection)
    before = {name: rows_of(connection, table) for name, table in RAW_TABLES.items()}
    archive(settings)

    first = [restore(settings, entry) for entry in list_days(settings=settings)]
    second = [restore(settings, entry) for entry in list_days(settings=settings)]

    assert {name: rows_of(connection, table) for name, table in RAW_TABLES.items()} == before
    assert [(done.rows, done.inserted, done.replaced) for done in first] == [
        (600, 600, 0), (2, 2, 0), (2, 2, 0), (1, 1, 0), (1, 1, 0), (3, 3, 0),
    ]  # fmt: skip
    assert [(done.rows, done.inserted, done.replaced) for done in second] == [
        (600, 0, 0), (2, 0, 0), (2, 0, 0), (1, 0, 0), (1, 0, 0), (3, 0, 0),
    ]  # fmt: skip


def test_restored_day_stays_for_the_configured_time(
    settings: Settings, connection: Connection
) -> None:
    fill(connection)
    archive(settings)
    file = settings.archive / only(settings).path
    written = file.stat().st_mtime_ns
    restore(settings, only(settings))

    kept = archive(settings)
    dropped = archive_days(settings=settings, before=BEFORE, now=NOW + timedelta(days=2))

    assert (kept.kept, kept.dropped) == (1, 0)
    assert (dropped.archived, dropped.dropped) == (0, 1)
    assert file.stat().st_mtime_ns == written
    assert len(rows_of(connection)) == 1


def test_files_are_sorted_by_key_and_read_by_polars_with_exact_values(
    settings: Settings, connection: Connection
) -> None:
    fill(connection)
    stored = [row for row in rows_of(connection) if row[1] == DAY]
    archive(settings)

    found = pl.read_parquet(
        settings.archive / "agg_trades" / "*" / "*.parquet", hive_partitioning=True
    )

    assert found.schema["price"] == found.schema["quantity"] == pl.Decimal(38, 8)
    assert found.schema["trade_time"] == pl.Datetime("us", "UTC")
    keys = found.select("symbol", "agg_trade_id").rows()
    assert keys == sorted(keys)
    assert found.select(AGG_TRADES.columns).rows() == stored
    quotes = pl.scan_parquet(settings.archive / "book_tickers").collect()
    assert quotes["event_time"].null_count() == 1
    assert quotes["bid_quantity"].to_list() == [Decimal(0), Decimal(0)]


def test_late_rows_of_an_archived_day_are_merged_into_its_file(
    settings: Settings, connection: Connection
) -> None:
    fill(connection)
    before = rows_of(connection)
    archive(settings)
    former = only(settings)
    late = [agg_trade(5, "AAAUSDT"), agg_trade(301), agg_trade(7)]  # the last is in the file

    assert write_raw(connection, AGG_TRADES, late) == 3
    done = archive(settings)

    assert (done.archived, done.merged, done.rows) == (1, 1, 602)
    assert partitions(connection) == {"agg_trades_y2026m11d20"}
    assert only(settings).rows == former.rows + 2
    restore(settings, only(settings))
    assert set(before) < set(rows_of(connection))
    assert len(rows_of(connection)) == len(before) + 2


def test_archived_row_wins_over_a_later_different_one(
    settings: Settings, connection: Connection
) -> None:
    fill(connection)
    before = rows_of(connection, TRADES)
    archive(settings)
    write_raw(connection, TRADES, [trade(1, "6"), trade(2, "7")])

    archive(settings)
    restore(settings, only(settings, "trades"))

    assert rows_of(connection, TRADES) == before


def test_day_with_an_inexact_value_stays_in_the_table(
    settings: Settings, connection: Connection
) -> None:
    fill(connection)
    line = AGG_TRADES.line(("FINE", 1, Decimal("1E-9"), Decimal(1), 1, 1, NOON_US, True))
    write_raw(connection, AGG_TRADES, [line])

    with pytest.raises(
        PermanentError, match=r"1 day stays.*FINE 1 has price=0\.000000001.*8 decim"
    ):
        archive(settings)

    assert {entry.table.name for entry in list_days(settings=settings)} == (
        RAW_TABLES.keys() - {"agg_trades"}
    )
    assert len(rows_of(connection)) == 602
    assert list((settings.archive / "agg_trades").rglob("*.p*")) == []


@pytest.mark.parametrize("damage", ["cut", "changed", "missing", "of another table"])
def test_damaged_file_is_neither_restored_nor_merged(
    settings: Settings, connection: Connection, damage: str
) -> None:
    fill(connection)
    archive(settings)
    entry = only(settings)
    file = settings.archive / entry.path
    if damage == "missing":
        file.unlink()
    elif damage == "cut":
        file.write_bytes(file.read_bytes()[:-100])
    elif damage == "changed":
        pl.read_parquet(file, hive_partitioning=False).slice(1).write_parquet(file)
    else:
        file.write_bytes((settings.archive / only(settings, "trades").path).read_bytes())

    with pytest.raises(RejectedInputError, match=str(file)):
        verify_day(settings=settings, archived=entry)
    with pytest.raises(RejectedInputError, match=str(file)):
        restore(settings, entry)
    write_raw(connection, AGG_TRADES, [agg_trade(400)])
    with pytest.raises(PermanentError, match=str(file)):
        archive(settings)

    assert [row[2] for row in rows_of(connection)] == [400, 900]
    assert only(settings) == entry


def test_rows_written_during_archiving_keep_the_partition(
    settings: Settings, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    from include.jobs.storage import archive as module

    fill(connection)
    before = rows_of(connection)
    real = module.content_of

    def meanwhile(table: RawTable, path: Path) -> Any:
        write_raw(connection, AGG_TRADES, [agg_trade(777)])
        return real(table, path)

    monkeypatch.setattr(module, "content_of", meanwhile)
    with pytest.raises(TransientError, match="changed since its archive"):
        archive(settings)
    assert len(rows_of(connection)) == len(before) + 1
    monkeypatch.undo()

    assert archive(settings).dropped == 6
    assert only(settings).rows == 601


def test_only_one_process_archives_at_a_time(settings: Settings, connection: Connection) -> None:
    connection.execute("SELECT pg_advisory_lock(hashtextextended('candelabra archive', 0))")
    with pytest.raises(TransientError, match="another process works on the archive"):
        archive(settings)
    connection.execute("SELECT pg_advisory_unlock_all()")
    assert archive(settings) == ArchiveSummary()


def test_empty_partitions_of_old_days_are_dropped_without_a_file(
    settings: Settings, connection: Connection
) -> None:
    connection.execute("SELECT ops.ensure_partition('market.trades', '2026-11-18')")

    assert archive(settings).dropped == 1
    assert list_days(settings=settings) == []
    assert not settings.archive.exists()


def test_table_with_fewer_rows_does_not_overwrite_its_archive(
    settings: Settings, connection: Connection
) -> None:
    fill(connection)
    archive(settings)
    restore(settings, only(settings))
    connection.execute("DELETE FROM market.agg_trades WHERE agg_trade_id < 10 AND day = %s", (DAY,))

    with pytest.raises(PermanentError, match="has 582 rows and its archive 600"):
        archive_days(settings=settings, before=BEFORE, now=NOW + timedelta(days=9))

    assert verify_day(settings=settings, archived=only(settings)).rows == 600


def test_files_unknown_to_an_older_backup_are_adopted_and_not_overwritten(
    settings: Settings, connection: Connection, database_url: str
) -> None:
    fill(connection)
    archive(settings)
    write_raw(connection, AGG_TRADES, [agg_trade(777)])
    archive(settings)
    # As the database was before: without trace of the archive, some rows in the table.
    with connect(database_url, application_name="test-owner") as owner:
        owner.execute("TRUNCATE ops.archived_partitions")
    write_raw(connection, AGG_TRADES, [agg_trade(1), agg_trade(2)])
    with pytest.raises(PermanentError, match=r"1 day stays.*adopt"):
        archive(settings)

    adopted = adopt_files(settings=settings)
    done = archive(settings)

    assert adopted == [f"{name}/day=2026-11-18/{name}.parquet" for name in sorted(RAW_TABLES)]
    assert (done.merged, done.rows, only(settings).rows) == (1, 601, 601)
    assert adopt_files(settings=settings) == []
    assert restore(settings, only(settings)).inserted == 601


def test_progress_names_each_day(settings: Settings, connection: Connection) -> None:
    fill(connection)
    seen: list[tuple[str, date]] = []
    told: Callable[..., None] = lambda one: seen.append((one.table.name, one.day))  # noqa: E731
    archive_days(settings=settings, before=BEFORE, now=NOW, on_day=told)
    assert seen == [(name, DAY) for name in sorted(RAW_TABLES)]
    assert replace(only(settings), dropped_at=None).rows == 600
