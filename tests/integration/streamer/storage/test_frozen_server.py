"""A stop while PostgreSQL hangs: its processes live, and nothing answers."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

from deploy.local.postgres import EmbeddedPostgres
from include.store.migrate import migrate
from simulator.config import SimulatorConfig
from simulator.server import ExchangeThread

ROOT = Path(__file__).parents[4]
SPEED = 25


@pytest.fixture
def server() -> Iterator[EmbeddedPostgres]:
    with tempfile.TemporaryDirectory(prefix="candelabra-frozen-") as folder:
        Path(folder).chmod(0o755)
        settings = {"fsync": "off", "shared_buffers": "32MB"}
        with EmbeddedPostgres(Path(folder) / "pg", settings=settings) as server:
            yield server


@contextmanager
def frozen(url: str) -> Iterator[None]:
    """Stop the server and all its processes; they go on at the end."""
    with psycopg.connect(url) as connection:
        row = connection.execute("SELECT pg_read_file('postmaster.pid', 0, 20)").fetchone()
    assert row is not None
    postmaster = int(row[0].split()[0])
    stopped = [postmaster]
    os.kill(postmaster, signal.SIGSTOP)
    try:
        children = Path(f"/proc/{postmaster}/task/{postmaster}/children").read_text().split()
        for child in map(int, children):
            os.kill(child, signal.SIGSTOP)
            stopped.append(child)
        yield
    finally:
        for process in reversed(stopped):
            os.kill(process, signal.SIGCONT)


@pytest.mark.parametrize(
    ("captured", "hanging_s"),
    [
        pytest.param("agg_trades,book_tickers", 0, id="at once"),
        pytest.param("agg_trades,book_tickers", 3, id="as statements hang", marks=pytest.mark.long),
        pytest.param("", 3, id="without capture", marks=pytest.mark.long),
    ],
)
def test_stop_ends_within_ten_seconds_and_logs_unwritten_rows(
    server: EmbeddedPostgres, tmp_path: Path, captured: str, hanging_s: float
) -> None:
    url = server.create_database("frozen")
    migrate(url)
    with ExchangeThread(SimulatorConfig(speed=SPEED, spot_symbols=("BTCUSDT",))) as exchange:
        log = tmp_path / "log"
        with log.open("w") as errors:
            process = subprocess.Popen(
                [sys.executable, "-m", "cli", "stream", "--symbols", "BTCUSDT"],
                env={
                    **os.environ,
                    "DATABASE_URL": url,
                    "BINANCE_WS_URL": exchange.spot_ws_url,
                    "BINANCE_REST_URL": exchange.spot_rest_url,
                    "STREAMER_HTTP": "false",
                    "CANDELABRA_HOME": str(tmp_path / "home"),
                    "CAPTURE": captured,
                    "LOG_FORMAT": "json",
                    "PYTHONPATH": str(ROOT),
                },
                stderr=errors,
            )
        try:
            wait_for_rows(url)
            with frozen(url):
                time.sleep(hanging_s)  # 3: a minute closes meanwhile
                process.send_signal(signal.SIGTERM)
                began_s = time.monotonic()
                code = process.wait(timeout=30)
                took_s = time.monotonic() - began_s
        finally:
            process.kill()
            process.wait()
    said = [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]
    assert took_s < 10, said[-5:]
    assert code == 0, log.read_text()[-3_000:]
    (unwritten,) = [one for one in said if one["event"] == "stopped_with_unwritten_candles"]
    assert unwritten["waiting"] >= (hanging_s > 0)
    assert "Traceback" not in log.read_text()


def wait_for_rows(url: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        deadline_s = time.monotonic() + 60
        row: tuple[Any, ...] | None = (0,)
        while row is not None and row[0] < 2:
            assert time.monotonic() < deadline_s, "no rows in a minute"
            time.sleep(0.05)
            row = connection.execute("SELECT count(*) FROM market.candles_1m").fetchone()
