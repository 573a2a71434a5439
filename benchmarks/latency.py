"""Latency from the exchange's side to readers of the hub and of the table.

A generated live market of 1,500 symbols sends over loopback to the streamer. Market, streamer and
queries are separate processes. Event times are the times of sending, by the same clock that the
readers use. Each run spans the end of a minute: all symbols close together, and the
market sends all closed klines at once.

- Trades: from the event time until a reader of the hub, in the streamer's process, has a candle
  with that trade. Measured up to the minute's end, while nothing queries the database.
- Closed: from the minute's end to the first query of ``market.candles_1m_live`` that shows the
  candle as closed.
- Verified: from the event time of the closed kline to the first query of ``market.candles_1m`` that
  shows the candle.

Another process queries over one connection, one query after the other. A row counts when the answer
that contains it is complete. So a figure is too high by at most a query and a pause, both of which
are printed; the queries also use CPU.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import psycopg

from benchmarks.load.market import MINUTE_US, SECOND_US
from benchmarks.load.stage import (
    Stage,
    expected,
    minute_end_us,
    percentile,
    stage,
    stored,
    verdict,
    wait_until,
)
from include.config import Settings

SYMBOLS = 1_500
TRADES_PER_S = 9_250
"""Trades a second; with the klines of open minutes this makes 10,000 frames a second."""
KLINE_EVERY_S = 2.0
CLOSING_MS = 1_500
"""Delay of the closed klines after the minute's end; the clock closes the candles before them."""
MEASURED_S = 12
PAUSE_S = 0.005
PATIENCE_S = 10.0
TRADE_GOALS_MS = {0.5: 1.0, 0.99: 3.0}
TABLE_GOAL_MS = 150.0

CLOSED = """
SELECT symbol, NULL FROM market.candles_1m_live WHERE open_time = %s AND status <> 'live'
"""
VERIFIED = """
SELECT symbol, (extract(epoch FROM evidence_at) * 1000000)::bigint
FROM market.candles_1m
WHERE open_time = %s AND status = 'verified'
"""


@dataclass(slots=True)
class Watched:
    """Query results for one minute.

    Attributes:
        at_us: when each symbol was first seen, and the time of its evidence.
        query_ms: duration of each query.
    """

    at_us: dict[str, tuple[int, int]] = field(default_factory=dict)
    query_ms: list[float] = field(default_factory=list)


def watch(connection: psycopg.Connection[Any], query: str, open_us: int) -> Watched:
    """Query repeatedly until all symbols are found."""
    watched = Watched()
    give_up_s = time.monotonic() + PATIENCE_S
    opened = connection.execute("SELECT to_timestamp(%s)", (open_us / SECOND_US,)).fetchone()
    assert opened is not None
    while len(watched.at_us) < SYMBOLS:
        began_s = time.monotonic()
        rows = connection.execute(query, opened).fetchall()
        now_us = time.time_ns() // 1_000
        watched.query_ms.append((time.monotonic() - began_s) * 1_000)
        for symbol, evidence_us in rows:
            watched.at_us.setdefault(symbol, (now_us, evidence_us or 0))
        if time.monotonic() > give_up_s:
            raise TimeoutError(f"{len(watched.at_us)} of {SYMBOLS} symbols in {PATIENCE_S} s")
        time.sleep(PAUSE_S)
    return watched


def run() -> None:
    """Print the measured latencies and the goals."""
    options = (
        "--symbols", str(SYMBOLS), "--trades-per-s", str(TRADES_PER_S),
        "--kline-every-s", str(KLINE_EVERY_S),
        "--closing-ms", str(CLOSING_MS), "--closing-spread-ms", "0",
    )  # fmt: skip
    with stage(options, ["-m", "benchmarks.readers.hub"]) as live:
        live.streamer.wait("streaming_started")
        now_us = time.time_ns() // 1_000
        end_us = minute_end_us(now_us + (MEASURED_S + 1) * SECOND_US)
        wait_until(end_us - MEASURED_S * SECOND_US)
        live.streamer.tell("begin")
        with psycopg.connect(live.database_url, autocommit=True) as connection:
            wait_until(end_us)
            live.streamer.tell("pause")  # queries on the sender's core would hold up its frames
            wait_until(end_us + 100_000)
            closed = watch(connection, CLOSED, end_us - MINUTE_US)
            verified = watch(connection, VERIFIED, end_us - MINUTE_US)
        wait_until(end_us + 5 * SECOND_US)
        live.streamer.tell("end")
        _report_trades(live.streamer.wait("latencies"))
        grace_ms = Settings.model_fields["close_grace_spot_ms"].default
        _report("minute's end to closed", closed, grace_ms + TABLE_GOAL_MS, lambda _: end_us)
        _report("closed kline to verified", verified, TABLE_GOAL_MS, lambda evidence: evidence)
        _check(live, end_us - MINUTE_US)


def _report_trades(told: dict[str, Any]) -> None:
    ordered, shown = told["us"], []
    assert ordered, "no trade came out of the hub"
    assert not told["missed"], "the reader was too slow for the hub"
    for share, goal_ms in TRADE_GOALS_MS.items():
        measured_ms = percentile(ordered, share) / 1_000
        shown.append(
            f"p{share * 100:g} {measured_ms:.2f} ms (goal {goal_ms:g}: "
            f"{verdict(measured_ms, goal_ms)})"
        )
    print(
        f"latency: trade sent to update out of the hub, {len(ordered):,} trades of {SYMBOLS:,} "
        f"symbols at 10,000 frames/s: {', '.join(shown)}, most {ordered[-1] / 1_000:.1f} ms"
    )


def _report(what: str, watched: Watched, goal_ms: float, since: Callable[[int], int]) -> None:
    taken_ms = sorted((at - since(evidence)) / 1_000 for at, evidence in watched.at_us.values())
    p50, p99 = percentile(taken_ms, 0.5), percentile(taken_ms, 0.99)
    print(
        f"latency: {what}, {len(taken_ms):,} symbols at once: p50 {p50:.0f} ms, p99 {p99:.0f} ms "
        f"(goal {goal_ms:.0f}: {verdict(p99, goal_ms)}), most {taken_ms[-1]:.0f} ms; "
        f"a query took {max(watched.query_ms):.0f} ms at most"
    )


def _check(live: Stage, open_us: int) -> None:
    """Check the hub's last state and the table's row of each symbol against the market's candle."""
    told = {
        (symbol, at_us): (status, tuple(map(Decimal, values)))
        for symbol, at_us, status, *values in live.streamer.wait("candles")["rows"]
    }
    rows = stored(live.database_url)
    symbols = [symbol for symbol, at_us in rows if at_us == open_us]
    assert len(symbols) == SYMBOLS, f"{len(symbols)} rows in place of {SYMBOLS}"
    for key, values in expected(live.rest_url, symbols, open_us, open_us + MINUTE_US).items():
        assert rows[key] == ("verified", values), f"{key}: {rows[key]} in place of {values}"
        assert told[key] == ("verified", values), f"{key}: the hub told {told[key]}, not {values}"
    print(f"latency: {SYMBOLS:,} candles, of the hub and of the table, equal the market's")
