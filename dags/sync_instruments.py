"""Update the registry of listed symbols and their trading filters."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.sdk import CronDataIntervalTimetable, dag, task

from dags.support.policies import DAG_ARGS, DEFAULT_ARGS, HIGH_PRIORITY, POOL_REST, job, settings


@dag(
    schedule=CronDataIntervalTimetable("15 0 * * *", timezone="UTC"),
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    max_active_runs=1,
    dagrun_timeout=timedelta(hours=2),
    **DAG_ARGS,
    default_args=DEFAULT_ARGS,
    tags=["market", "instruments"],
    doc_md="""
### Sync instruments

Reads the exchange's symbols, spot, USD-M and COIN-M, and writes each listing with its trading
filters to `market.instruments`. Renamed and delisted symbols and reused tickers get separate rows.
Delivered contracts end at their delivery and get the settlement price once it is published.

The spot API does not report when trading started. If a spot ticker passes to another instrument
without leaving the list, the change is detected only if the symbol was being streamed, because it
shows by trade ids that start again.

**Schedule**: daily at 00:15 UTC. **Pool**: `binance_rest`, ahead of long loads.
**Parameters**: none.

**When it fails**: the registry keeps its previous state and loads continue. A blocked region or a
wrong `BINANCE_REST_URL` fails immediately. If the exchange is busy or unreachable, the task
retries for about four minutes.
""",
)
def sync_instruments() -> None:
    @task(pool=POOL_REST, **HIGH_PRIORITY)
    @job
    def sync() -> Any:
        from include.jobs.instruments import sync_instruments

        return sync_instruments(settings=settings())

    sync()


sync_instruments()
