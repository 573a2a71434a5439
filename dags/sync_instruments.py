"""Keep the registry of listings: who is traded, since when, with which filters."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.sdk import CronDataIntervalTimetable, dag, task

from dags.support.policies import DAG_ARGS, DEFAULT_ARGS, FIRST_IN_POOL, POOL_REST, job, settings


@dag(
    schedule=CronDataIntervalTimetable("15 0 * * *", timezone="UTC"),
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    max_active_runs=1,
    dagrun_timeout=timedelta(hours=2),
    **DAG_ARGS,
    default_args=DEFAULT_ARGS,
    tags=["market", "instruments"],
    doc_md="""
### Instruments

Asks the exchange for its symbols, spot and USD-M, and writes each listing to
`market.instruments`: renamed, delisted and reused tickers get a row of their own. (Spot tells no
start of trading: a ticker that goes to another instrument without leaving the list is noticed by
its trade ids, which begin anew, where the stream has stored its minutes.)

**Schedule** daily at 00:15 UTC. **Pool** `binance_rest`.

**When it fails** the registry stays as it was; loads go on. A blocked region or a wrong
`BINANCE_REST_URL` fails at once, a busy or unreachable exchange is retried for about four minutes.
""",
)
def sync_instruments() -> None:
    @task(pool=POOL_REST, **FIRST_IN_POOL)
    @job
    def sync() -> Any:
        from include.jobs.instruments import sync_instruments

        return sync_instruments(settings=settings())

    sync()


sync_instruments()
