"""Properties that all DAGs share, and how each is scheduled."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DAGS = [
    "audit_marts", "backfill_history", "build_marts", "check_everything", "check_quality",
    "import_files", "load_daily_dumps", "maintain_storage", "reconcile_candles", "repair_gaps",
    "sync_derivatives", "sync_instruments",
]  # fmt: skip
EVERY_FIVE_MINUTES = "*/5 * * * *"


def _each(callbacks):
    return callbacks if isinstance(callbacks, (list, tuple)) else [callbacks]


def test_every_dag_file_parses(dag_bag):
    assert dag_bag.import_errors == {}
    assert sorted(dag_bag.dags) == DAGS


def test_dag_files_import_nothing_heavy(airflow_home):
    """The DAG processor parses each file every minute."""
    code = (
        f"import sys, {', '.join(f'dags.{name}' for name in DAGS)};"
        "print([name for name in ('polars', 'psycopg', 'great_expectations', 'dbt', 'include')"
        " if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("dag_id", DAGS)
def test_every_dag_has_documentation_and_a_timeout(dag_bag, dag_id):
    dag = dag_bag.dags[dag_id]
    assert len(dag.doc_md) > 200
    assert "When it fails" in dag.doc_md
    assert dag.tags
    assert dag.catchup is False
    assert dag.dagrun_timeout <= timedelta(days=2)


@pytest.mark.parametrize("dag_id", DAGS)
def test_every_dag_and_task_sends_alerts(dag_bag, dag_id):
    from dags.support.notifiers import RunFailed, TaskFailed

    dag = dag_bag.dags[dag_id]
    assert [type(callback) for callback in _each(dag.on_failure_callback)] == [RunFailed]
    for task in dag.tasks:
        assert [type(callback) for callback in _each(task.on_failure_callback)] == [TaskFailed]


@pytest.mark.parametrize("dag_id", DAGS)
def test_every_task_has_owner_timeout_and_retry_policy(dag_bag, policies, dag_id):
    for task in dag_bag.dags[dag_id].tasks:
        assert task.owner == "candelabra"
        assert task.retries > 0
        assert task.retry_exponential_backoff > 1
        assert task.max_retry_delay <= timedelta(minutes=10)
        assert isinstance(task.retry_policy, policies.RetryTransient)
        assert task.execution_timeout <= dag_bag.dags[dag_id].dagrun_timeout


@pytest.mark.parametrize("dag_id", DAGS)
def test_every_dag_param_and_task_is_documented(dag_bag, dag_id):
    text = (ROOT / "docs" / "airflow.md").read_text()
    assert f"## {dag_id}" in text
    section = text.split(f"## {dag_id}")[1].split("\n## ")[0]
    for name in dag_bag.dags[dag_id].params:
        assert f"`{name}`" in section
    for task in dag_bag.dags[dag_id].tasks:
        assert f"`{task.task_id}`" in section


def test_used_pools_are_defined(dag_bag):
    defined = set(json.loads((ROOT / "dags" / "support" / "pools.json").read_text()))
    used = {task.pool for dag in dag_bag.dags.values() for task in dag.tasks} - {"default_pool"}
    assert used == defined


def test_backfill_history_has_no_schedule(dag_bag):
    assert dag_bag.dags["backfill_history"].timetable.can_be_scheduled is False


def test_sync_instruments_runs_daily_at_00_15(dag_bag):
    from airflow.sdk import CronDataIntervalTimetable

    timetable = dag_bag.dags["sync_instruments"].timetable
    # A plain cron string would make data intervals without length.
    assert isinstance(timetable, CronDataIntervalTimetable)
    assert timetable.expression == "15 0 * * *"


@pytest.mark.parametrize("dag_id", ["load_daily_dumps", "reconcile_candles"])
def test_daily_dags_run_after_midnight_and_wait_outside_the_pool(dag_bag, policies, dag_id):
    from airflow.sdk import CronDataIntervalTimetable

    dag = dag_bag.dags[dag_id]
    assert isinstance(dag.timetable, CronDataIntervalTimetable)
    assert dag.timetable.expression == "0 0 * * *"
    assert dag.get_task("wait").pool == "default_pool"  # deferring frees the slot
    (asking,) = [task for task in dag.tasks if task.is_mapped]
    assert asking.pool == policies.POOL_REST
    assert {task.task_id for task in asking.upstream_list} == {"plan", "wait"}


def test_import_files_is_continuous_and_one_rejected_file_blocks_no_other(dag_bag):
    from airflow.sdk import TriggerRule

    dag = dag_bag.dags["import_files"]
    assert type(dag.timetable).__name__ == "ContinuousTimetable"
    assert dag.max_active_runs == 1
    (load,) = [task for task in dag.tasks if task.is_mapped]
    assert {task.task_id for task in load.upstream_list} == {"wait"}
    summarise = dag.get_task("summarise")
    assert {task.task_id for task in summarise.upstream_list} == {"load"}
    # without a loaded file nothing downstream is triggered
    assert summarise.trigger_rule == TriggerRule.ALL_DONE_MIN_ONE_SUCCESS


@pytest.mark.parametrize("dag_id", ["build_marts", "check_quality"])
def test_consumers_run_by_clock_and_by_asset_one_at_a_time(dag_bag, policies, dag_id):
    from airflow.sdk import AssetOrTimeSchedule

    dag = dag_bag.dags[dag_id]
    assert isinstance(dag.timetable, AssetOrTimeSchedule)
    assert dag.timetable.timetable.expression == EVERY_FIVE_MINUTES
    assets = [asset.name for asset in dag.timetable.asset_condition.objects]
    assert assets == [policies.CANDLES_1M.name]
    assert dag.max_active_runs == 1


@pytest.mark.parametrize(
    ("name", "schedule"), [("check_everything", "20 3 * * *"), ("audit_marts", "35 * * * *")]
)
def test_checks_of_everything_run_one_at_a_time(dag_bag, name, schedule):
    from airflow.sdk import CronTriggerTimetable

    dag = dag_bag.dags[name]
    assert isinstance(dag.timetable, CronTriggerTimetable)
    assert dag.timetable.expression == schedule
    assert dag.max_active_runs == 1


def test_repair_gaps_runs_one_at_a_time_in_the_exchange_pool(dag_bag, policies):
    from airflow.sdk import CronTriggerTimetable

    dag = dag_bag.dags["repair_gaps"]
    assert isinstance(dag.timetable, CronTriggerTimetable)
    assert dag.timetable.expression == EVERY_FIVE_MINUTES
    assert dag.max_active_runs == 1
    assert [task.pool for task in dag.tasks] == [policies.POOL_REST]


def test_maintain_storage_runs_nightly_with_independent_tasks(dag_bag):
    from airflow.sdk import CronTriggerTimetable

    dag = dag_bag.dags["maintain_storage"]
    assert isinstance(dag.timetable, CronTriggerTimetable)
    assert dag.timetable.expression == "40 2 * * *"
    assert dag.max_active_runs == 1
    # A failed archive does not affect the other tasks.
    assert all(not task.downstream_list for task in dag.tasks)


def test_only_the_last_task_of_a_load_updates_the_asset(dag_bag):
    outlets = {
        (dag.dag_id, task.task_id): [asset.name for asset in task.outlets]
        for dag in dag_bag.dags.values()
        for task in dag.tasks
        if task.outlets
    }
    last = {
        "backfill_history": "summarise",
        "import_files": "summarise",
        "load_daily_dumps": "summarise",
        "reconcile_candles": "report",
    }
    assert outlets == {one: ["market.candles_1m"] for one in last.items()}
    for dag_id, task_id in last.items():
        task = dag_bag.dags[dag_id].get_task(task_id)
        assert task.downstream_list == []
        assert not task.is_mapped  # one asset event for each run


def test_marts_are_built_layer_by_layer(dag_bag):
    from airflow.sdk import TriggerRule

    dag = dag_bag.dags["build_marts"]
    layers = {
        "intraday": {"days"},
        "days": {"analytics", "health"},
        "analytics": {"docs"},
        "health": {"docs"},
    }
    for task_id, following in layers.items():
        task = dag.get_task(task_id)
        assert type(task).__name__ == "DbtBuildLocalOperator"
        assert task.selector == task_id
        assert task.downstream_task_ids == following
        assert task.pool == "dbt"
        # health is built even if another layer failed
        rule = TriggerRule.ALL_DONE if task_id == "health" else TriggerRule.ALL_SUCCESS
        assert task.trigger_rule == rule
    assert dag.get_task("docs").trigger_rule == TriggerRule.ALL_SUCCESS
    assert {task.task_id for task in dag.tasks} == {*layers, "docs", "freshness"}
    for task in dag.tasks:
        assert task.install_deps is False
        assert task.env is None


def test_stale_source_delays_no_layer(dag_bag):
    freshness = dag_bag.dags["build_marts"].get_task("freshness")
    assert type(freshness).__name__ == "DbtSourceLocalOperator"
    assert (freshness.upstream_task_ids, freshness.downstream_task_ids) == (set(), set())
    assert freshness.pool == "default_pool"  # the builds' pool has one slot
    assert freshness.is_teardown  # its failure does not fail the run
    assert not freshness.on_failure_fail_dagrun


def test_backfill_form_rejects_invalid_values(dag_bag):
    from airflow.sdk.exceptions import ParamValidationError

    def resolve(name, *value):
        # copied, because a Param stores the last value that it resolved
        return copy.copy(dag_bag.dags["backfill_history"].params.get_param(name)).resolve(*value)

    for name, wrong in [
        ("symbols", ""),
        ("symbols", "BTCUSDT,,ETHUSDT"),
        ("market", "options"),
        ("from", "yesterday"),
        ("to", 5),
    ]:
        with pytest.raises(ParamValidationError):
            resolve(name, wrong)
    for name, right in [
        ("symbols", "BTCUSDT, ETHUSDT"),
        ("from", "2024-01-01"),
        ("from", "2024-01-01T08:00:00.000+02:00"),
        ("to", "2024-01-01T00:00:00Z"),
    ]:
        assert resolve(name, right) == right
    assert (resolve("market"), resolve("from"), resolve("to")) == ("spot", None, None)
    with pytest.raises(ParamValidationError, match="no default"):
        resolve("symbols")


def test_every_file_beside_the_support_folder_is_a_dag(dag_bag):
    files = {Path(dag.fileloc).name for dag in dag_bag.dags.values()}
    python = {file.name for file in (ROOT / "dags").glob("*.py")}
    assert python - files == {"__init__.py"}
