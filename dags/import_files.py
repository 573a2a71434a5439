"""Load files that users drop into the inbox."""

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
### Import files

Loads your own files. Drop them into the inbox (`INBOX_FOLDER`): 1-minute klines, trades or
aggTrades in the formats of Binance's dump files, as CSV, gz, zip or Parquet.

- `wait`: waits for files that have not changed for ten seconds. Ignores hidden files and `.part`.
- `load`: loads one file and moves it to `done/`, or to `failed/` with the reason beside it.
- `summarise`: adds up the results and triggers `build_marts` and `check_quality`.

Imported rows are `unconfirmed`: any data from the exchange replaces them. Each file is loaded
once, even by concurrent runs. Files are never deleted, and loading one again changes nothing.

**Schedule**: one run is always active. It waits in the triggerer and occupies no worker.
**Pool**: none. **Parameters**: none.

**When it fails**: a failed `load` means that a file was rejected. Its log, and the `.reason.txt`
file in `failed/`, name the line and the correct form. Fix the file and drop it in again. If only
some rows were rejected, the others are loaded and `ops.rejected_rows` has the rejected ones.
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

    # A rejected file fails its own task only; the other files are still summarised.
    @task(outlets=[CANDLES_1M], trigger_rule=TriggerRule.ALL_DONE_MIN_ONE_SUCCESS)
    @job(emits=CANDLES_1M)
    def summarise(results: Any) -> Any:
        from include.jobs.files.inbox import summarise

        return summarise(results=results)

    summarise(load.expand(file=WaitForFiles(task_id="wait").output))


import_files()
