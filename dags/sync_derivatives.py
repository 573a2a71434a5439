"""Load derivative series of futures: hourly what is new, or the history of chosen symbols."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.sdk import CronTriggerTimetable, Param, TriggerRule, dag, task

from dags.support.forms import OPTIONAL_SYMBOLS, span_params, window
from dags.support.policies import DAG_ARGS, DEFAULT_ARGS, POOL_REST, job, settings

PARAMS = {
    "symbols": Param(
        "",
        type="string",
        pattern=OPTIONAL_SYMBOLS,
        title="Symbols",
        description=(
            "Comma-separated futures: `BTCUSDT.P, BTCUSD_PERP`. Empty: what is new of every symbol "
            "and series that was ever loaded."
        ),
    ),
    "market": Param(
        "um",
        type="string",
        enum=["um", "cm"],
        values_display={"um": "USD-M futures", "cm": "COIN-M futures"},
        title="Market",
        description="Market of symbols without a suffix.",
    ),
    **span_params("load", default=None),
    "series": Param(
        "",
        type="string",
        title="Series",
        description=(
            "Comma-separated: funding, mark, index, premium, open_interest, ratios. Empty: all."
        ),
    ),
}


@dag(
    schedule=CronTriggerTimetable("10 * * * *", timezone="UTC"),
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    params=PARAMS,
    max_active_tasks=2,  # leaves one pool slot to repair_gaps and sync_instruments
    max_active_runs=2,  # a long load beside the hourly run
    dagrun_timeout=timedelta(days=2),
    **DAG_ARGS,
    default_args=DEFAULT_ARGS,
    tags=["market", "history"],
    doc_md="""
### Sync derivatives

Loads derivative series of futures: funding rates, mark, index and premium index prices of each
minute, open interest and ratios of traders.

- Hourly, it loads what is new of each symbol and series that was ever loaded: new rows by REST, and
  files of the last five weeks that were published since, for the first time or again.
- To load the history of symbols, press *Trigger* and fill in the form. Without *From*, it loads the
  history of the files.

The tasks are `plan` (what no source was asked for, and the source of each part), `load` (a group of
pieces: monthly files, daily files, or ranges by REST) and `summarise`.

**Schedule**: hourly, at minute 10, after the settlements of the hour. **Pool**: `binance_rest`; a
run uses two of its slots at most.

**Running it again** is always safe, and loads only what is still missing.

**When it fails**: open the log of the failed task, which names the file or the request. The next
run loads what is still missing.
""",
)
def sync_derivatives() -> None:
    @task
    @job
    def plan(params: Any = None, dag_run: Any = None) -> Any:
        from include.jobs.derivatives.backfill import plan_series_groups

        return plan_series_groups(
            settings=settings(),
            symbols=params["symbols"],
            market=params["market"],
            series=params["series"],
            **window(params, now=dag_run.run_after, days=None),
        )

    @task(
        pool=POOL_REST,
        execution_timeout=timedelta(hours=4),
        map_index_template="{{ task.op_kwargs['group']['label'] }}",
    )
    @job
    def load(group: Any) -> Any:
        from include.jobs.derivatives.backfill import load_series_group

        return load_series_group(settings=settings(), group=group)

    @task(trigger_rule=TriggerRule.NONE_FAILED)
    @job
    def summarise(counts: Any) -> Any:
        from include.jobs.klines.pieces import summarise

        return summarise(counts=counts)

    summarise(load.expand(group=plan()))


sync_derivatives()
