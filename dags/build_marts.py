"""Build the marts: one dbt build for each layer, whatever changed since the last one."""

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

# A task a model would cost 40 s of overhead each run. Layers and their tests are the selectors of
# dbt_project/selectors.yml.
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
### Marts

Rolls the minutes up to every interval of the exchange, and builds what is made of them: indicators,
levels, what trades tell, and the state of the data. Only bars whose minutes changed are built anew:
the change log in `ops.candle_changes` is the work list, each mart keeps its place in
`ops.build_cursors`, and a run with nothing to do takes seconds.

**Schedule** every five minutes, and at once when a load has ended (asset `market.candles_1m`);
one run at a time. **Pool** `dbt`, one slot, for all that writes. **Tasks** one `dbt build` a
layer, tests included; `health` is built though other layers fail; beside them `freshness` (`dbt
source freshness`), which holds no layer up; at the end `docs`, once a day and when the project
changed.

**When it fails** readers keep the bars of the run before. The log names the model or test; rows
that break a test lie in the schema `marts_audit`. The next run starts from the same cursor, so
nothing is lost by a failure. A red `freshness` names the source that nobody writes any more, and
leaves the run green. To build a mart from nothing, trigger with the param `full_refresh`.
""",
    params={"full_refresh": False},
)
def build_marts() -> None:
    intraday, days, analytics, health = (
        DbtBuildLocalOperator(
            task_id=layer,
            selector=layer,
            # What an operator looks at is needed most when something else failed.
            trigger_rule=TriggerRule.ALL_DONE if layer == "health" else TriggerRule.ALL_SUCCESS,
            # Unit tests are about the models' code, which no new candle changes.
            dbt_cmd_flags=["--exclude-resource-type", "unit_test"],
            full_refresh="{{ params.full_refresh }}",
            # The rendered fields would be written again after the run, with the password.
            should_store_compiled_sql=False,
            pool=POOL_DBT,
            **DBT_ARGS,
        )
        for layer in LAYERS
    )
    # The last task follows every layer, so that the failure of any is that of the run.
    docs = DbtDocs(task_id="docs", pool=POOL_DBT, **DBT_ARGS)
    chain(intraday, days, [analytics, health], docs)
    # It writes nothing: it waits for no build, and no build for it. The failure of a teardown is
    # its own: a source that nobody writes any more says nothing against the marts of the others.
    DbtSourceLocalOperator(
        task_id="freshness",
        should_store_compiled_sql=False,
        retries=1,
        retry_delay=timedelta(seconds=1),
        **DBT_ARGS,
    ).as_teardown()


build_marts()
