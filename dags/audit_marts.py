"""Compare the marts with the minutes, hourly, a part at a time."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.sdk import CronTriggerTimetable, dag, task

from dags.support.policies import DAG_ARGS, DEFAULT_ARGS, job, settings


@dag(
    schedule=CronTriggerTimetable("35 * * * *", timezone="UTC"),
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    max_active_runs=1,
    dagrun_timeout=timedelta(minutes=50),
    **DAG_ARGS,
    default_args=DEFAULT_ARGS | {"retries": 2, "execution_timeout": timedelta(minutes=30)},
    tags=["marts", "quality"],
    doc_md="""
### Audit marts

Compares the bars of every timeframe with bars rolled up anew, a month of a symbol at a time, for
ten minutes in each run. The months that were never compared come first, then those whose
comparison is oldest (`ops.mart_audits`).

`build_marts` rebuilds only bars whose minutes are in the change log. This DAG finds what the log
missed: bars or minutes that were changed by hand, a table that was restored alone, a disk fault.

**Schedule**: hourly, at minute 35; one run at a time. **Pool**: none. **Parameters**: none.

**When it fails**: bars differed. The log names each with both values. Their minutes are logged as
changed, so the next run of `build_marts` rebuilds the bars; find out what changed them.
""",
)
def audit_marts() -> None:
    @task
    @job
    def audit() -> Any:
        from include.jobs.mart_audits import audit_marts

        return audit_marts(settings=settings())

    audit()


audit_marts()
