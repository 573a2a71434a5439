"""How long it takes until a cut of ten seconds has left no trace.

A live market of 1,500 symbols at 20,000 frames a second ends all connections a little before a
minute's end and takes no others for ten seconds: every symbol misses trades of two minutes and the
closed kline of the first. The open minute goes on from kline frames without a request, and is
proven by its closed klines at its end: nothing can be sooner. The one before comes by REST, which
may still miss trades until the minute is 30 s old.

Counted from the moment at which connections are taken again: until all streams are acknowledged
and deliver; until every gap is closed in ``ops.gaps``; and, held to the market's own candles in
nine values, that all minutes of all symbols are there and verified.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import psycopg

from benchmarks.load.market import MINUTE_US, SECOND_US
from benchmarks.load.stage import Stage, expected, minute_end_us, stage, stored, wait_until

SYMBOLS = 1_500
TRADES_PER_S = 19_250
"""Rate of trades; with the open klines, 20,000 frames a second."""
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
        """The first minute that is streamed whole."""
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
    """Number of gaps once all are closed; None before."""
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
    """Every minute from the first whole one to that after the cut's end is the market's own."""
    rows = stored(live.database_url)
    symbols = {symbol for symbol, _ in rows}
    assert len(symbols) == SYMBOLS
    until_us = max(open_us for _, open_us in rows)
    right = expected(live.rest_url, symbols, min(first_us, cut_us - MINUTE_US), until_us)
    wrong = [key for key, values in right.items() if rows.get(key) != ("verified", values)]
    assert not wrong, f"{len(wrong)} of {len(right)} differ, such as {wrong[:3]}"
    assert len(right) >= SYMBOLS
    print(f"recovery: {len(right):,} candles are verified and equal the market's")
