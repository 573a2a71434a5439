"""Load each day's dump files once they are published."""

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
    tags=["market", "history"],
    doc_md="""
### Daily dump files

Loads the exchange's daily files of 1-minute klines, for the day of the run's data interval: of all
symbols that the table is kept up with (rows in that day, or in the week before it), or of those
named. `wait` gives its worker back until the files are published, for at most 18 hours after the
day's end; `load` runs once for each symbol, named by symbol and day. Days of the week before that
were never reconciled whole are taken up as well, so that a run that did not happen is made up for.

**Schedule** daily, over whole UTC days; older days with `airflow backfill create --dag-id
load_daily_dumps --from-date … --to-date …`. **Pool** `binance_rest`.

Loading is a merge: any run can be repeated, and two over the same day do no harm.

**When it fails** open the red piece's log. A file that is late, cut or does not fit its checksum
fails nothing: it is recorded in `ops.dump_files`, REST stands in, and a later run takes the file.
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
        map_index_template="{{ task.op_kwargs['piece']['label'] }}",
    )
    @job
    def load(piece: Any) -> Any:
        from include.jobs.klines.backfill import load_piece

        return load_piece(settings=settings(), piece=piece)

    @task(outlets=[CANDLES_1M], trigger_rule=TriggerRule.NONE_FAILED)
    @job(emits=CANDLES_1M)
    def summarise(counts: Any) -> Any:
        from include.jobs.klines.backfill import summarise

        return summarise(counts=counts)

    planned = plan()
    loaded = load.expand(piece=planned)
    WaitForDumps(task_id="wait", plan=planned) >> loaded
    summarise(loaded)


load_daily_dumps()
