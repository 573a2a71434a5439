"""The DAG creates partitions, archives old days and prunes old results."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from include.config import load_settings
from include.domain.timeframes import to_us
from include.jobs.storage.archive import list_days, verify_day
from include.store.ledgers.files import QualityResult, record_quality_results
from include.store.postgres.pools import connect
from include.store.trades.captured import AGG_TRADES, write_raw

NIGHT = datetime(2026, 11, 21, 2, 40, tzinfo=UTC)


@pytest.fixture
def maintain(database_url, dag_bag, airflow_database, tmp_path, monkeypatch):
    for name, value in {
        "DATABASE_URL": database_url,
        "CANDELABRA_HOME": str(tmp_path),
        "RAW_RETENTION_DAYS": "2",
    }.items():
        monkeypatch.setenv(name, value)
    return lambda: dag_bag.dags["maintain_storage"].test(run_after=NIGHT, logical_date=NIGHT)


def test_run_creates_partitions_archives_old_days_and_prunes_results(maintain, database_url):
    with connect(database_url, application_name="test") as connection:
        for days in range(4):
            at_us = to_us(NIGHT - timedelta(days=days, hours=1))
            row = ("A", days + 1, Decimal(1), Decimal(2), days, days, at_us, True)
            write_raw(connection, AGG_TRADES, [AGG_TRADES.line(row)])
        old = NIGHT - timedelta(days=100)
        record_quality_results(connection, "old", old, [QualityResult("a", True)])

    run = maintain()

    assert run.state == "success"
    settings = load_settings()
    (archived,) = list_days(settings=settings)
    assert (str(archived.day), verify_day(settings=settings, archived=archived).rows) == (
        "2026-11-18",
        1,
    )
    with connect(database_url, application_name="test") as connection:
        names = {
            name
            for (name,) in connection.execute(
                "SELECT relname FROM pg_class WHERE relispartition AND relkind = 'r'"
            )
        }
        left = connection.execute("SELECT count(*) FROM ops.quality_results").fetchone()
    assert names == {"candles_1m_y2026m11", "candles_1m_y2026m12", "candles_1m_y2027m01"} | {
        f"agg_trades_y2026m11d{day}" for day in range(19, 29)
    }
    assert left == (0,)
