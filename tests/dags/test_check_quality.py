"""The DAG checks real rows, stores the results and names a violated rule."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime
from decimal import Decimal

import psycopg
import pytest

from include.domain.candles import Candle, CandleCandidate, Source, Status
from include.domain.timeframes import MINUTE_US, to_us
from include.store.candles.minutes import merge_candidates
from include.store.postgres.pools import connect

START = datetime(2024, 3, 1, tzinfo=UTC)
WINDOW = {"from": "2024-03-01", "to": "2024-03-01T00:20"}


def candidates(*minutes: int) -> list[CandleCandidate]:
    candle = Candle(
        "BTCUSDT",
        to_us(START),
        *(Decimal(100),) * 4,
        Decimal(1),
        Decimal(100),
        1,
        Decimal(0),
        Decimal(0),
    )
    return [
        CandleCandidate(
            dataclasses.replace(candle, open_time_us=to_us(START) + minute * MINUTE_US),
            Status.VERIFIED,
            Source.REST,
            evidence_at_us=to_us(START) + 100 * MINUTE_US,
        )
        for minute in minutes
    ]


@pytest.fixture
def check(database_url, dag_bag, airflow_database, monkeypatch):
    monkeypatch.setenv("DATABASE_URL", database_url)

    def run(stored):
        with connect(database_url, application_name="test") as connection:
            merge_candidates(connection, stored)
        done = dag_bag.dags["check_quality"].test(run_conf=WINDOW)
        with psycopg.connect(database_url) as connection:
            verdicts = connection.execute(
                "SELECT check_name, bool_and(success) FROM ops.quality_results"
                " WHERE run_id = %s GROUP BY check_name",
                (done.run_id,),
            ).fetchall()
        return done, dict(verdicts)

    return run


def test_correct_candles_pass_and_results_are_stored(check):
    run, verdicts = check(candidates(*range(20)))
    assert run.state == "success"
    assert len(verdicts) > 5
    assert all(verdicts.values())


def test_missing_minute_fails_the_run_without_retry_and_is_named(check, capfd):
    run, verdicts = check(candidates(*range(4), *range(5, 20)))
    assert run.state == "failed"
    assert run.get_task_instance("check").try_number == 1
    assert [name for name, success in verdicts.items() if not success] == ["no_minute_is_missing"]
    assert "2024-03-01 00:04" in "".join(capfd.readouterr())
