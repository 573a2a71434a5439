"""Minutes for the benchmarks of the marts, made by the server, and dbt to build from them."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg

from include.jobs.dbt_env import dbt_environment

TIMEFRAMES = (
    "3m", "5m", "15m", "30m", "1h", "2h", "4h", "6h", "8h", "12h", "1d", "3d", "1w", "1mo",
)  # fmt: skip

# Prices of a walk with two decimals, amounts with five; every fiftieth minute is silent.
_MINUTES = """
INSERT INTO market.candles_1m (
    symbol, open_time, open, high, low, close, volume, quote_volume, trade_count,
    taker_buy_volume, taker_buy_quote_volume, first_trade_id, last_trade_id, status, source,
    source_rank, evidence_at
)
SELECT
    s.symbol,
    t.open_time,
    p.price,
    p.price + 1.25 * p.is_traded,
    p.price - 2.75 * p.is_traded,
    p.price - 0.5 * p.is_traded,
    p.volume,
    p.volume * p.price,
    17 * p.is_traded,
    p.volume * 0.5,
    p.volume * p.price * 0.5,
    CASE WHEN p.is_traded = 1 THEN p.minute * 17 END,
    CASE WHEN p.is_traded = 1 THEN p.minute * 17 + 16 END,
    'verified', 'rest', 80, timestamptz '2026-01-01 00:00:00+00'
FROM unnest(%(symbols)s::text[]) WITH ORDINALITY AS s (symbol, number)
CROSS JOIN generate_series(%(start)s::timestamptz, %(last)s::timestamptz, %(step)s::interval)
    AS t (open_time)
CROSS JOIN LATERAL (
    SELECT
        extract(epoch FROM t.open_time)::bigint / 60 AS minute,
        (extract(epoch FROM t.open_time)::bigint / 60 + s.number * 7) %% 50 <> 0 AS has_trades
) AS m
CROSS JOIN LATERAL (
    SELECT
        m.minute,
        m.has_trades::integer AS is_traded,
        (3000000 + (m.minute * 7919 + s.number * 104729) %% 100003) * 0.01 AS price,
        (1 + (m.minute * 31 + s.number) %% 99991) * 0.00001 * m.has_trades::integer AS volume
) AS p
"""

# aggTrades three seconds apart, whose price crosses some of the footprint's buckets.
_TRADES = """
INSERT INTO market.agg_trades (
    symbol, day, agg_trade_id, price, quantity, first_trade_id, last_trade_id, trade_time,
    is_buyer_maker
)
SELECT
    s.symbol,
    (t.trade_time AT TIME ZONE 'UTC')::date,
    n.number,
    (3000000 + (n.number * 7919 + s.number * 104729) %% 20011) * 0.01,
    (1 + (n.number * 31 + s.number) %% 9973) * 0.00001,
    n.number, n.number, t.trade_time, n.number %% 7 < 3
FROM unnest(%(symbols)s::text[]) WITH ORDINALITY AS s (symbol, number)
CROSS JOIN generate_series(%(start)s::timestamptz, %(last)s::timestamptz, interval '3 seconds')
    AS t (trade_time)
CROSS JOIN LATERAL (SELECT extract(epoch FROM t.trade_time)::bigint / 3 AS number) AS n
ORDER BY t.trade_time, s.number
"""


def symbols(count: int) -> list[str]:
    """Return this many symbols, half of them of USD-M."""
    return [f"SYM{n:04}USDT{'.P' if n % 2 else ''}" for n in range(count)]


def write_minutes(
    connection: psycopg.Connection,
    names: Sequence[str],
    start: datetime,
    end: datetime,
    *,
    step: timedelta = timedelta(minutes=1),
    is_logged: bool = True,
) -> int:
    """Store minutes from ``start`` up to but without ``end``, and return their number.

    Args:
        is_logged: whether to write the change log; a first build does not need it.
    """
    month = start.replace(day=1, hour=0, minute=0)
    while month < end:
        connection.execute(
            "SELECT ops.ensure_partition('market.candles_1m'::regclass, %s)", (month,)
        )
        month = (month + timedelta(days=32)).replace(day=1)
    with connection.transaction():
        if not is_logged:
            connection.execute("SET LOCAL session_replication_role = replica")
        values = {"symbols": list(names), "start": start, "last": end - step, "step": step}
        return connection.execute(_MINUTES, values).rowcount


def write_trades(
    connection: psycopg.Connection, names: Sequence[str], start: datetime, end: datetime
) -> int:
    """Store twenty aggregate trades of each symbol and minute of a day; returns how many."""
    connection.execute("SELECT ops.ensure_partition('market.agg_trades'::regclass, %s)", (start,))
    values = {"symbols": list(names), "start": start, "last": end - timedelta(seconds=3)}
    return connection.execute(_TRADES, values).rowcount


@contextmanager
def dbt_home(database_url: str, home: Path) -> Iterator[dict[str, str]]:
    """Return the environment of dbt processes on a database, with a folder of their own."""
    home.mkdir(parents=True, exist_ok=True)
    yield {**os.environ, **dbt_environment(database_url, home=home), "PYTHONPATH": os.getcwd()}


def dbt(environment: dict[str, str], *arguments: str) -> float:
    """Run dbt in a process, as a task does, and return the seconds."""
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "dbt.cli.main", *arguments, "--no-use-colors"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=7_200,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"dbt {' '.join(arguments)}:\n{done.stdout}\n{done.stderr}")
    return time.perf_counter() - began


def today() -> datetime:
    """The start of the present UTC day."""
    return datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
