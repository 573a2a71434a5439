"""Results of old checks are removed; the evidence of failures stays."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg

from include.store.ledgers.files import QualityResult
from include.store.ledgers.quality_runs import QualityRun, record_quality_run
from include.store.storage.retention import prune_quality_results

Connection = psycopg.Connection[Any]
OLD = datetime(2026, 8, 1, tzinfo=UTC)
BEFORE = datetime(2026, 8, 23, tzinfo=UTC)


def record(connection: Connection, at: datetime, *verdicts: tuple[str, bool]) -> None:
    results = [QualityResult(name, success) for name, success in verdicts]
    run = QualityRun(f"run {at}", at, "all", None, at, True, 1, 2, 3, 4, None)
    record_quality_run(connection, run, results)


def stored_results(connection: Connection) -> list[tuple[datetime, str, bool]]:
    return connection.execute(
        "SELECT run_at, check_name, success FROM ops.quality_results ORDER BY 1, 2"
    ).fetchall()


def test_old_successes_are_deleted_and_first_and_last_failures_of_a_day_stay(
    connection: Connection,
) -> None:
    for minute in range(0, 50, 5):
        at = OLD + timedelta(minutes=minute)
        record(connection, at, ("a", minute % 10 == 0), ("b", True), ("c", minute != 20))
    record(connection, OLD + timedelta(days=1), ("a", False))
    record(connection, BEFORE, ("a", True), ("b", False))

    with connection.transaction():
        connection.execute("SET LOCAL ROLE candelabra_jobs")
        removed = prune_quality_results(connection, before=BEFORE)

    assert stored_results(connection) == [
        (OLD + timedelta(minutes=5), "a", False),
        (OLD + timedelta(minutes=20), "c", False),
        (OLD + timedelta(minutes=45), "a", False),
        (OLD + timedelta(days=1), "a", False),
        (BEFORE, "a", True),
        (BEFORE, "b", False),
    ]
    assert removed == 33 - 6
    # Runs with a remaining result, and new ones, stay with them.
    left = {f"run {at}" for at, _, _ in stored_results(connection)}
    runs = connection.execute("SELECT run_id FROM ops.quality_runs").fetchall()
    assert {run_id for (run_id,) in runs} == left
    assert prune_quality_results(connection, before=BEFORE) == 0
