"""Streamers as processes: killed at any moment, and two of them on the same symbols."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

from include.domain.timeframes import MINUTE_US, minute_of
from simulator.config import SimulatorConfig
from simulator.server import Exchange
from tests.integration.streamer.harness import (
    assert_equal_to_the_exchange,
    minutes_of,
    rows_of,
    settings_for,
    streaming,
    verified_to,
    wait_for_rows,
)
from tests.integration.streamer.storage.test_gap_ledger import (
    all_closed,
    broken_ids,
    gaps_of,
    none_open,
    until_gaps,
)

SYMBOLS = ["BTCUSDT", "ETHBTC", "PEPEUSDT", "BTCUSDT.P"]
FAST = SimulatorConfig(speed=20)


@contextmanager
def process(exchange: Exchange, database_url: str) -> Iterator[subprocess.Popen[bytes]]:
    """A streamer in a separate process, killed at the end."""
    one = subprocess.Popen(
        [sys.executable, "-m", "cli", "stream", "--symbols", ",".join(SYMBOLS)],
        env={
            **os.environ,
            "DATABASE_URL": database_url,
            "BINANCE_WS_URL": exchange.spot_ws_url,
            "BINANCE_REST_URL": exchange.spot_rest_url,
            "BINANCE_UM_WS_URL": exchange.um_ws_url,
            "BINANCE_CM_WS_URL": exchange.cm_ws_url,
            "BINANCE_UM_REST_URL": exchange.um_rest_url,
            "BINANCE_CM_REST_URL": exchange.cm_rest_url,
            "STREAMER_HTTP_PORT": "0",
            "LOG_LEVEL": "ERROR",
            "PYTHONPATH": str(Path(__file__).parents[3]),
        },
        stderr=subprocess.DEVNULL,
    )
    try:
        yield one
    finally:
        one.send_signal(signal.SIGKILL)
        one.wait()


async def newest(database_url: str) -> int:
    return max((minute for _, minute in await rows_of(database_url)), default=0)


@pytest.mark.parametrize(("seed", "kills"), [(1, 1), pytest.param(2, 6, marks=pytest.mark.long)])
async def test_nothing_is_missing_after_any_kill(database_url: str, seed: int, kills: int) -> None:
    chance = random.Random(seed)
    async with Exchange(FAST) as exchange:
        for _ in range(kills):
            before_us = await newest(database_url)
            with process(exchange, database_url) as streamer:
                async with asyncio.timeout(60):
                    while await newest(database_url) <= before_us:
                        assert streamer.poll() is None
                        await asyncio.sleep(0.05)
                await asyncio.sleep(chance.uniform(0, 3))  # any moment of a minute of 3 s
        settings = settings_for(exchange, database_url)
        async with streaming(settings, *SYMBOLS):
            goal_us = minute_of(exchange.clock.now_us()) + MINUTE_US
            await wait_for_rows(database_url, lambda rows: verified_to(rows, goal_us, SYMBOLS))
            await until_gaps(database_url, none_open)  # a kill need not open one
        rows = await rows_of(database_url)
        await assert_equal_to_the_exchange(exchange, rows, SYMBOLS)
        assert await broken_ids(database_url) == []


@pytest.mark.long
async def test_two_streamers_on_the_same_symbols_store_each_minute_once(database_url: str) -> None:
    async with Exchange(FAST) as exchange:
        settings = settings_for(exchange, database_url)
        async with streaming(settings, *SYMBOLS), streaming(settings, *SYMBOLS):
            await wait_for_rows(
                database_url, lambda rows: all(len(minutes_of(rows, s)) >= 2 for s in SYMBOLS)
            )
            exchange.stream_servers["spot"].cut()
            exchange.stream_servers["um"].cut()
            goal_us = minute_of(exchange.clock.now_us()) + 3 * MINUTE_US
            await wait_for_rows(database_url, lambda rows: verified_to(rows, goal_us, SYMBOLS))
            gaps = await until_gaps(database_url, all_closed)
        rows = await rows_of(database_url)
        await assert_equal_to_the_exchange(exchange, rows, SYMBOLS)
        assert await broken_ids(database_url) == []
        assert len({(gap["symbol"], gap["from_time"], gap["to_time"]) for gap in gaps}) == len(gaps)
        assert all(gap["repaired_at"] for gap in await gaps_of(database_url))
        async with await psycopg.AsyncConnection.connect(database_url) as connection:
            # a candle aggregated from mid-minute may differ and lose; the exchange never does
            cursor = await connection.execute(
                "SELECT count(*) FROM ops.discrepancies WHERE loser_status = 'verified'"
            )
            assert await cursor.fetchone() == (0,)
