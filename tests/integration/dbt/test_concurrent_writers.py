"""No bar is wrong however writers and builds interleave."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg
import pytest

pytestmark = pytest.mark.timeout(900)  # twenty builds beside eight writers

START = datetime(2024, 2, 28, 12, 0, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
MINUTES = 2 * 1440
WRITERS = 8
SYMBOLS = ("BTCUSDT", "ETHUSDT", "BTCUSDT.P")
DAYS = "candles_1d+,config.materialized:rolled_up"


@pytest.fixture
def dbt(dbt_of_bars: Any) -> Any:
    return dbt_of_bars


@pytest.fixture
def filled(market: Any) -> Any:
    for symbol in SYMBOLS:
        market.write(symbol, START, MINUTES)
    return market


def change_an_outage(connection: psycopg.Connection[Any], chance: random.Random, seed: int) -> None:
    """Declare, prolong, move or revoke an outage of the writer's own, of a symbol or a market."""
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
    """Transactions that upsert, delete, dawdle and sometimes roll back; each on its own rows."""
    chance = random.Random(seed)
    transactions = 0
    with psycopg.connect(market.url) as connection:
        while not stop.is_set():
            for _ in range(chance.randint(1, 3)):
                symbol = chance.choice(SYMBOLS)
                # each writer keeps to its own minutes, so that none waits for another's lock
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
    """While others write: one snapshot sees the minutes, the marts and what they lack."""
    with market.connection.transaction():
        market.connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        for timeframe in coarse[::3]:
            live = market.bars(timeframe, suffix="_live")
            assert live == market.expected(timeframe), timeframe.name


def test_marts_equal_the_minutes_after_writing_and_building_at_once(
    filled: Any, dbt: Any, coarse: Any
) -> None:
    stop = threading.Event()
    dbt("run")
    with ThreadPoolExecutor(WRITERS) as pool:
        writers = [pool.submit(write_until, stop, filled, seed) for seed in range(WRITERS)]
        try:
            for number in range(4):
                # in halves: children are built seconds after their parents
                dbt("run", "--select", "tag:intraday")
                dbt("run", "--select", "tag:days" if number % 2 else DAYS)
                assert_live_bars_hold_the_minutes(filled, coarse)
            # data tests hold while others write
            dbt("build", "--exclude-resource-type", "unit_test", "--vars", "tested: all")
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
    assert {"3m", "15m"} <= excused  # what the outages were declared for
    dbt("run", "--full-refresh")
    assert {timeframe.name: filled.bars(timeframe) for timeframe in coarse} == built


def test_two_builds_at_once_wait_for_each_other(
    filled: Any, dbt: Any, coarse: Any, tmp_path: Path
) -> None:
    dbt("run")
    filled.write("ETHUSDT", START, 300, volume=Decimal(7))

    def build(number: int) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "dbt.cli.main", "run", "--quiet", "--select", "+candles_live"],
            env={**os.environ, "DBT_TARGET_PATH": str(tmp_path / f"target-{number}")},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    with ThreadPoolExecutor(2) as pool:
        for done in pool.map(build, range(2)):
            assert done.returncode == 0, done.stdout + done.stderr
    for timeframe in coarse:
        assert filled.bars(timeframe) == filled.expected(timeframe), timeframe.name
