"""Keep storage in order: partitions ahead, old raw capture to files, ledgers within bounds."""

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
### Storage

`make_partitions` makes the partitions of the next two months of candles, and of the next seven
days of what is captured. `archive` moves days of raw capture that are older than
`RAW_RETENTION_DAYS` to Parquet files below the archive folder: written, read back and compared,
and only then dropped from the table. `prune` removes results of old checks that held.

**Schedule** daily at 02:40 UTC; one run at a time. Nothing is archived unless
`RAW_RETENTION_DAYS` is set.

**When it fails** nothing is lost: a day is either in its table or in a file that was read back, or
in both, and the next run goes on. The log names the days that stay in the table, and why: a full
disk, an archived file that is missing or was changed, a value that the file cannot hold exactly.
Days come back with `candelabra archive restore`.
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
