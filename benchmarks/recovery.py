"""Time until a ten-second disconnect has left no trace.

A live market of 1,500 symbols at 20,000 frames a second closes all connections a little before a
minute's end and refuses new ones for ten seconds. So every symbol misses trades of two minutes and
the closed kline of the first minute. The second minute continues from kline frames without a
request, and its closed klines verify it at its end, which is the earliest possible time. The first
minute is fetched by REST, which may still miss trades until the minute is 30 s old.

Times count from the moment at which connections are accepted again:

- until all streams are acknowledged and deliver;
- until every gap in ``ops.gaps`` is closed;
- until all minutes of all symbols are stored and verified, and equal the market's candles in nine
  values.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import psycopg

from benchmarks.load.market import MINUTE_US, SECOND_US
from benchmarks.load.stage import Stage, expected, minute_end_us, stage, stored, wait_until

SYMBOLS = 1_500
TRADES_PER_S = 19_250
"""Trades a second; with the klines of open minutes this makes 20,000 frames a second."""
KLINE_EVERY_S = 2.0
CUT_S = 10
BEFORE_END_S = 5
PATIENCE_S = 150.0
LOOK_S = 0.1
SETTLED_BY_REST_S = 30

OPEN_GAPS = "SELECT count(*) FILTER (WHERE repaired_at IS NULL), count(*) FROM ops.gaps"


def run() -> None:
    """Print seconds and request weight."""
    options = (
        "--symbols", str(SYMBOLS), "--trades-per-s", str(TRADES_PER_S),
        "--kline-every-s", str(KLINE_EVERY_S),
    )  # fmt: skip
    with stage(options, ["-m", "benchmarks.readers.hub"]) as live:
        live.streamer.wait("streaming_started")
        first_us = minute_end_us(time.time_ns() // 1_000)
        """Open time of the first minute that is streamed completely."""
        cut_us = minute_end_us(time.time_ns() // 1_000 + (BEFORE_END_S + 3) * SECOND_US)
        wait_until(cut_us - BEFORE_END_S * SECOND_US)
        live.exchange.tell("stats")
        before = live.exchange.wait("stats")
        live.exchange.tell(f"cut {CUT_S}")
        back_s = time.monotonic() + CUT_S
        with psycopg.connect(live.database_url, autocommit=True) as connection:
            gaps = _until(lambda: _open_gaps(connection), back_s)
        proven_s = time.monotonic() - back_s
        live.exchange.tell("stats")
        after = live.exchange.wait("stats")
        _check(live, first_us, cut_us)
        weight = after["weight"] - before["weight"]
        waited_s = SETTLED_BY_REST_S - (CUT_S - BEFORE_END_S)
        over_s = MINUTE_US // SECOND_US - (CUT_S - BEFORE_END_S)
        print(
            f"recovery: {CUT_S} s without a connection at 20,000 frames/s over a minute's end: "
            f"{SYMBOLS:,} symbols proven complete again {proven_s:.1f} s after connections were "
            f"possible: REST counts for the minute before them after {waited_s} s, and their own "
            f"is over, and proven by its closed klines, after {over_s} s; {gaps:,} gaps, "
            f"{after['asked']['klines'] - before['asked']['klines']:,} requests for klines, "
            f"weight {weight:,} of 6,000 a minute"
        )


def _open_gaps(connection: psycopg.Connection[tuple[int, int]]) -> int | None:
    """Return the number of gaps once all are closed; None before."""
    row = connection.execute(OPEN_GAPS).fetchone()
    assert row is not None
    open_, all_ = row
    return all_ if all_ >= SYMBOLS and not open_ else None


def _until(done: Callable[[], int | None], back_s: float) -> int:
    while (found := done()) is None:
        if time.monotonic() > back_s + PATIENCE_S:
            raise TimeoutError(f"gaps are open {PATIENCE_S} s after the cut")
        time.sleep(LOOK_S)
    return found


def _check(live: Stage, first_us: int, cut_us: int) -> None:
    """Check every minute from the first whole one to the one after the disconnect's end."""
    rows = stored(live.database_url)
    symbols = {symbol for symbol, _ in rows}
    assert len(symbols) == SYMBOLS
    until_us = max(open_us for _, open_us in rows)
    right = expected(live.rest_url, symbols, min(first_us, cut_us - MINUTE_US), until_us)
    wrong = [key for key, values in right.items() if rows.get(key) != ("verified", values)]
    assert not wrong, f"{len(wrong)} of {len(right)} differ, such as {wrong[:3]}"
    assert len(right) >= SYMBOLS
    print(f"recovery: {len(right):,} candles are verified and equal the market's")
