"""Hold what changed to what must be true of it, every five minutes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.sdk import AssetOrTimeSchedule, CronTriggerTimetable, dag, task

from dags.support.forms import changes_or_window, span_params
from dags.support.policies import CANDLES_1M, DAG_ARGS, DEFAULT_ARGS, job, settings


@dag(
    schedule=AssetOrTimeSchedule(
        timetable=CronTriggerTimetable("*/5 * * * *", timezone="UTC"), assets=[CANDLES_1M]
    ),
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    max_active_runs=1,
    params=span_params("checked", default="what changed since the last run; or one day"),
    dagrun_timeout=timedelta(hours=2),
    **DAG_ARGS,
    default_args=DEFAULT_ARGS | {"retries": 2},
    tags=["market", "quality"],
    doc_md="""
### Quality

Holds candles, trades, listings and ledgers to their rules with Great Expectations: what changed
since the last run, what has come of age, and what broke a rule before; or the span of the form.
Each rule's result is in `ops.quality_results`, each failing row in `ops.quality_failures`, and the
pages are in `QUALITY_DOCS_FOLDER`.

**Schedule** every five minutes, and at once when a load has ended (asset `market.candles_1m`);
one run at a time, beside `build_marts`, which waits for nothing here.

**When it fails** a rule of severity error is broken: the log names rule, symbol and rows. That is a
finding, not an accident, so it is not retried; every run is red until the rows keep the rule.
`docs/quality.md` says what to do for each.
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
            **changes_or_window(params, now=dag_run.run_after),
        ).summary

    check()


check_quality()
