"""Load the history of chosen symbols: plan what is missing, then load it piece by piece."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.sdk import Param, TriggerRule, dag, task

from dags.support.forms import REQUIRED_SYMBOLS, market_param, span_params, window
from dags.support.policies import CANDLES_1M, DAG_ARGS, DEFAULT_ARGS, POOL_REST, job, settings

PARAMS = {
    "symbols": Param(
        type="string",
        pattern=REQUIRED_SYMBOLS,
        title="Symbols",
        description="Comma-separated: `BTCUSDT, ETHUSDT.P`. The suffix `.P` means USD-M perpetual.",
    ),
    "market": market_param(),
    **span_params("load", default=None),
    "mode": Param(
        "all",
        type="string",
        enum=["all", "forward", "backward", "gaps"],
        values_display={
            "all": "All missing minutes",
            "forward": "Forward: after the newest stored minute",
            "backward": "Backward: before the oldest stored minute",
            "gaps": "Gaps: between the oldest and the newest stored minute",
        },
        title="Fill",
        description="Which missing minutes to load. Applies to klines only.",
    ),
    "kind": Param(
        "klines",
        type="string",
        enum=["klines", "agg_trades", "trades"],
        values_display={
            "klines": "Klines: the exchange's own candles",
            "agg_trades": "aggTrades: aggregate them to check the klines",
            "trades": "Trades: aggregate them to check the klines",
        },
        title="Kind",
        description="aggTrades and trades are loaded day by day and require *From*.",
    ),
    "keep_raw": Param(
        False,
        type="boolean",
        title="Keep raw rows",
        description="Also store the aggTrades or trades themselves.",
    ),
}


@dag(
    schedule=None,
    params=PARAMS,
    max_active_tasks=2,  # leaves one pool slot to repair_gaps and sync_instruments
    dagrun_timeout=timedelta(days=2),
    **DAG_ARGS,
    default_args=DEFAULT_ARGS,
    tags=["market", "history"],
    doc_md="""
### Backfill history

Loads 1-minute candles of the given symbols for a time span. Without *From*, it loads their entire
history. Start it with *Trigger* and fill in the form.

- `plan`: compares the span with the stored candles and lists the missing pieces. Its log shows the
  source of each piece, the reason, and the cost in requests, weight, bytes and time. Monthly dump
  files come first, then daily files; REST fills the most recent days and single gaps.
- `load`: loads a group of pieces, such as two years of monthly files. Each mapped task is labelled
  with its first and last piece. A run of any size has 400 tasks at most.
- `summarise`: adds up the results and triggers `build_marts` and `check_quality`.

With *Kind* aggTrades or trades, the DAG aggregates trades into candles to check the klines. Where
both differ, the kline stays and `ops.discrepancies` records the other candle. REST replaces a
missing or damaged trade file.

**Schedule**: none. **Pool**: `binance_rest`; a run uses two of its slots at most, so one is left
for repairs.

**Running it again** is always safe. Writes are idempotent, concurrent runs do not interfere, and a
new run loads only what is still missing.

**When it fails**: open the log of the failed task.
- A wrong symbol or an empty time span fails immediately; the message states the correct form.
- After a rate limit (HTTP 429) the task waits as long as the exchange asks, then retries.
- A corrupt or missing dump file is named with its path.

Then clear the failed tasks. They load only the pieces that are still missing.
""",
)
def backfill_history() -> None:
    @task
    @job
    def plan(params: Any = None, dag_run: Any = None) -> Any:
        from include.jobs.history import plan_history

        return plan_history(
            settings=settings(),
            symbols=params["symbols"],
            market=params["market"],
            mode=params["mode"],
            kind=params["kind"],
            keep_raw=params["keep_raw"],
            **window(params, now=dag_run.run_after, days=None),
        )

    @task(
        pool=POOL_REST,
        execution_timeout=timedelta(hours=4),
        map_index_template="{{ task.op_kwargs['group']['label'] }}",
    )
    @job
    def load(group: Any) -> Any:
        from include.jobs.history import load_history_group

        return load_history_group(settings=settings(), group=group)

    # The only outlet: a run triggers its consumers once, however many groups it loads. If nothing
    # is missing, the loads are skipped; the run still succeeds.
    @task(outlets=[CANDLES_1M], trigger_rule=TriggerRule.NONE_FAILED)
    @job(emits=CANDLES_1M)
    def summarise(counts: Any) -> Any:
        from include.jobs.history import summarise_history

        return summarise_history(counts=counts)

    summarise(load.expand(group=plan()))


backfill_history()
