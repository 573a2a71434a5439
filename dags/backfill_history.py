"""Load history: plan what is missing, take the cheapest sure source, load piece by piece."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.sdk import Param, TriggerRule, dag, task

from dags.support.forms import SOME_SYMBOLS, market_param, span_params, window
from dags.support.policies import CANDLES_1M, DAG_ARGS, DEFAULT_ARGS, POOL_REST, job, settings

PARAMS = {
    "symbols": Param(
        type="string",
        pattern=SOME_SYMBOLS,
        title="Symbols",
        description="Names, separated by commas: `BTCUSDT, ETHUSDT.P`; `.P` is a USD-M perpetual.",
    ),
    "market": market_param(),
    **span_params("loaded", default=None),
    "mode": Param(
        "all",
        type="string",
        enum=["all", "forward", "backward", "holes"],
        values_display={
            "all": "All that is missing",
            "forward": "Forward: behind the newest stored minute",
            "backward": "Backward: before the oldest stored minute",
            "holes": "Holes: between the oldest and the newest stored minute",
        },
        title="Fill",
        description="Which missing minutes of the span are loaded. Of klines alone.",
    ),
    "kind": Param(
        "klines",
        type="string",
        enum=["klines", "agg_trades", "trades"],
        values_display={
            "klines": "Klines: the minutes themselves",
            "agg_trades": "aggTrades: minutes folded from them, as a check",
            "trades": "Trades: minutes folded from them, as a check",
        },
        title="Kind",
        description="Trades come day by day, from files or REST, and need *From*.",
    ),
    "keep_raw": Param(
        False,
        type="boolean",
        title="Keep raw rows",
        description="Keep the rows of aggTrades or trades in their table, too.",
    ),
}


@dag(
    schedule=None,
    params=PARAMS,
    max_active_tasks=2,  # one slot of the pool is left to repairs and the registry
    dagrun_timeout=timedelta(days=2),
    **DAG_ARGS,
    default_args=DEFAULT_ARGS,
    tags=["market", "history"],
    doc_md="""
### History

Loads 1-minute candles of some symbols for a span of time; without *From* all of their history.
`plan` compares the span with the table and the ledgers and prints, in its log, each piece: what is
missing, where it will come from and why (monthly dumps, then daily dumps, then REST for the tail
and the holes), and what all of it costs in requests, weight, bytes and time. Each piece is a task
of its own, named by symbol and period; its log tells what it did. `summarise` adds up the counts
and wakes `build_marts` and `check_quality`.

With *Kind* aggTrades or trades, their dump files are folded to minutes below the klines, as a
check: where they say otherwise, the kline stands and `ops.discrepancies` has the fold. REST stands
in for a day whose file is missing or damaged.

**Schedule** none: trigger it with its form. **Pool** `binance_rest`.

Loading is a merge: runs over the same span, at once or one after the other, do no harm, and a run
that was cut is simply run again; what is loaded already is not in its plan.

**When it fails** open the red piece's log. A wrong symbol or an empty span fails at once and says
what would be right; a busy exchange (429) is asked again when it said so; a corrupt or absent dump
is named with its path. Clear the failed pieces to go on, the others need not run again.
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
        map_index_template="{{ task.op_kwargs['piece']['label'] }}",
    )
    @job
    def load(piece: Any) -> Any:
        from include.jobs.history import load_history_piece

        return load_history_piece(settings=settings(), piece=piece)

    # The one outlet, after all loads: a run wakes the readers once. With nothing missing the loads
    # are skipped, which is no failure.
    @task(outlets=[CANDLES_1M], trigger_rule=TriggerRule.NONE_FAILED)
    @job(emits=CANDLES_1M)
    def summarise(counts: Any) -> Any:
        from include.jobs.history import summarise_history

        return summarise_history(counts=counts)

    summarise(load.expand(piece=plan()))


backfill_history()
