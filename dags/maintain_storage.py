"""Create partitions ahead of time, archive old captured rows and prune ledgers."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.sdk import CronTriggerTimetable, dag, task

from dags.support.policies import DAG_ARGS, DEFAULT_ARGS, job, settings


@dag(
    schedule=CronTriggerTimetable("40 2 * * *", timezone="UTC"),
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    max_active_runs=1,
    dagrun_timeout=timedelta(hours=14),
    **DAG_ARGS,
    default_args=DEFAULT_ARGS,
    tags=["market", "storage"],
    doc_md="""
### Maintain storage

- `make_partitions`: creates partitions for the next two months of candles and the next seven days
  of captured rows.
- `archive`: moves captured rows older than `RAW_RETENTION_DAYS` to Parquet files in the archive
  folder. Each file is read back and compared before its rows are dropped. Does nothing unless the
  setting is set.
- `prune`: deletes old results of quality checks that passed.

**Schedule**: daily at 02:40 UTC; one run at a time. **Pool**: none. **Parameters**: none.

**When it fails**: no row is lost. Each day is in its table, in a verified file, or in both, and
the next run continues. The log of `archive` names the days that remain in the table and the
reason: a full disk, an archived file that is missing or was modified, or a value that the file
format cannot represent exactly. `candelabra archive restore` loads archived days back.
""",
)
def maintain_storage() -> None:
    @task
    @job
    def make_partitions(dag_run: Any = None) -> Any:
        from include.jobs.storage.retention import make_partitions

        return make_partitions(settings=settings(), now=dag_run.run_after)

    @task(execution_timeout=timedelta(hours=12))
    @job
    def archive(dag_run: Any = None) -> Any:
        from include.jobs.storage.retention import archive_old_days

        return archive_old_days(settings=settings(), now=dag_run.run_after)

    @task
    @job
    def prune(dag_run: Any = None) -> Any:
        from include.jobs.storage.retention import prune_ledgers

        return prune_ledgers(settings=settings(), now=dag_run.run_after)

    make_partitions()
    archive()
    prune()


maintain_storage()
