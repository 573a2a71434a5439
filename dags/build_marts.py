"""Build the marts that changed since the last run, with one dbt build for each layer."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from airflow.sdk import AssetOrTimeSchedule, CronTriggerTimetable, TriggerRule, chain, dag
from cosmos.config import ProfileConfig
from cosmos.constants import InvocationMode
from cosmos.operators.local import DbtBuildLocalOperator, DbtSourceLocalOperator

from dags.support.dbt_operators import DBT_CACHE, DbtDocs, connect_dbt
from dags.support.policies import CANDLES_1M, DAG_ARGS, DEFAULT_ARGS, POOL_DBT

PROJECT = Path(__file__).parents[1] / "dbt_project"
PROFILE = ProfileConfig(
    profile_name="candelabra",
    target_name="prod",
    profiles_yml_filepath=PROJECT / "profiles.yml",
)

DBT_ARGS: dict[str, Any] = {
    "project_dir": str(PROJECT),
    "profile_config": PROFILE,
    "invocation_mode": InvocationMode.DBT_RUNNER,
    "install_deps": False,
    "dbt_cmd_global_flags": ["--no-use-colors"],
    "interceptors": [connect_dbt],
    "emit_datasets": False,
    "cache_dir": DBT_CACHE,
}

# One task for each model would add 40 s of overhead to every run. dbt_project/selectors.yml defines
# the layers and their tests.
LAYERS = ("intraday", "days", "analytics", "health")


@dag(
    schedule=AssetOrTimeSchedule(
        timetable=CronTriggerTimetable("*/5 * * * *", timezone="UTC"), assets=[CANDLES_1M]
    ),
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    max_active_runs=1,
    dagrun_timeout=timedelta(hours=6),
    **DAG_ARGS,
    default_args=DEFAULT_ARGS | {"retries": 2, "execution_timeout": timedelta(hours=3)},
    tags=["marts", "dbt"],
    doc_md="""
### Build marts

Rolls 1-minute candles up to every interval of the exchange and builds what depends on them:
indicators, price levels, trade statistics and data health. The build is incremental. The change
log `ops.candle_changes` lists the minutes that changed, and `ops.build_cursors` stores how far
each mart has read it. A run without changes takes seconds.

- `intraday`: bars from 3m to 12h.
- `days`: bars of 1d, 3d, 1w and 1M, and the views.
- `analytics`: indicators, levels and trade statistics.
- `health`: state of the data. Runs even if an earlier layer failed.
- `freshness`: reports sources that receive no more rows (`dbt source freshness`). Does not affect
  the run's state.
- `docs`: writes the dbt documentation, once a day and after a change to the project. Skipped
  otherwise.

Each layer is one `dbt build`, tests included.

**Schedule**: every five minutes and after each load (asset `market.candles_1m`); one run at a
time.
**Pool**: `dbt` with one slot, for all tasks that write.
**Parameter**: `full_refresh` rebuilds every mart from scratch.

**When it fails**: readers keep the bars of the previous run, and the next run resumes from the
same cursor, so no change is lost. The log names the failed model or test. Rows that violate a test
are in the schema `marts_audit`.
""",
    params={"full_refresh": False},
)
def build_marts() -> None:
    intraday, days, analytics, health = (
        DbtBuildLocalOperator(
            task_id=layer,
            selector=layer,
            # Operators need the health marts most when another layer has failed.
            trigger_rule=TriggerRule.ALL_DONE if layer == "health" else TriggerRule.ALL_SUCCESS,
            # Unit tests check the models' code, which new candles do not change.
            dbt_cmd_flags=["--exclude-resource-type", "unit_test"],
            full_refresh="{{ params.full_refresh }}",
            # Storing the SQL would write the rendered fields again, with the password in them.
            should_store_compiled_sql=False,
            pool=POOL_DBT,
            **DBT_ARGS,
        )
        for layer in LAYERS
    )
    # `docs` is downstream of every layer, so a failed layer fails the run.
    docs = DbtDocs(task_id="docs", pool=POOL_DBT, **DBT_ARGS)
    chain(intraday, days, [analytics, health], docs)
    # Read-only, so independent of the builds. As a teardown it cannot fail the run: a stale source
    # does not invalidate the marts of the others.
    DbtSourceLocalOperator(
        task_id="freshness",
        should_store_compiled_sql=False,
        retries=1,
        retry_delay=timedelta(seconds=1),
        **DBT_ARGS,
    ).as_teardown()


build_marts()
