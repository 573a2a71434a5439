"""Repair minutes that the streamer missed and could not repair itself."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.sdk import CronTriggerTimetable, dag, task

from dags.support.policies import DAG_ARGS, DEFAULT_ARGS, FIRST_IN_POOL, POOL_REST, job, settings


@dag(
    schedule=CronTriggerTimetable("*/5 * * * *", timezone="UTC"),
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    max_active_runs=1,
    dagrun_timeout=timedelta(hours=2),
    **DAG_ARGS,
    default_args=DEFAULT_ARGS | {"retries": 2},
    # No outlet: its readers run every five minutes too, and would be woken for nothing.
    tags=["market", "repair"],
    doc_md="""
### Gaps

Takes the open entries of `ops.gaps` that are older than ten minutes (younger ones are the
streamer's), asks REST for their minutes and closes the entries that are whole: at most 100 a run,
the least tried and oldest first. Minutes for which the exchange itself has no row become an outage.

**Schedule** every five minutes; one run at a time. **Pool** `binance_rest`.

**When it fails** exchange or database are away, and the next run tries again; claims of a run that
was cut expire after 15 minutes. A gap that cannot be repaired fails nothing: it stays open with
the reason in its `detail` and is tried again.
""",
)
def repair_gaps() -> None:
    @task(pool=POOL_REST, **FIRST_IN_POOL)
    @job
    def repair(dag_run: Any = None) -> Any:
        from include.jobs.klines.repair import repair_gaps

        return repair_gaps(settings=settings(), worker=dag_run.run_id, older_than_s=600.0)

    repair()


repair_gaps()
