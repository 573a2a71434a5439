"""Build the marts: one dbt build for each layer, whatever changed since the last one."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

from airflow.sdk import AssetOrTimeSchedule, CronTriggerTimetable, chain, dag
from cosmos.config import ProfileConfig
from cosmos.constants import InvocationMode
from cosmos.operators.local import DbtBuildLocalOperator

from dags.policies import CANDLES_1M, DAG_ARGS, DBT_CACHE, DEFAULT_ARGS, POOL_DBT, connect_dbt

PROJECT = Path(__file__).parents[1] / "dbt_project"
PROFILE = ProfileConfig(
    profile_name="candelabra",
    target_name="prod",
    profiles_yml_filepath=PROJECT / "profiles.yml",
)

# A task a model would cost 40 s of overhead each run, a task a layer 16 s. A data test that
# compares marts of two layers belongs to the later one: "buildable" leaves it out of the earlier.
LAYERS = {
    "intraday": {
        "select": "path:models/staging tag:intraday",
        "indirect_selection": "buildable",
    },
    "days": {"select": "tag:days candles instruments_history"},
}


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

Rolls the minutes up to every interval of the exchange. Only bars whose minutes changed are built
anew: the change log in `ops.candle_changes` is the work list, each mart keeps its place in
`ops.build_cursors`, and a run with nothing to do takes seconds.

**Schedule** every five minutes, and at once when a load has ended (asset `market.candles_1m`);
one run at a time. **Pool** `dbt`, one slot. **Tasks** one `dbt build` a layer, tests included.

**When it fails** readers keep the bars of the run before. The log names the model or test; rows
that break a test lie in the schema `marts_audit`. The next run starts from the same cursor, so
nothing is lost by a failure. To build a mart from nothing, trigger with the param `full_refresh`.
""",
    params={"full_refresh": False},
)
def build_marts() -> None:
    chain(
        *(
            DbtBuildLocalOperator(
                task_id=layer,
                project_dir=str(PROJECT),
                profile_config=PROFILE,
                invocation_mode=InvocationMode.DBT_RUNNER,
                install_deps=False,
                # Unit tests are about the models' code, which no new candle changes.
                dbt_cmd_flags=["--exclude-resource-type", "unit_test"],
                dbt_cmd_global_flags=["--no-use-colors"],
                full_refresh="{{ params.full_refresh }}",
                interceptors=[connect_dbt],
                # The rendered fields would be written again after the run, with the password.
                should_store_compiled_sql=False,
                emit_datasets=False,
                cache_dir=DBT_CACHE,
                pool=POOL_DBT,
                **selection,
            )
            for layer, selection in LAYERS.items()
        )
    )


build_marts()
