"""Compare each stored day with REST and the dump files, and record the verdict."""

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
    tags=["market", "quality"],
    doc_md="""
### Reconcile candles

Compares, for the day of the run's data interval and each active symbol, what the live path stored
with REST, the daily dump file and, once it is published, the monthly dump file.

- `plan`: groups days and symbols. Adds days of the past week that could not be reconciled
  completely, for example because a file was late.
- `wait`: waits for the daily files in the triggerer, without occupying a worker: at most 18 hours
  after the end of the day.
- `reconcile`: fetches the sources that are still missing and merges them. The most authoritative
  value wins; `ops.discrepancies` keeps the others.
- `report`: lists the verdicts, differing days first, and triggers `build_marts` and
  `check_quality`.

`ops.reconciliations` has one row for each symbol and day: how many minutes each source delivered
and how many of them differ.

**Schedule**: daily, for whole UTC days. For earlier days run `airflow backfill create --dag-id
reconcile_candles …`. **Pool**: `binance_rest`.

**When it fails**: the exchange or the database was unavailable for long, or REST rejected a
symbol. The failed `reconcile` names the days; `report` shows the others and fails too, so that the
run is marked as failed. Clear the failed tasks. A difference between sources is not a failure: the
winner is stored and the verdict is `differs`.
""",
)
def reconcile_candles() -> None:
    @task
    @job
    def plan(params: Any = None, dag_run: Any = None) -> Any:
        from include.jobs.klines.reconcile import plan_reconciliation

        return plan_reconciliation(
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
    def reconcile(group: Any) -> Any:
        from include.jobs.klines.reconcile import reconcile_group

        return reconcile_group(settings=settings(), group=group)

    @task(outlets=[CANDLES_1M], trigger_rule=TriggerRule.ALL_DONE)
    @job(emits=CANDLES_1M)
    def report(groups: Any, results: Any) -> Any:
        from include.jobs.klines.reconcile import report

        return report(settings=settings(), groups=groups, results=results)

    planned = plan()
    reconciled = reconcile.expand(group=planned)
    WaitForDumps(task_id="wait", plan=planned) >> reconciled
    report(planned, reconciled)


reconcile_candles()
