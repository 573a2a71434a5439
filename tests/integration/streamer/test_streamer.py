"""The streamer from socket to table, against the simulated exchange on a fast clock."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest

from include.domain.timeframes import MINUTE_US, minute_of
from include.errors import PermanentError
from simulator.config import SimulatorConfig
from simulator.server import Exchange, ExchangeThread
from streamer.app import Streamer
from streamer.symbols.startup import StreamOptions
from tests.integration.streamer.harness import (
    assert_equal_to_the_exchange,
    minutes_of,
    passed,
    rows_of,
    rows_to,
    settings_for,
    streaming,
    verified_to,
    wait_for_rows,
)

SYMBOLS = ["BTCUSDT", "ETHBTC", "PEPEUSDT", "COSUSDT", "BTCUSDT.P"]
FAST = SimulatorConfig(speed=20)


async def test_every_stored_minute_is_verified_and_equals_the_exchange(database_url: str) -> None:
    async with Exchange(FAST) as exchange:
        settings = settings_for(exchange, database_url)
        async with streaming(settings, *SYMBOLS):
            goal_us = minute_of(exchange.clock.now_us()) + 4 * MINUTE_US
            rows = await wait_for_rows(
                database_url, lambda rows: verified_to(rows, goal_us, SYMBOLS)
            )
        rows = rows_to(rows, goal_us)
        await assert_equal_to_the_exchange(exchange, rows, SYMBOLS)
        assert {row["status"] for row in rows.values()} == {"verified"}
        assert {row["source"] for row in rows.values()} == {"kline"}


async def test_open_candle_is_visible_before_its_minute_ends(database_url: str) -> None:
    async with Exchange(SimulatorConfig(speed=5)) as exchange:
        settings = settings_for(exchange, database_url)
        async with streaming(settings, "BTCUSDT", "ETHBTC"):
            connecting = psycopg.AsyncConnection.connect(database_url, autocommit=True)
            async with await connecting as connection:
                seen: dict[str, set[int]] = {"BTCUSDT": set(), "ETHBTC": set()}
                async with asyncio.timeout(90):
                    while min(map(len, seen.values())) < 3:
                        cursor = await connection.execute(
                            "SELECT symbol, trade_count, quote_volume IS NULL "
                            "FROM market.candles_1m_live WHERE status = 'live'"
                        )
                        for symbol, count, no_quotes in await cursor.fetchall():
                            seen[symbol].add(count)
                            assert no_quotes == (symbol == "ETHBTC")
                        await asyncio.sleep(0.05)


async def test_disconnect_loses_no_minute(database_url: str) -> None:
    async with Exchange(FAST) as exchange:
        settings = settings_for(exchange, database_url)
        async with streaming(settings, *SYMBOLS) as streamer:
            await wait_for_rows(database_url, lambda rows: len(minutes_of(rows, "BTCUSDT")) >= 2)
            for _ in range(3):
                exchange.stream_servers["spot"].cut()
                exchange.stream_servers["um"].cut()
                await asyncio.sleep(1.0)  # the cut itself: simulated time passes
            rows = await rows_of(database_url)
            goal = max(minute for _, minute in rows) + 5 * MINUTE_US
            await wait_for_rows(
                database_url,
                lambda rows: verified_to(rows, goal, SYMBOLS),
            )
            assert sum(feed.connection.reconnects for feed in streamer.telemetry.feeds) >= 2
        rows = rows_to(await rows_of(database_url), goal)
        await assert_equal_to_the_exchange(exchange, rows, SYMBOLS)


@pytest.mark.long
async def test_restart_fetches_the_minutes_in_between(database_url: str) -> None:
    async with Exchange(FAST) as exchange:
        settings = settings_for(exchange, database_url)
        async with streaming(settings, *SYMBOLS):
            await wait_for_rows(
                database_url, lambda rows: all(minutes_of(rows, symbol) for symbol in SYMBOLS)
            )
        stopped_at = {s: minutes_of(await rows_of(database_url), s)[-1] for s in SYMBOLS}
        missed_until = minute_of(exchange.clock.now_us()) + 4 * MINUTE_US
        await passed(exchange, missed_until)
        async with streaming(settings, *SYMBOLS):
            rows = await wait_for_rows(
                database_url, lambda rows: verified_to(rows, missed_until, SYMBOLS)
            )
        rows = rows_to(rows, missed_until)
        await assert_equal_to_the_exchange(exchange, rows, SYMBOLS)
        for symbol in SYMBOLS:
            fetched = rows[symbol, stopped_at[symbol] + MINUTE_US]
            assert fetched["source"] == "rest"


async def test_unknown_symbol_ends_the_start_with_the_nearest_names(database_url: str) -> None:
    async with Exchange(FAST) as exchange:
        settings = settings_for(exchange, database_url)
        streamer = Streamer(settings, StreamOptions(symbols=("BTCUSD",)))
        with pytest.raises(PermanentError, match="no symbol 'BTCUSD'; did you mean BTCUSDT"):
            await asyncio.wait_for(streamer.run(), 20)


def command(exchange: ExchangeThread, database_url: str) -> dict[str, str]:
    return {
        **os.environ,
        "DATABASE_URL": database_url,
        "BINANCE_WS_URL": exchange.spot_ws_url,
        "BINANCE_REST_URL": exchange.spot_rest_url,
        "LOG_FORMAT": "json",
        "PYTHONPATH": str(Path(__file__).parents[3]),
    }


def test_process_stops_cleanly_on_sigterm(database_url: str) -> None:
    with ExchangeThread(FAST) as exchange:
        process = subprocess.Popen(
            [sys.executable, "-m", "cli", "stream", "--symbols", "BTCUSDT"],
            env=command(exchange, database_url),
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            assert process.stderr is not None
            lines = []
            for line in process.stderr:
                lines.append(line)
                if "stream_connected" in line:
                    break
            process.send_signal(signal.SIGTERM)
            rest = process.communicate(timeout=30)[1]
        finally:
            process.kill()
            process.wait()
    assert process.returncode == 0, [*lines, rest]
    assert '"event": "streaming_stopped"' in rest


@pytest.mark.parametrize(
    ("symbols", "message"),
    [("NOPEUSDT", "no symbol 'NOPEUSDT'"), ("", "no symbols: give --symbols")],
)
def test_unknown_symbol_is_one_line_and_exit_code_2(
    database_url: str, symbols: str, message: str
) -> None:
    with ExchangeThread(FAST) as exchange:
        done = subprocess.run(
            [sys.executable, "-m", "cli", "stream", "--symbols", symbols],
            env=command(exchange, database_url),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
