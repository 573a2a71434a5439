"""The stage of the fault tests: an exchange, a table, and how the two are held together."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any
from unittest.mock import patch

import psycopg
from psycopg.rows import dict_row

from include.config import Settings
from include.domain.candles import Candle
from include.domain.instruments import exchange_symbol_of, market_of
from include.domain.timeframes import from_us, to_us
from include.jobs import exchange, instruments, piece_loading
from include.jobs.klines import backfill, dump_files, dump_loading, minutes, planning
from include.jobs.klines import repair as repair_job
from include.store.ledgers.gaps import open_gap
from include.store.postgres.pools import connect
from simulator.server import Exchange, ExchangeThread
from streamer import app
from streamer.candles import feed
from streamer.exchange import connection
from streamer.exchange import feed as connection_feed
from streamer.health import watchdog
from streamer.storage import repair_queue as repair
from streamer.storage import writer
from streamer.symbols import startup

ROOT = Path(__file__).parents[3]
Row = dict[str, Any]
Rows = dict[tuple[str, int], Row]
Log = list[dict[str, Any]]
Afflict = Callable[..., list[str]]
"""Add faults, given as dictionaries; return their ids."""

LOGGING = (
    app, connection, connection_feed, feed, repair, startup, watchdog, writer,
    backfill, dump_files, dump_loading, exchange, instruments, minutes, piece_loading,
    planning, repair_job,
)  # fmt: skip
VALUES = (
    "open", "high", "low", "close", "volume", "quote_volume", "trade_count", "taker_buy_volume",
    "taker_buy_quote_volume",
)  # fmt: skip


def oracle(
    exchange: Exchange | ExchangeThread, symbol: str, start_us: int, end_us: int
) -> dict[int, tuple[Decimal, ...]]:
    """The nine values of each minute that the exchange has in [start, end), by open time."""
    market = exchange.markets[market_of(symbol).value]
    name = exchange_symbol_of(symbol)
    unit = market.instrument(name)
    bars = market.klines(name, "1m", start_us, end_us - 1, view_us=exchange.clock.now_us())
    return {
        bar.open_time_us: (
            Decimal(unit.format_price(bar.open)),
            Decimal(unit.format_price(bar.high)),
            Decimal(unit.format_price(bar.low)),
            Decimal(unit.format_price(bar.close)),
            Decimal(unit.format_quantity(bar.volume)),
            Decimal(unit.format_quote(bar.quote_volume)),
            Decimal(bar.trade_count),
            Decimal(unit.format_quantity(bar.taker_buy_volume)),
            Decimal(unit.format_quote(bar.taker_buy_quote_volume)),
        )
        for bar in bars
    }


def values_of(row: Row | Candle) -> tuple[Decimal, ...]:
    """The nine values of a row."""
    if isinstance(row, Candle):
        return tuple(Decimal(value) for value in row.values)
    return tuple(Decimal(row[name]) for name in VALUES)


def read_rows(database_url: str) -> Rows:
    """All rows of candles_1m by symbol and open time (µs)."""
    with psycopg.connect(database_url, row_factory=dict_row) as connection:
        found = connection.execute("SELECT * FROM market.candles_1m").fetchall()
    return {(row["symbol"], to_us(row["open_time"])): row for row in found}


def minutes_of(rows: Rows, symbol: str) -> list[int]:
    """Open times of a symbol's rows, ascending."""
    return sorted(minute for name, minute in rows if name == symbol)


def assert_equal(
    exchange: Exchange | ExchangeThread, rows: Rows, symbol: str, start_us: int, end_us: int
) -> None:
    """The table has the exchange's minutes of [start, end), no other, with all nine values."""
    theirs = oracle(exchange, symbol, start_us, end_us)
    ours = {
        minute: values_of(rows[symbol, minute])
        for minute in minutes_of(rows, symbol)
        if start_us <= minute < end_us
    }
    missing = [f"{from_us(one):%d %H:%M}" for one in sorted(theirs.keys() - ours.keys())]
    invented = [f"{from_us(one):%d %H:%M}" for one in sorted(ours.keys() - theirs.keys())]
    assert (missing, invented) == ([], []), f"{symbol}: missing, invented"
    for minute, values in theirs.items():
        row = rows[symbol, minute]
        assert ours[minute] == values, (symbol, f"{from_us(minute):%d %H:%M}", row["source"])


def assert_unharmed(before: Rows, after: Rows) -> None:
    """What was stored is there with the same values, and no less sure."""
    for key, row in before.items():
        assert key in after, key
        assert values_of(after[key]) == values_of(row), key
        assert after[key]["source_rank"] >= row["source_rank"], key


def leave_gap(database_url: str, symbol: str, start_us: int, end_us: int) -> None:
    """Leave an open gap, like a streamer that was disconnected and ended."""
    with connect(database_url, application_name="test") as connection:
        open_gap(connection, symbol=symbol, start_us=start_us, end_us=end_us, cause="cut")


def outages_of(database_url: str, symbol: str) -> list[tuple[int, int]]:
    """Recorded outages of a symbol, as half-open ranges (µs)."""
    with psycopg.connect(database_url) as connection:
        found = connection.execute(
            "SELECT lower(span), upper(span) FROM ops.outages, unnest(minutes) AS u (span)"
            " WHERE symbol = %s ORDER BY 1",
            (symbol,),
        ).fetchall()
    return [(to_us(start), to_us(end)) for start, end in found]


@contextmanager
def captured_log() -> Iterator[Log]:
    """What our modules log meanwhile, as dictionaries.

    structlog's own capture misses loggers that some earlier test had configured for good.
    """
    log: Log = []
    with ExitStack() as stack:
        for module in LOGGING:
            stack.enter_context(patch.object(module, "log", _RecordingLogger(log)))
        yield log


def settings_of(exchange: ExchangeThread, database_url: str, home: Path) -> Settings:
    """Settings of jobs that point to an exchange and a database."""
    return Settings(
        database_url=database_url,
        binance_rest_url=exchange.spot_rest_url,
        binance_um_rest_url=exchange.um_rest_url,
        binance_cm_rest_url=exchange.cm_rest_url,
        binance_dump_url=exchange.dump_url,
        binance_dump_list_url=exchange.dump_url,
        candelabra_home=home,
    )


def run_cli(*words: str, settings: Settings) -> subprocess.CompletedProcess[str]:
    """Return the command line's output and exit code."""
    home = settings.candelabra_home
    home.mkdir(exist_ok=True)
    return subprocess.run(
        [sys.executable, "-m", "cli", *words],
        env={
            "PATH": os.environ["PATH"],
            "DATABASE_URL": settings.database_url,
            "BINANCE_REST_URL": settings.binance_rest_url,
            "BINANCE_DUMP_URL": settings.binance_dump_url,
            "BINANCE_DUMP_LIST_URL": settings.binance_dump_list_url,
            "CANDELABRA_HOME": str(home),
            "PYTHONPATH": str(ROOT),
            "COLUMNS": "200",
        },
        cwd=home, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


class _RecordingLogger:
    """Replaces a logger."""

    def __init__(self, log: Log) -> None:
        self._log = log

    def __getattr__(self, level: str) -> Callable[..., None]:
        return lambda event, **fields: self._log.append({"event": event, "level": level, **fields})


def events_of(log: Log, **fields: object) -> list[str]:
    """Names of the events that have these fields."""
    return [one["event"] for one in log if all(one.get(name) == v for name, v in fields.items())]


def wait_for(holds: Callable[[], object], what: str = "it", *, timeout_s: float = 30) -> None:
    """Wait for a condition, in a test without an event loop."""
    until_s = time.monotonic() + timeout_s
    while not holds():
        if time.monotonic() > until_s:
            raise AssertionError(f"{what} did not hold in {timeout_s} s")
        time.sleep(0.02)
