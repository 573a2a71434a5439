"""Check every stored row against the quality rules, daily."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.sdk import CronTriggerTimetable, dag, task

from dags.support.policies import DAG_ARGS, DEFAULT_ARGS, job, settings


@dag(
    schedule=CronTriggerTimetable("20 3 * * *", timezone="UTC"),
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    max_active_runs=1,
    dagrun_timeout=timedelta(hours=20),
    **DAG_ARGS,
    default_args=DEFAULT_ARGS | {"retries": 2, "execution_timeout": timedelta(hours=18)},
    tags=["market", "quality"],
    doc_md="""
### Check everything

Checks every stored row against the quality rules, a million minutes at a time. `check_quality`
checks only rows that changed; this DAG also finds damage in rows that no program has changed,
for example after a restore or a disk fault.

**Schedule**: daily at 03:20 UTC; one run at a time. **Pool**: none. **Parameters**: none.

**When it fails**: a rule of severity *error* is violated. The log names the rule, the symbol and
the rows. `check_quality` checks these rows again in every run until they pass.
""",
)
def check_everything() -> None:
    @task
    @job
    def check_all(dag_run: Any = None) -> Any:
        from include.jobs.quality import check_quality

        return check_quality(settings=settings(), run_id=dag_run.run_id, scope="all").summary

    check_all()


check_everything()
