"""Load files that somebody dropped into the inbox."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.sdk import TriggerRule, dag, task

from dags.support.file_trigger import WaitForFiles
from dags.support.policies import CANDLES_1M, DAG_ARGS, DEFAULT_ARGS, job, settings


@dag(
    schedule="@continuous",
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    max_active_runs=1,
    max_active_tasks=2,
    dagrun_timeout=timedelta(hours=24),
    **DAG_ARGS,
    default_args=DEFAULT_ARGS,
    tags=["market", "files"],
    doc_md="""
### Files of yours

Drop files into the inbox (`INBOX_FOLDER`): 1-minute klines, trades or aggTrades in the formats of
Binance's dump site, as CSV, gz, zip or Parquet. `wait` finds those that have not changed for ten
seconds; hidden files and `.part` are left alone. `load` runs once for each file, named by it, and
moves it to `done/`, or with the reason beside it to `failed/`. `summarise` adds up the counts and
wakes `build_marts` and `check_quality`.

**Schedule** always one run, which waits in the triggerer and costs no worker. **Pool** none.

What is loaded is `unconfirmed`: anything that the exchange says outranks it. A file is taken once,
also by two runs at the same time, and none is ever deleted; loading one again changes nothing.

**When it fails** a red `load` is a file that was refused: its log, and the reason beside the file
in `failed/`, say which line and what would be right. Put it right and drop it into the inbox again.
Rows that were rejected while the others were loaded stand in `ops.rejected_rows`.
""",
)
def import_files() -> None:
    @task(
        execution_timeout=timedelta(hours=12),
        map_index_template="{{ task.op_kwargs['file']['name'] }}",
    )
    @job
    def load(file: Any) -> Any:
        from include.jobs.files.inbox import load_file

        return load_file(settings=settings(), file=file)

    # A refused file is red by itself and keeps the others from nothing.
    @task(outlets=[CANDLES_1M], trigger_rule=TriggerRule.ALL_DONE_MIN_ONE_SUCCESS)
    @job(emits=CANDLES_1M)
    def summarise(results: Any) -> Any:
        from include.jobs.files.inbox import summarise

        return summarise(results=results)

    summarise(load.expand(file=WaitForFiles(task_id="wait").output))


import_files()
