"""A capturing streamer that is killed with -9 at any moment: after its restart nothing is missing,
nothing is there twice, and what it had put aside on disk comes into the table."""

from __future__ import annotations

import contextlib
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
from psycopg import sql

from simulator.config import SimulatorConfig
from simulator.server import ExchangeThread
from streamer.capture.spool.segments import pieces
from tests.integration.streamer.storage.own_server import Server, own_server

ROOT = Path(__file__).parents[4]
TABLES = (
    ("agg_trades", "agg_trade_id", "BTCUSDT"),
    ("agg_trades", "agg_trade_id", "BTCUSDT.P"),
    ("trades", "trade_id", "BTCUSDT"),
)
"""Datasets in which every id is wanted."""
KILLS = 6


class Streamer:
    """A streamer as an operator starts it, again and again."""

    def __init__(
        self, exchange: ExchangeThread, database_url: str, home: Path, *, symbols: str, capture: str
    ) -> None:
        self._command = [
            sys.executable, "-m", "cli", "stream", "--symbols", symbols,
            "--capture", capture,
        ]  # fmt: skip
        self._environment = {
            **os.environ,
            "DATABASE_URL": database_url,
            "CANDELABRA_HOME": str(home),
            "BINANCE_WS_URL": exchange.spot_ws_url,
            "BINANCE_REST_URL": exchange.spot_rest_url,
            "BINANCE_UM_WS_URL": exchange.um_ws_url,
            "BINANCE_CM_WS_URL": exchange.cm_ws_url,
            "BINANCE_UM_REST_URL": exchange.um_rest_url,
            "BINANCE_CM_REST_URL": exchange.cm_rest_url,
            # Small and frequent writes: a kill finds one under way more often than not.
            "CAPTURE_BATCH_ROWS": "20",
            "CAPTURE_FLUSH_TIMEOUT_MS": "20",
            "STREAMER_HTTP_PORT": "0",
            "LOG_FORMAT": "json",
            "PYTHONPATH": str(ROOT),
        }
        self._log = home / "streamer.log"
        self.start()

    def start(self) -> None:
        with self._log.open("ab") as out:
            self._process = subprocess.Popen(
                self._command, env=self._environment, stdout=out, stderr=subprocess.STDOUT
            )

    def kill(self) -> None:
        self.check()
        self._process.kill()
        self._process.wait(10)

    def check(self) -> None:
        assert self._process.poll() is None, self.log_text()

    def log_text(self) -> str:
        return self._log.read_text()

    def end(self) -> None:
        """As a supervisor does."""
        self._process.terminate()
        assert self._process.wait(15) == 0, self.log_text()
        assert "Traceback" not in self.log_text()


@contextmanager
def running(*arguments: Any, **options: Any) -> Iterator[Streamer]:
    streamer = Streamer(*arguments, **options)
    try:
        yield streamer
    finally:
        streamer._process.kill()
        streamer._process.wait(10)


def wait_until(holds: Callable[[], bool], streamer: Streamer, *, timeout_s: float = 60) -> None:
    until_s = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < until_s, streamer.log_text()[-3_000:]
        streamer.check()
        time.sleep(0.1)


def ids(database_url: str, table: str, column: str, symbol: str) -> list[int]:
    query = sql.SQL("SELECT {} FROM market.{} WHERE symbol = %s ORDER BY 1").format(
        sql.Identifier(column), sql.Identifier(table)
    )
    with psycopg.connect(database_url) as connection:
        return [row[0] for row in connection.execute(query, (symbol,)).fetchall()]


def assert_the_exchanges(database_url: str, exchange: ExchangeThread) -> None:
    """Every aggregate trade of spot has the exchange's values."""
    with psycopg.connect(database_url) as connection:
        rows = connection.execute(
            "SELECT agg_trade_id, price, quantity, first_trade_id, last_trade_id, is_buyer_maker"
            " FROM market.agg_trades WHERE symbol = 'BTCUSDT' ORDER BY 1"
        ).fetchall()
    served: list[tuple[Any, ...]] = []
    while len(served) < len(rows):
        parameters = {"symbol": "BTCUSDT", "fromId": rows[0][0] + len(served), "limit": 1_000}
        page = httpx.get(f"{exchange.spot_rest_url}/api/v3/aggTrades", params=parameters).json()
        served += [
            (one["a"], Decimal(one["p"]), Decimal(one["q"]), one["f"], one["l"], one["m"])
            for one in page
        ]
    assert rows == served[: len(rows)]


@pytest.mark.long
def test_streamer_killed_at_any_moment_misses_no_trade_after_its_restart(
    database_url: str, tmp_path: Path
) -> None:
    def stored() -> list[list[int]]:
        return [ids(database_url, *table) for table in TABLES]

    def have_grown(before: list[list[int]]) -> bool:
        """Whether each has new rows and misses none since its first."""
        return all(
            len(some) >= len(known) + 30 and some == list(range(some[0], some[0] + len(some)))
            for some, known in zip(stored(), before, strict=True)
        )

    moments = random.Random(11)
    with (
        ExchangeThread(SimulatorConfig(speed=20)) as exchange,
        running(
            exchange,
            database_url,
            tmp_path,
            symbols="BTCUSDT,BTCUSDT.P",
            capture="agg_trades,trades,book_tickers",
        ) as streamer,
    ):
        wait_until(lambda: have_grown([[], [], []]), streamer)
        for number in range(KILLS):
            # While it starts, looks back, fetches missing ids, or writes.
            time.sleep(moments.uniform(0, 4))
            streamer.kill()
            before = stored()
            streamer.start()
            if number % 2:
                wait_until(lambda known=before: have_grown(known), streamer)  # type: ignore[misc]
        wait_until(lambda: have_grown(before), streamer)
        streamer.end()
        assert_the_exchanges(database_url, exchange)
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


def spooled(home: Path) -> set[int]:
    """Ids of the quotes that lie on disk, read as the next process will."""
    found: set[int] = set()
    for path in sorted((home / "spool" / "0").glob("*.spool")):
        with contextlib.suppress(FileNotFoundError):  # replayed meanwhile
            for record, _ in pieces(path, 0, path.stat().st_size):
                if record is not None:  # else the end, which is being written
                    assert record.dataset == "book_tickers"
                    found |= {int(line.split("\t")[2]) for line in record.lines}
    return found


@pytest.mark.long
def test_spooled_book_tickers_are_replayed_once_despite_further_kills(
    tmp_path: Path,
) -> None:
    with own_server() as server, ExchangeThread(SimulatorConfig(speed=20)) as exchange:
        _spool_and_replay(server, exchange, tmp_path)


def _spool_and_replay(server: Server, exchange: ExchangeThread, home: Path) -> None:
    def stored() -> list[int]:
        return ids(server.url, "book_tickers", "update_id", "BTCUSDT")

    with running(exchange, server.url, home, symbols="BTCUSDT", capture="book_tickers") as streamer:
        wait_until(lambda: len(stored()) > 100, streamer)
        server.kill()
        wait_until(lambda: len(spooled(home)) > 500, streamer)
        streamer.kill()
        on_disk = spooled(home)
        server.start_again()
        before = set(stored())
        moments = random.Random(5)
        for _ in range(3):  # in the middle of the replay, before it, or after it
            streamer.start()
            time.sleep(moments.uniform(1.0, 2.0))
            streamer.kill()
        replayed = len(stored())  # perhaps all of it
        streamer.start()
        wait_until(lambda: not spooled(home) and len(stored()) > replayed, streamer)
        streamer.end()
    after = stored()
    assert len(after) == len(set(after))
    assert before | on_disk <= set(after)
