"""The streamer as a process, which reads its symbols file again on a signal."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

from include.domain.timeframes import MINUTE_US, from_us, minute_of
from simulator.config import SimulatorConfig
from simulator.server import ExchangeThread

ROOT = Path(__file__).parents[3]
MARKET = SimulatorConfig(
    speed=60, spot_symbols=("BTCUSDT", "ETHUSDT", "PEPEUSDT"), um_symbols=("BTCUSDT",)
)


class Process:
    """``candelabra stream --symbols-file``, its log, and the rows it writes."""

    def __init__(self, process: subprocess.Popen[bytes], log_file: Path, database_url: str) -> None:
        self.process = process
        self._log_file = log_file
        self._url = database_url

    def events(self, name: str) -> list[dict[str, Any]]:
        lines = self._log_file.read_text().splitlines()
        told = [json.loads(line) for line in lines if line.startswith("{") and line.endswith("}")]
        return [one for one in told if one["event"] == name]

    def minutes(self, symbol: str) -> int:
        """Rows of a symbol that are verified."""
        query = "SELECT count(*) FROM market.candles_1m WHERE symbol = %s AND status = 'verified'"
        return int(self._ask(query, symbol))

    def minutes_from(self, symbol: str, moment_us: int) -> int:
        query = "SELECT count(*) FROM market.candles_1m WHERE symbol = %s AND open_time >= %s"
        return int(self._ask(query, symbol, from_us(moment_us)))

    def live(self, symbol: str) -> int:
        return int(self._ask("SELECT count(*) FROM market.live_candles WHERE symbol = %s", symbol))

    def symbols_with_gaps(self) -> int:
        """The number of symbols with missing minutes between the first and the newest row."""
        return int(
            self._ask(
                "SELECT count(*) FROM (SELECT count(*) AS n,"
                " 1 + extract(epoch FROM max(open_time) - min(open_time)) / 60 AS span"
                " FROM market.candles_1m GROUP BY symbol) AS of_symbols WHERE n <> span"
            )
        )

    def _ask(self, query: str, *values: object) -> Any:
        with psycopg.connect(self._url) as connection:
            row = connection.execute(query, values).fetchone()
        assert row is not None
        return row[0]

    def until(self, holds: Callable[[], bool], what: str) -> None:
        until_s = time.monotonic() + 60
        while not holds():
            assert self.process.poll() is None, self._log_file.read_text()
            assert time.monotonic() < until_s, f"{what}:\n{self._log_file.read_text()[-4000:]}"
            time.sleep(0.05)

    def reload(self) -> None:
        self.process.send_signal(signal.SIGHUP)


@contextmanager
def streaming(
    exchange: ExchangeThread, database_url: str, symbols: Path, log_file: Path
) -> Iterator[Process]:
    environment = {
        **os.environ,
        "DATABASE_URL": database_url,
        "BINANCE_WS_URL": exchange.spot_ws_url,
        "BINANCE_REST_URL": exchange.spot_rest_url,
        "BINANCE_UM_WS_URL": exchange.um_ws_url,
        "BINANCE_CM_WS_URL": exchange.cm_ws_url,
        "BINANCE_UM_REST_URL": exchange.um_rest_url,
        "BINANCE_CM_REST_URL": exchange.cm_rest_url,
        "SYMBOLS_FILE": str(symbols),
        "SYMBOLS": "NOBODYASKS",
        "LOG_FORMAT": "json",
        "STREAMER_HTTP_PORT": "0",
        "PYTHONPATH": str(ROOT),
    }
    with log_file.open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "cli", "stream"], env=environment, stderr=log
        )
    try:
        yield Process(process, log_file, database_url)
    finally:
        process.kill()
        process.wait()


@pytest.mark.long
def test_symbols_are_added_and_removed_while_it_runs(database_url: str, tmp_path: Path) -> None:
    symbols = tmp_path / "symbols.txt"
    symbols.write_text("BTCUSDT\nETHUSDT  # for now\n")
    with (
        ExchangeThread(MARKET) as exchange,
        streaming(exchange, database_url, symbols, tmp_path / "log") as one,
    ):
        one.until(lambda: one.minutes("BTCUSDT") > 1 < one.minutes("ETHUSDT"), "first rows")

        symbols.write_text("BTCUSDT\nPEPE*\nBTCUSDT.P\n")
        told_us = minute_of(exchange.clock.now_us())
        one.reload()
        one.until(
            lambda: min(one.minutes_from(each, told_us) for each in ("PEPEUSDT", "BTCUSDT.P")) > 2,
            "rows of added symbols",
        )
        assert {event["symbol"] for event in one.events("symbol_removed")} == {"ETHUSDT"}
        one.until(lambda: not one.live("ETHUSDT"), "the open candle of a removed symbol stays")
        assert one.minutes_from("ETHUSDT", told_us + 2 * MINUTE_US) == 0
        one.until(lambda: bool(one.live("BTCUSDT")), "the open candle of one that stays")

        symbols.write_text("BTCUSDT\nPEPEUSDT\nNOPEUSDT\n")
        one.reload()
        one.until(lambda: bool(one.events("symbols_file_refused")), "a refusal")
        assert one.events("symbols_file_refused")[0]["error"].startswith(
            f"{symbols}:3: the exchange has no symbol 'NOPEUSDT'"
        )
        symbols.write_text("BTCUSDT\nbtcusdt\n")
        one.reload()
        one.until(lambda: len(one.events("symbols_file_refused")) == 2, "a second refusal")
        assert f"{symbols}:2: 'btcusdt'" in one.events("symbols_file_refused")[1]["error"]
        refused_us = minute_of(exchange.clock.now_us())
        one.until(
            lambda: all(
                one.minutes_from(each, refused_us) > 1
                for each in ("BTCUSDT", "PEPEUSDT", "BTCUSDT.P")
            ),
            "what was streamed goes on",
        )

        symbols.write_text("BTCUSDT\nETHUSDT\n")
        one.reload()
        one.until(lambda: one.minutes_from("ETHUSDT", refused_us) > 1, "it comes back")
        one.until(lambda: not one.symbols_with_gaps(), "what was missed meanwhile is filled")
        one.process.terminate()
        assert one.process.wait(timeout=30) == 0
        # Those that there were take new symbols in: each is opened once, unless the line was lost.
        opened = Counter(event["connection"] for event in one.events("stream_connected"))
        lost = Counter(event["connection"] for event in one.events("stream_disconnected"))
        assert opened.keys() == {"spot-1", "um-1"}
        assert all(1 <= times <= 1 + lost[name] for name, times in opened.items()), (opened, lost)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("BTCUSDT\nNOPEUSDT\n", ":2: the exchange has no symbol 'NOPEUSDT'"),
        pytest.param("BTC USDT\n", ":1: 'BTC USDT' is no", marks=pytest.mark.long),
    ],
)
def test_wrong_symbols_file_ends_the_start_with_its_line(
    database_url: str, tmp_path: Path, text: str, message: str
) -> None:
    symbols = tmp_path / "symbols.txt"
    symbols.write_text(text)
    log_file = tmp_path / "log"
    with (
        ExchangeThread(MARKET) as exchange,
        streaming(exchange, database_url, symbols, log_file) as one,
    ):
        assert one.process.wait(timeout=60) == 2
    told = log_file.read_text()
    assert f"{symbols}{message}" in told
    assert "Traceback" not in told
