"""Repair gaps that the streamer could not repair itself."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.sdk import CronTriggerTimetable, dag, task

from dags.support.policies import DAG_ARGS, DEFAULT_ARGS, HIGH_PRIORITY, POOL_REST, job, settings


@dag(
    schedule=CronTriggerTimetable("*/5 * * * *", timezone="UTC"),
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    max_active_runs=1,
    dagrun_timeout=timedelta(hours=2),
    **DAG_ARGS,
    default_args=DEFAULT_ARGS | {"retries": 2},
    # No outlet: the consumers run every five minutes anyway.
    tags=["market", "repair"],
    doc_md="""
### Repair gaps

Fetches missing minutes from REST for open gaps in `ops.gaps` that are older than ten minutes; the
streamer repairs younger ones itself. A run handles at most 100 gaps: those with the fewest
attempts first, then the oldest. A gap is closed once all of its minutes are stored. Minutes that
the exchange does not have either are recorded as an outage.

**Schedule**: every five minutes; one run at a time. **Pool**: `binance_rest`, ahead of long loads.
**Parameters**: none.

**When it fails**: the exchange or the database is unavailable; the next run tries again. Gaps that
a killed run had claimed are released after 15 minutes. A gap that cannot be repaired does not fail
the run: it stays open, with the reason in `detail`, and later runs try again.
""",
)
def repair_gaps() -> None:
    @task(pool=POOL_REST, **HIGH_PRIORITY)
    @job
    def repair(dag_run: Any = None) -> Any:
        from include.jobs.klines.repair import repair_gaps

        return repair_gaps(settings=settings(), worker=dag_run.run_id, older_than_s=600.0)

    repair()


repair_gaps()
