"""Load each day's dump files as soon as the exchange publishes them."""

from __future__ import annotations

from typing import Any

from airflow.sdk import TriggerRule, dag, task

from dags.support.dump_trigger import WaitForDumps
from dags.support.forms import daily_params, data_interval
from dags.support.policies import CANDLES_1M, DAILY_DAG_ARGS, DEFAULT_ARGS, POOL_REST, job, settings


@dag(
    params=daily_params(),
    **DAILY_DAG_ARGS,
    default_args=DEFAULT_ARGS,
    tags=["market", "history"],
    doc_md="""
### Load daily dumps

Loads the exchange's daily files of 1-minute klines for the day of the run's data interval. Without
*Symbols*, it loads every active symbol: one with rows on that day or in the week before.

- `plan`: lists the files. Adds days of the past week that have not been reconciled completely, so
  that the next run makes up for one that did not happen.
- `wait`: waits for the files in the triggerer, without occupying a worker: at most 18 hours after
  the end of the day.
- `load`: loads one file. Each mapped task is labelled with its symbol and day.
- `summarise`: adds up the results and triggers `build_marts` and `check_quality`.

**Schedule**: daily, for whole UTC days. For earlier days run `airflow backfill create --dag-id
load_daily_dumps --from-date … --to-date …`. **Pool**: `binance_rest`.

**Running it again** is always safe. Writes are idempotent and concurrent runs do not interfere.

**When it fails**: open the log of the failed task. A file that is late, truncated or has a wrong
checksum does not fail the run: it is recorded in `ops.dump_files`, the minutes come from REST, and
a later run loads the file.
""",
)
def load_daily_dumps() -> None:
    @task
    @job
    def plan(params: Any = None, dag_run: Any = None) -> Any:
        from include.jobs.klines.daily import plan_dumps

        return plan_dumps(
            settings=settings(),
            symbols=params["symbols"],
            market=params["market"],
            **data_interval(dag_run),
        )

    @task(
        pool=POOL_REST,
        map_index_template="{{ task.op_kwargs['group']['label'] }}",
    )
    @job
    def load(group: Any) -> Any:
        from include.jobs.klines.daily import load_days

        return load_days(settings=settings(), group=group)

    @task(outlets=[CANDLES_1M], trigger_rule=TriggerRule.NONE_FAILED)
    @job(emits=CANDLES_1M)
    def summarise(counts: Any) -> Any:
        from include.jobs.klines.backfill import summarise

        return summarise(counts=counts)

    planned = plan()
    loaded = load.expand(group=planned)
    WaitForDumps(task_id="wait", plan=planned) >> loaded
    summarise(loaded)


load_daily_dumps()
