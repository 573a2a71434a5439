"""Writing a ledger entry again has no effect."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import Any

import psycopg
import pytest

from include.domain.instruments import Market
from include.domain.timeframes import DAY_US, MINUTE_US, from_us
from include.errors import PermanentError
from include.store.ledgers.files import (
    DumpFile,
    QualityResult,
    RejectedRow,
    add_coverage,
    find_dump_file,
    read_coverage,
    read_outages,
    record_dump_file,
    record_outage,
    record_quality_results,
    record_rejected_rows,
)

Connection = psycopg.Connection[Any]

DAY = 1_764_460_800_000_000
"""2025-11-30 00:00 UTC."""

FILE = DumpFile(
    path="data/spot/daily/klines/BTCUSDT/1m/BTCUSDT-1m-2025-11-30.zip",
    checksum="ab" * 32,
    kind="klines",
    fetched_at_us=DAY + DAY_US,
    rows=1440,
    verdict="loaded",
    symbol="BTCUSDT",
    time_unit="us",
    detail={"size": 65_536},
)


def count(connection: Connection, table: str) -> int:
    row = connection.execute(f"SELECT count(*) FROM {table}").fetchone()  # noqa: S608
    assert row is not None
    return int(row[0])


def test_recorded_dump_file_round_trips(connection: Connection) -> None:
    published = replace(FILE, published_at_us=DAY + 1)

    record_dump_file(connection, published)
    record_dump_file(connection, published)

    assert find_dump_file(connection, FILE.path) == published
    assert find_dump_file(connection, FILE.path, checksum=FILE.checksum) == published
    assert find_dump_file(connection, FILE.path, checksum="cd" * 32) is None
    assert find_dump_file(connection, "elsewhere") is None
    assert count(connection, "ops.dump_files") == 1


def test_reissued_file_has_its_own_entry_and_the_latest_is_found(
    connection: Connection,
) -> None:
    again = replace(FILE, checksum="cd" * 32, fetched_at_us=FILE.fetched_at_us + 1, rows=1439)

    for each in (again, FILE):
        record_dump_file(connection, each)

    assert find_dump_file(connection, FILE.path) == again
    assert count(connection, "ops.dump_files") == 2


def test_coverage_is_a_union_split_by_day(connection: Connection) -> None:
    end = DAY + DAY_US
    for _ in range(2):
        add_coverage(connection, "A", "kline", [(end - 2 * MINUTE_US, end + 3 * MINUTE_US)])
        add_coverage(connection, "A", "kline", [(end - 4 * MINUTE_US, end - 3 * MINUTE_US)])
        add_coverage(connection, "A", "rest", [(DAY, DAY + MINUTE_US)])

    covered = read_coverage(connection, "A", "kline", end - 10 * MINUTE_US, end + 2 * MINUTE_US)

    assert covered == [
        (end - 4 * MINUTE_US, end - 3 * MINUTE_US),
        (end - 2 * MINUTE_US, end + 2 * MINUTE_US),
    ]
    days = connection.execute("SELECT source, day::text FROM ops.coverage ORDER BY 1, 2").fetchall()
    assert days == [("kline", "2025-11-30"), ("kline", "2025-12-01"), ("rest", "2025-11-30")]


def test_full_day_without_discrepancy_agrees(connection: Connection) -> None:
    add_coverage(connection, "A", "dump_daily", [(DAY, DAY + DAY_US)])
    add_coverage(connection, "A", "kline", [(DAY, DAY + 5 * MINUTE_US)])

    verdicts = connection.execute(
        "SELECT source, covered_minutes, differing_minutes, verdict FROM ops.verdicts ORDER BY 1"
    ).fetchall()

    assert verdicts == [("dump_daily", 1440, 0, "agrees"), ("kline", 5, 0, "agrees_so_far")]


@pytest.mark.parametrize("span", [(DAY + 1, DAY + MINUTE_US), (DAY, DAY), (DAY + MINUTE_US, DAY)])
def test_ranges_must_be_full_minutes(connection: Connection, span: tuple[int, int]) -> None:
    with pytest.raises(PermanentError, match="range of minutes"):
        add_coverage(connection, "A", "kline", [span])
    with pytest.raises(PermanentError, match="range of minutes"):
        record_outage(connection, market=Market.SPOT, start_us=span[0], end_us=span[1], cause="x")


def test_outages_are_united_by_cause_and_found_for_the_symbols_they_touch(
    connection: Connection,
) -> None:
    for symbol, start, end, cause in [
        (None, 0, 2, "maintenance"),
        (None, 1, 4, "maintenance"),
        ("A", 6, 7, "halt"),
        ("B", 8, 9, "halt"),
    ]:
        record_outage(
            connection,
            market=Market.SPOT,
            symbol=symbol,
            start_us=DAY + start * MINUTE_US,
            end_us=DAY + end * MINUTE_US,
            cause=cause,
        )

    of_a = read_outages(connection, "A", DAY + MINUTE_US, DAY + DAY_US)

    assert of_a == [
        (DAY + MINUTE_US, DAY + 4 * MINUTE_US, "maintenance"),
        (DAY + 6 * MINUTE_US, DAY + 7 * MINUTE_US, "halt"),
    ]
    assert read_outages(connection, "A.P", DAY, DAY + DAY_US) == []
    assert count(connection, "ops.outages") == 3


def test_outage_must_belong_to_the_market_of_its_symbol(connection: Connection) -> None:
    with pytest.raises(PermanentError, match="outages_market_fits_the_symbol"):
        record_outage(
            connection,
            market=Market.SPOT,
            symbol="A.P",
            start_us=DAY,
            end_us=DAY + MINUTE_US,
            cause="x",
        )


def test_rejected_rows_are_stored_once_with_any_content(connection: Connection) -> None:
    rows = [
        RejectedRow("a.csv", 7, "price is 0", "1,0,3"),
        RejectedRow("a.csv", 8, "not text", "1,\0,3"),
    ]
    for _ in range(2):
        record_rejected_rows(connection, rows)

    kept = connection.execute("SELECT line, raw FROM ops.rejected_rows ORDER BY line").fetchall()
    assert kept == [(7, "1,0,3"), (8, "1,\\0,3")]


def test_repeated_check_run_replaces_its_results(connection: Connection) -> None:
    run_at = from_us(DAY)
    record_quality_results(connection, "run-1", run_at, [QualityResult("no_gaps", success=False)])
    record_quality_results(
        connection,
        "run-1",
        run_at,
        [
            QualityResult("no_gaps", success=True, observed={"minutes": 1440}),
            QualityResult("no_gaps", success=False, symbol="A", failing_rows=[{"minute": "x"}]),
        ],
    )

    kept = connection.execute(
        "SELECT symbol, success, severity, observed, failing_rows FROM ops.quality_results "
        "ORDER BY symbol NULLS FIRST"
    ).fetchall()
    assert kept == [
        (None, True, "error", {"minutes": 1440}, []),
        ("A", False, "error", {}, [{"minute": "x"}]),
    ]


def test_run_without_time_zone_is_refused(connection: Connection) -> None:
    with pytest.raises(PermanentError, match="time zone"):
        record_quality_results(connection, "run-1", datetime(2026, 1, 1), [])  # noqa: DTZ001
