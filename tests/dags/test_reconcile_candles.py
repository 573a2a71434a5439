"""The DAG compares a day between stream, REST and dump file and stores the verdict."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal

import psycopg

from include.domain.candles import CandleCandidate, Source, Status, silent_candle
from include.domain.timeframes import MINUTE_US, to_us
from include.store.candles.minutes import merge_candidates
from include.store.postgres.pools import connect


def test_wrong_streamed_minute_is_replaced_and_the_verdict_is_differs(
    daily_run, daily_day, database_url
):
    wrong_us = to_us(daily_day + timedelta(hours=5))
    with connect(database_url, application_name="test") as connection:
        candle = silent_candle("BTCUSDT", wrong_us, Decimal(1))
        merge_candidates(
            connection,
            [CandleCandidate(candle, Status.VERIFIED, Source.KLINE, wrong_us + MINUTE_US)],
        )

    daily = daily_run("reconcile_candles", {"symbols": "BTCUSDT, BTCUSDT.P"})

    assert daily.run.state == "success"
    with psycopg.connect(database_url) as connection:
        verdicts = connection.execute(
            "SELECT symbol, verdict, stored_minutes, live_minutes, live_differing, rest_minutes,"
            " daily_minutes FROM ops.reconciliations ORDER BY 1"
        ).fetchall()
        losers = connection.execute(
            "SELECT symbol, open_time, loser_source, stored_during FROM ops.discrepancies"
        ).fetchall()
        stored = connection.execute(
            "SELECT trade_count > 0 FROM market.candles_1m"
            " WHERE symbol = 'BTCUSDT' AND open_time = %s",
            (daily_day + timedelta(hours=5),),
        ).fetchone()
    assert verdicts == [
        ("BTCUSDT", "differs", 1440, 1, 1, 1440, 1440),
        ("BTCUSDT.P", "agrees", 1440, 0, 0, 1440, 1440),
    ]
    (loser,) = losers
    assert loser[:3] == ("BTCUSDT", daily_day + timedelta(hours=5), "kline")
    assert len(loser[3]) == 1
    assert stored == (True,)
