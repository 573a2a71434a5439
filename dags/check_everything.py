"""Hold every stored row to what must be true of it, daily."""

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
### Quality of everything

Holds every stored row to its rules, as `check_quality` does with what changed: also rows that
nobody touched, as after a restore or a disk that lies. A million minutes at a time.

**Schedule** daily at 03:20 UTC; one run at a time. **Params** none.

**When it fails** a rule of severity error is broken: the log names rule, symbol and rows, and
`check_quality` looks at them until they keep it.
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
