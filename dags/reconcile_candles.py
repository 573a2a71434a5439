"""Compare each day between the live path, REST and the dump files, and keep the verdict."""

from __future__ import annotations

from typing import Any

from airflow.sdk import TriggerRule, dag, task

from dags.support.dump_trigger import WaitForDumps
from dags.support.forms import data_interval, kept_symbols_params
from dags.support.policies import CANDLES_1M, DAILY_DAG_ARGS, DEFAULT_ARGS, POOL_REST, job, settings


@dag(
    params=kept_symbols_params(),
    **DAILY_DAG_ARGS,
    default_args=DEFAULT_ARGS,
    tags=["market", "quality"],
    doc_md="""
### Reconciliation

For the day of the run's data interval and each symbol that is kept up: what the live path told,
REST's klines of the whole day, the daily dump file, and the monthly one once it is published. Who
has not spoken yet is asked; what they say is merged, so the greatest evidence wins and every loser
is kept in `ops.discrepancies`. One row a symbol and day in `ops.reconciliations` says who spoke
about how many minutes and in how many they differ; `report` shows those rows in its log, with the
days that want a look first. Days of the week before that could not be reconciled whole (a file
was late) are taken up again.

**Schedule** daily, over whole UTC days, waiting up to 18 hours for the files without holding a
worker; older days with `airflow backfill create --dag-id reconcile_candles …`.
**Pool** `binance_rest`.

**When it fails** exchange or database were away for long, or REST refused a symbol; the red task
names the days, all others are reconciled and told by `report`, which then fails as well so that the
run is red. Clear the red tasks. A day that differs fails nothing: what won is stored, and the
verdict says `differs`.
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
