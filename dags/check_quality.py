"""Check changed rows against the quality rules, every five minutes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.sdk import AssetOrTimeSchedule, CronTriggerTimetable, dag, task

from dags.support.forms import check_scope, span_params
from dags.support.policies import CANDLES_1M, DAG_ARGS, DEFAULT_ARGS, job, settings


@dag(
    schedule=AssetOrTimeSchedule(
        timetable=CronTriggerTimetable("*/5 * * * *", timezone="UTC"), assets=[CANDLES_1M]
    ),
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    max_active_runs=1,
    params=span_params("check", default="one day before *To*; without both, rows that changed"),
    dagrun_timeout=timedelta(hours=2),
    **DAG_ARGS,
    default_args=DEFAULT_ARGS | {"retries": 2},
    tags=["market", "quality"],
    doc_md="""
### Check quality

Checks candles, trades, listings and ledgers with Great Expectations. A run covers rows that
changed since the last run, rows that have become old enough for a rule, and rows that failed
before. With *From* or *To*, it covers that time span instead.

Results are in `ops.quality_results`, one row for each rule; failing rows are in
`ops.quality_failures`. HTML pages are in the folder `QUALITY_DOCS_FOLDER`.

**Schedule**: every five minutes and after each load (asset `market.candles_1m`); one run at a
time. It does not delay `build_marts`. **Pool**: none.

**When it fails**: a rule of severity *error* is violated. The log names the rule, the symbol and
the rows. A retry would not help, so there is none: every run fails until the rows are corrected.
`docs/quality.md` explains what to do for each rule.
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
            **check_scope(params, now=dag_run.run_after),
        ).summary

    check()


check_quality()
