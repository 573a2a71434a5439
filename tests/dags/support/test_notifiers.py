"""Notifiers turn an Airflow context into the fields of an alert."""

from __future__ import annotations

from datetime import UTC, datetime
from types import SimpleNamespace

import pytest

RUN = SimpleNamespace(
    data_interval_start=datetime(2026, 11, 20, tzinfo=UTC),
    data_interval_end=datetime(2026, 11, 21, tzinfo=UTC),
)


@pytest.fixture
def notifiers(policies):
    from dags.support import notifiers

    return notifiers


def task(**fields):
    known = {
        "dag_id": "backfill_history",
        "run_id": "manual__1",
        "task_id": "load",
        "map_index": -1,
        "rendered_map_index": None,
        "try_number": 2,
        "max_tries": 4,
        "log_url": "http://airflow/log",
    }
    return SimpleNamespace(**(known | fields))


def test_task_alert_has_piece_try_and_error(notifiers):
    context = {
        "ti": task(map_index=3, rendered_map_index="BTCUSDT 2024-01"),
        "exception": KeyError("gone"),
        "dag_run": RUN,
    }
    assert notifiers.TaskFailed().alert(context) == {
        "event": "task_failed",
        "dag_id": "backfill_history",
        "run_id": "manual__1",
        "task_id": "load",
        "map_index_label": "BTCUSDT 2024-01",
        "try_number": 2,
        "max_tries": 5,
        "error_class": "KeyError",
        "error": "'gone'",
        "log_url": "http://airflow/log",
        "data_interval_start": RUN.data_interval_start,
        "data_interval_end": RUN.data_interval_end,
    }


def test_alert_of_a_killed_task_has_no_error(notifiers):
    told = notifiers.TaskFailed().alert({"ti": task()})
    assert (told["error_class"], told["error"], told["map_index_label"]) == ("", "", "")
    assert told["data_interval_start"] is None


@pytest.mark.parametrize(
    ("reason", "event"), [("timed_out", "run_timed_out"), ("task_failure", "run_failed")]
)
def test_run_alert_has_reason_and_link(notifiers, monkeypatch, reason, event):
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", "http://airflow:8080/")
    context = {
        "dag": SimpleNamespace(dag_id="build_marts"),
        "run_id": "scheduled__2026-11-21T00:00:00+00:00",
        "reason": reason,
    }
    told = notifiers.RunFailed().alert(context)
    assert (told["event"], told["error"]) == (event, reason)
    assert told["log_url"] == (
        "http://airflow:8080/dags/build_marts/runs/scheduled__2026-11-21T00%3A00%3A00%2B00%3A00"
    )


def test_notifier_does_nothing_without_a_webhook(notifiers, monkeypatch):
    monkeypatch.delenv("ALERT_WEBHOOK_URL", raising=False)
    notifiers.TaskFailed().notify({})
