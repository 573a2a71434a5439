"""Setup of the live benchmarks: a database, an exchange's side and a streamer."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

import httpx
import psycopg

from benchmarks.load.market import MINUTE_US
from benchmarks.load.processes import CORES, Talking, sender, talking
from deploy.local.postgres import EmbeddedPostgres
from include.store.migrate import migrate

Values = tuple[Decimal | int, ...]

STORED = """
SELECT
    symbol, (extract(epoch FROM open_time) * 1000000)::bigint, status, open, high, low, close,
    volume, quote_volume, trade_count, taker_buy_volume, taker_buy_quote_volume
FROM market.candles_1m
"""


@dataclass(frozen=True, slots=True)
class Stage:
    """The running processes."""

    exchange: Talking
    streamer: Talking
    rest_url: str
    database_url: str


@contextmanager
def stage(
    sender_options: Sequence[str],
    streamer_command: Sequence[str],
    settings: Mapping[str, str] | None = None,
) -> Iterator[Stage]:
    """Run a live market, PostgreSQL and a streamer of all its symbols.

    The streamer has one core; the market, PostgreSQL and the measurement share the other.

    Args:
        settings: the streamer's settings besides the addresses.
    """
    os.sched_setaffinity(0, CORES[-1:])  # processes started from here on inherit the affinity
    with tempfile.TemporaryDirectory(prefix="candelabra-bench-") as folder:
        Path(folder).chmod(0o755)
        with EmbeddedPostgres(Path(folder) / "pg") as server, sender(*sender_options) as exchange:
            url = server.create_database("live")
            migrate(url)
            ready = exchange.wait("ready")
            environment = {
                "DATABASE_URL": url,
                "BINANCE_WS_URL": ready["ws_url"],
                "BINANCE_REST_URL": ready["rest_url"],
                "STREAMER_HTTP_PORT": "0",
                "CANDELABRA_HOME": folder,
            } | dict(settings or {})
            with talking(streamer_command, core=CORES[0], environment=environment) as streamer:
                try:
                    yield Stage(exchange, streamer, ready["rest_url"], url)
                finally:
                    os.sched_setaffinity(0, CORES)


def expected(
    rest_url: str, symbols: Iterable[str], start_us: int, end_us: int
) -> dict[tuple[str, int], Values]:
    """Return the market's candles from REST: nine values by symbol and open time.

    Args:
        start_us, end_us: half-open range of open times.
    """
    found: dict[tuple[str, int], Values] = {}
    with httpx.Client(base_url=rest_url, timeout=30) as client:
        for symbol in symbols:
            times = {"startTime": start_us // 1_000, "endTime": (end_us - 1) // 1_000}
            answer = client.get(
                "/api/v3/klines", params={"symbol": symbol, "interval": "1m", **times}
            )
            for row in answer.json():
                texts = (*row[1:6], *row[7:11])
                found[symbol, row[0] * 1_000] = tuple(Decimal(str(text)) for text in texts)
    return found


def stored(database_url: str) -> dict[tuple[str, int], tuple[str, Values]]:
    """Return the status and nine values of all rows, by symbol and open time."""
    with psycopg.connect(database_url) as connection:
        return {
            (symbol, open_us): (status, tuple(values))
            for symbol, open_us, status, *values in connection.execute(STORED)
        }


def minute_end_us(after_us: int) -> int:
    """Return the end of the minute that contains this time."""
    return after_us // MINUTE_US * MINUTE_US + MINUTE_US


def wait_until(moment_us: int) -> None:
    """Sleep until a wall-clock time."""
    time.sleep(max(0.0, moment_us / 1e6 - time.time()))


def percentile(ordered: Sequence[float], share: float) -> float:
    """Return this quantile of sorted values."""
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def verdict(measured: float, goal: float) -> str:
    """Describe whether a value is within its goal."""
    return "met" if measured < goal else "MISSED"
