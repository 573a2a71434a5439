"""The retry policy."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from include.errors import PermanentError, RateLimitedError, RejectedInputError, TransientError


def decide(policies, error):
    return policies.RetryTransient().evaluate(error, 1, 4)


@pytest.mark.parametrize(
    ("error", "action"),
    [
        (TransientError("database away"), "default"),
        (PermanentError("no such symbol"), "fail"),
        (RejectedInputError("corrupt archive"), "fail"),
        (TypeError("an error of ours"), "fail"),
    ],
)
def test_only_transient_errors_are_retried(policies, error, action):
    assert decide(policies, error).action.value == action


def test_failed_dbt_build_is_retried(policies):
    from cosmos.exceptions import CosmosDbtRunError

    assert decide(policies, CosmosDbtRunError("connection lost")).action.value == "default"


def test_rate_limited_task_waits_as_long_as_the_exchange_asks(policies):
    decision = decide(policies, RateLimitedError("429", retry_after_s=42.0))
    assert decision.action.value == "retry"
    assert decision.retry_delay == timedelta(seconds=43)


def test_plan_that_airflow_cannot_map_is_refused_with_the_setting(policies, monkeypatch):
    monkeypatch.setenv("AIRFLOW__CORE__MAX_MAP_LENGTH", "3")
    planned = policies.job(lambda count: list(range(count)))
    assert planned(3) == [0, 1, 2]
    with pytest.raises(PermanentError, match="AIRFLOW__CORE__MAX_MAP_LENGTH to 4 or more"):
        planned(4)


def test_registry_is_due_at_the_first_start(dag_bag):
    """Its first run is that of the last complete day, not of the next night."""
    from airflow.timetables.base import TimeRestriction
    from airflow.timetables.interval import CronDataIntervalTimetable

    dag = dag_bag.dags["sync_instruments"]
    scheduled = CronDataIntervalTimetable(dag.timetable.expression, timezone="UTC")
    info = scheduled.next_dagrun_info(
        last_automated_data_interval=None,
        restriction=TimeRestriction(dag.start_date, None, catchup=dag.catchup),
    )
    assert info.run_after <= datetime.now(UTC)
