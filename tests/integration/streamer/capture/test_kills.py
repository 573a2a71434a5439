"""A capturing streamer that is killed with -9 misses no trade after its restart."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import psycopg
from psycopg import sql

from simulator.config import SimulatorConfig
from simulator.server import ExchangeThread


def started(exchange: ExchangeThread, database_url: str, home: Path) -> subprocess.Popen[str]:
    """A streamer as an operator starts it."""
    return subprocess.Popen(
        [
            sys.executable, "-m", "include.cli", "stream", "--symbols", "BTCUSDT,BTCUSDT.P",
            "--capture", "agg_trades,trades,book_tickers",
        ],
        env={
            **os.environ,
            "DATABASE_URL": database_url,
            "CANDELABRA_HOME": str(home),
            "BINANCE_WS_URL": exchange.spot_ws_url,
            "BINANCE_REST_URL": exchange.spot_rest_url,
            "BINANCE_UM_WS_URL": exchange.um_ws_url,
            "BINANCE_UM_REST_URL": exchange.um_rest_url,
            "LOG_FORMAT": "json",
            "PYTHONPATH": str(Path(__file__).parents[4]),
        },
        stderr=subprocess.PIPE,
        text=True,
    )  # fmt: skip


def test_a_killed_streamer_misses_no_trade_after_its_restart(
    database_url: str, tmp_path: Path
) -> None:
    def ids(table: str, column: str, symbol: str) -> list[int]:
        query = sql.SQL("SELECT {} FROM market.{} WHERE symbol = %s ORDER BY 1").format(
            sql.Identifier(column), sql.Identifier(table)
        )
        with psycopg.connect(database_url) as connection:
            return [row[0] for row in connection.execute(query, (symbol,)).fetchall()]

    def stored() -> list[list[int]]:
        return [
            ids("agg_trades", "agg_trade_id", "BTCUSDT"),
            ids("agg_trades", "agg_trade_id", "BTCUSDT.P"),
            ids("trades", "trade_id", "BTCUSDT"),
        ]

    def wait_for_more(before: list[list[int]]) -> None:
        """Until each has new rows and misses none since its first."""
        deadline = time.monotonic() + 60
        while not all(
            len(some) >= len(known) + 30 and some == list(range(some[0], some[0] + len(some)))
            for some, known in zip(stored(), before, strict=True)
        ):
            assert time.monotonic() < deadline, "ids are missing"
            assert process.poll() is None, process.communicate()[1]
            time.sleep(0.1)

    with ExchangeThread(SimulatorConfig(speed=20)) as exchange:
        process = started(exchange, database_url, tmp_path)
        try:
            wait_for_more([[], [], []])
            for _ in range(2):
                process.kill()
                process.communicate()
                before = stored()
                process = started(exchange, database_url, tmp_path)
                wait_for_more(before)
            process.terminate()
            said = process.communicate(timeout=15)[1]
            assert process.returncode == 0, said
            assert "Traceback" not in said
        finally:
            process.kill()
            process.wait()
    with psycopg.connect(database_url) as connection:
        lost = connection.execute(
            "SELECT DISTINCT dataset, symbol, cause FROM ops.gaps "
            "WHERE dataset <> 'candles_1m' ORDER BY 1, 2"
        )
        assert lost.fetchall() == [
            ("book_tickers", "BTCUSDT", "nobody captured"),
            ("book_tickers", "BTCUSDT.P", "nobody captured"),
            ("trades", "BTCUSDT.P", "nobody captured"),
        ]
