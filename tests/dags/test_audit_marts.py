"""The DAG compares months in turns, and fails with the names of bars that differ."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

import pytest

from include.domain.candles import Candle, CandleCandidate, Source, Status
from include.domain.timeframes import to_us
from include.store.candles.minutes import merge_candidates
from include.store.postgres.pools import connect

START = datetime(2024, 3, 1, tzinfo=UTC)
NO_BARS = """
CREATE TABLE marts.candles_1mo (symbol text, open_time timestamptz);
GRANT SELECT ON marts.candles_1mo TO candelabra_jobs;
CREATE FUNCTION marts.differing_bars(text, timestamptz, timestamptz) RETURNS TABLE (
    timeframe text, open_time timestamptz, next_open_time timestamptz, stored jsonb, expected jsonb
) LANGUAGE sql AS $$
    SELECT '1d', $2, $2 + interval '1 day', '{"close": 2}'::jsonb, '{"close": 1}'::jsonb
    WHERE {condition}
$$
"""
"""Stands in for dbt's function, which tests/integration/dbt runs."""


@pytest.fixture
def audit(database_url, dag_bag, airflow_database, monkeypatch):
    monkeypatch.setenv("DATABASE_URL", database_url)
    candle = Candle(
        "BTCUSDT", to_us(START), *(Decimal(1),) * 4, Decimal(1), Decimal(1), 1, Decimal(0),
        Decimal(0),
    )  # fmt: skip
    with connect(database_url, application_name="test") as connection:
        merge_candidates(
            connection,
            [
                CandleCandidate(
                    candle, Status.VERIFIED, Source.REST, evidence_at_us=to_us(START) + 10**9
                )
            ],
        )

    def run(condition):
        if condition:
            with connect(database_url, application_name="test") as connection:
                connection.execute(NO_BARS.replace("{condition}", condition))
        return dag_bag.dags["audit_marts"].test()

    return run


def audits(database_url):
    with connect(database_url, application_name="test") as connection:
        return connection.execute(
            "SELECT symbol, month, differing_bars FROM ops.mart_audits"
        ).fetchall()


def test_equal_marts_pass_and_are_recorded(audit, database_url):
    assert audit("false").state == "success"
    assert audits(database_url) == [("BTCUSDT", START, 0)]


def test_differing_bar_fails_the_run_and_is_logged_as_changed(audit, database_url, capfd):
    assert audit("true").state == "failed"
    assert audits(database_url) == [("BTCUSDT", START, 1)]
    log = "".join(capfd.readouterr())
    assert "bar_differed" in log
    assert "BTCUSDT 1d 2024-03-01T00:00Z" in log
    with connect(database_url, application_name="test") as connection:
        (changed,) = connection.execute(
            "SELECT upper(minutes) FROM ops.candle_changes ORDER BY changed_by DESC LIMIT 1"
        ).fetchone()
    assert changed == datetime(2024, 3, 2, tzinfo=UTC)


def test_database_without_marts_passes(audit, database_url):
    assert audit(None).state == "success"
    assert audits(database_url) == []
