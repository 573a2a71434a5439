"""The daily upkeep, with the jobs' own rights."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest

from include.config import Settings
from include.domain.timeframes import to_us
from include.jobs.storage.archive import list_days
from include.jobs.storage.retention import archive_old_days, make_partitions, prune_ledgers
from include.store.ledgers.files import QualityResult, record_quality_results
from include.store.postgres.pools import connect
from include.store.trades.captured import AGG_TRADES, TRADES, write_raw
from tests.integration.jobs.conftest import as_role

NOW = datetime(2026, 11, 30, 2, 40, tzinfo=UTC)


@pytest.fixture
def settings(database_url: str, tmp_path: Path) -> Settings:
    return Settings(
        jobs_database_url=as_role(database_url, "candelabra_jobs"),
        candelabra_home=tmp_path / "home",
        archive_folder=tmp_path / "elsewhere",
        raw_retention_days=2,
    )


def write(settings: Settings, at: datetime, number: int = 1) -> None:
    with connect(settings.jobs_database_url, application_name="test") as connection:
        row = ("A", number, Decimal(1), Decimal(2), number, number, to_us(at), True)
        write_raw(connection, AGG_TRADES, [AGG_TRADES.line(row)])


def test_next_partitions_are_created_for_candles_and_captured_datasets(
    settings: Settings,
) -> None:
    months = [f"candles_1m_y{month}" for month in ("2026m11", "2026m12", "2027m01")]
    assert make_partitions(settings=settings, now=NOW) == months

    write(settings, NOW - timedelta(days=1))
    with connect(settings.jobs_database_url, application_name="test") as connection:
        old = TRADES.line(("A", 1, Decimal(1), Decimal(2), None, to_us(NOW) - 10**12, True))
        write_raw(connection, TRADES, [old])
    made = make_partitions(settings=settings, now=NOW)

    december = [f"agg_trades_y2026m12d{day:02}" for day in range(1, 8)]
    assert made == ["agg_trades_y2026m11d30", *december]
    assert make_partitions(settings=settings, now=NOW) == []


def test_days_older_than_the_setting_are_archived_to_the_configured_folder(
    settings: Settings,
) -> None:
    for days in range(4):
        write(settings, NOW - timedelta(days=days), days + 1)

    done = archive_old_days(settings=settings, now=NOW)

    assert (done.archived, done.dropped, done.rows) == (1, 1, 1)
    assert [str(entry.day) for entry in list_days(settings=settings)] == ["2026-11-27"]
    file = settings.archive / "agg_trades" / "day=2026-11-27" / "agg_trades.parquet"
    assert file.parent.parent.parent == settings.archive_folder
    assert file.is_file()


def test_old_results_of_passed_checks_are_removed(settings: Settings) -> None:
    with connect(settings.jobs_database_url, application_name="test") as connection:
        for days in (89, 90, 91):
            at = NOW - timedelta(days=days)
            record_quality_results(connection, str(days), at, [QualityResult("a", True)])

    assert prune_ledgers(settings=settings, now=NOW).quality_results == 1
