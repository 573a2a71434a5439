"""Hold the stored candles to what must be true of them, and keep the verdicts."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.sdk import AssetOrTimeSchedule, CronTriggerTimetable, dag, task

from dags.policies import CANDLES_1M, DAG_ARGS, DEFAULT_ARGS, job, settings, span_params, window


@dag(
    schedule=AssetOrTimeSchedule(
        timetable=CronTriggerTimetable("*/5 * * * *", timezone="UTC"), assets=[CANDLES_1M]
    ),
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    max_active_runs=1,
    params=span_params("checked", default="one day"),
    dagrun_timeout=timedelta(hours=2),
    **DAG_ARGS,
    default_args=DEFAULT_ARGS | {"retries": 2},
    tags=["market", "quality"],
    doc_md="""
### Quality

Checks the candles of a span of time, the last day unless the form says otherwise: one row a
minute, values that fit one another, statuses that fit their sources, no minute missing outside of
an outage. The results stay in `ops.quality_results`, failing rows among them.

**Schedule** every five minutes, and at once when a load has ended (asset `market.candles_1m`);
one run at a time.

**When it fails** a check did not hold: the log names check, symbol and rows. That is a finding,
not an accident, so it is not retried. Missing minutes are loaded with `backfill_history`; they
count from ten minutes after the hole's end, since until then the streamer repairs them.
""",
)
def check_quality() -> None:
    @task
    @job
    def check(params: Any = None, dag_run: Any = None) -> Any:
        from include.jobs.quality import check_quality

        return check_quality(
            settings=settings(),
            run_id=dag_run.run_id,
            **window(params, now=dag_run.run_after, days=1),
        )

    check()


check_quality()
