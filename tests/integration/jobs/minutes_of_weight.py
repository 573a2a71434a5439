"""Clock minutes that end when a test wants them to, at the exchange and in the weight budget."""

from __future__ import annotations

import time

import psycopg
from psycopg import sql

from include.domain.timeframes import MINUTE_US
from simulator.server import ExchangeThread

_FUNCTIONS = (
    "SELECT oid FROM pg_proc WHERE pronamespace = 'ops'::regnamespace AND proname = ANY (%s)"
)


def end_minute_in(
    exchange: ExchangeThread, connection: psycopg.Connection, *, left_s: float
) -> None:
    """Move the exchange's clock on until so much of its minute is left, and the budget's with it.

    Both count a whole minute from then on, the same one, as it is at the real exchange.
    """
    clock = exchange.clock
    left_us = MINUTE_US - clock.now_us() % MINUTE_US
    clock._start_us += (left_us - round(left_s * 1e6)) % MINUTE_US
    shift_us = clock.now_us() - time.time_ns() // 1000
    moved = sql.SQL("(clock_timestamp() + {} * interval '1 microsecond')").format(shift_us)
    found = connection.execute(_FUNCTIONS, (["acquire_weight", "report_weight"],)).fetchall()
    assert len(found) == 2
    for (function,) in found:
        (definition,) = connection.execute(
            "SELECT regexp_replace(pg_get_functiondef(%s),"
            r" '\(?clock_timestamp\(\)( \+ +-?\d+ \* interval ''1 microsecond''\))?', %s)",
            (function, moved.as_string(connection)),
        ).fetchone() or ("",)
        assert "microsecond" in definition
        connection.execute(definition)
