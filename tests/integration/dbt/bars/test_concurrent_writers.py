"""Bars stay right while writers and builds interleave."""

from __future__ import annotations

import multiprocessing
import random
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import psycopg
import pytest

from tests.integration.dbt.conftest import BARS

START = datetime(2024, 2, 29, 20, 0, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
MINUTES = 480
WRITERS = 8
SYMBOLS = ("BTCUSDT", "ETHUSDT", "BTCUSDT.P")
DAYS = f"tag:days,{BARS}"


@pytest.fixture
def dbt(bars_dbt: Any) -> Any:
    return bars_dbt


@pytest.fixture
def filled(market: Any) -> Any:
    """Three symbols with eight hours of minutes, across the end of a month."""
    for symbol in SYMBOLS:
        market.write(symbol, START, MINUTES)
    return market


def change_an_outage(connection: psycopg.Connection[Any], chance: random.Random, seed: int) -> None:
    """Declare, extend, move or revoke one of the writer's outages of a symbol or market."""
    symbol = chance.choice((*SYMBOLS, None))
    market = "um" if (symbol or chance.choice(SYMBOLS)).endswith(".P") else "spot"
    outage = (market, symbol, f"halt {seed}")
    if chance.random() < 0.3:
        connection.execute(
            "DELETE FROM ops.outages"
            " WHERE market = %s AND symbol IS NOT DISTINCT FROM %s AND cause = %s",
            outage,
        )
        return
    start = START + timedelta(minutes=chance.randrange(MINUTES))
    end = start + timedelta(minutes=chance.randint(1, 400))
    connection.execute(
        "INSERT INTO ops.outages (market, symbol, cause, minutes)"
        " VALUES (%s, %s, %s, tstzmultirange(tstzrange(%s, %s)))"
        " ON CONFLICT (market, symbol, cause) DO UPDATE SET minutes = CASE"
        " WHEN %s THEN outages.minutes + excluded.minutes ELSE excluded.minutes END",
        (*outage, start, end, chance.random() < 0.5),
    )


def write_until(stop: threading.Event, market: Any, seed: int) -> int:
    """Run transactions that upsert, delete, wait and sometimes roll back."""
    chance = random.Random(seed)
    transactions = 0
    with psycopg.connect(market.url) as connection:
        while not stop.is_set():
            for _ in range(chance.randint(1, 3)):
                symbol = chance.choice(SYMBOLS)
                # Each writer has its own minutes, so that no writer waits for another's lock.
                moment = START + timedelta(
                    minutes=chance.randrange(MINUTES // WRITERS) * WRITERS + seed
                )
                kind = chance.random()
                if kind < 0.1:
                    change_an_outage(connection, chance, seed)
                elif kind < 0.4:
                    market.delete(symbol, moment, 1, connection=connection)
                else:
                    volume = Decimal(chance.randint(1, 10**6)) / 1000
                    market.write(symbol, moment, 1, volume=volume, connection=connection)
                stop.wait(chance.random() * 0.05)
            connection.rollback() if chance.random() < 0.2 else connection.commit()
            transactions += 1
    return transactions


def assert_live_bars_hold_the_minutes(market: Any, coarse: Any) -> None:
    """Compare in one snapshot of minutes, marts and change log, while others write."""
    with market.connection.transaction():
        market.connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        for timeframe in coarse[::3]:
            live = market.bars(timeframe, suffix="_live")
            assert live == market.expected(timeframe), timeframe.name


@pytest.mark.long
@pytest.mark.parametrize("builds", [1, 6])
def test_marts_equal_the_minutes_after_concurrent_writes_and_builds(
    filled: Any, dbt: Any, coarse: Any, builds: int
) -> None:
    stop = threading.Event()
    dbt("run")
    with ThreadPoolExecutor(WRITERS) as pool:
        writers = [pool.submit(write_until, stop, filled, seed) for seed in range(WRITERS)]
        try:
            for _ in range(builds):
                # Children are built seconds after their parents.
                dbt("run", "--select", f"tag:intraday,{BARS}")
                dbt("run", "--select", DAYS)
                assert_live_bars_hold_the_minutes(filled, coarse)
            # Data tests pass while others write.
            dbt(
                "test",
                "--select",
                "candles_3m candles_1h candles_1d,test_type:data",
                "--vars",
                "tested: all",
            )
        finally:
            stop.set()
        assert sum(writer.result() for writer in writers) > 50
    dbt("run")
    built = {timeframe.name: filled.bars(timeframe) for timeframe in coarse}
    for timeframe in coarse:
        assert built[timeframe.name] == filled.expected(timeframe), timeframe.name
    excused = {
        name
        for name, bars in built.items()
        for (_, open_time), (end, *_, minute_count, is_complete) in bars.items()
        if is_complete and minute_count < (end - open_time) / MINUTE
    }
    assert {"3m", "15m"} <= excused  # bars that only outages complete
    dbt("run", "--full-refresh")
    assert {timeframe.name: filled.bars(timeframe) for timeframe in coarse} == built


def test_concurrent_builds_run_one_after_the_other(filled: Any, dbt: Any) -> None:
    dbt("run")
    filled.write("ETHUSDT", START, 300, volume=Decimal(7))
    # Forked: a manifest serves one process at a time, and a new process would parse again.
    builds = [multiprocessing.get_context("fork").Process(target=dbt, args=("run",)) for _ in "ab"]
    for build in builds:
        build.start()
    for build in builds:
        build.join(timeout=120)
        assert build.exitcode == 0
    filled.assert_bars_hold_the_minutes()
