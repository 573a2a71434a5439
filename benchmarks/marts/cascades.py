"""Build the same bars by other means: hand-written SQL, polars, DuckDB.

These ignore outages and listings. Like the marts, each rolls every timeframe up from the next finer
one that divides it, and takes prices only from bars with trades.
"""

from __future__ import annotations

import json
import subprocess
import time
from decimal import Decimal
from pathlib import Path

import polars as pl
import psycopg

from benchmarks.marts.duckdb_rollup import MINUTES, PARENTS, SUMMED

CLIENTS_PYTHON = Path(".venv-clients/bin/python")
ORIGIN_MINUTES = 978_307_200 // 60
DECIMALS = ("open", "high", "low", "close", "volume", "quote_volume", "taker_buy_volume",
            "taker_buy_quote_volume")  # fmt: skip

Found = dict[str, tuple[Decimal, ...]]
"""Number of bars and the sum of each of their values, by timeframe."""
VALUES = (
    "symbol, open_time, open, high, low, close, volume, quote_volume, trade_count,"
    " taker_buy_volume, taker_buy_quote_volume, first_trade_id, last_trade_id, minute_count"
)
"""Columns that both the statements and the marts have."""

_STATEMENT = """
CREATE TABLE bare.candles_{name} AS
SELECT
    symbol,
    {bar} AS open_time,
    (array_agg(open ORDER BY open_time) FILTER (WHERE trade_count > 0))[1] AS open,
    max(high) FILTER (WHERE trade_count > 0) AS high,
    min(low) FILTER (WHERE trade_count > 0) AS low,
    (array_agg(close ORDER BY open_time DESC) FILTER (WHERE trade_count > 0))[1] AS close,
    sum(volume) AS volume,
    sum(quote_volume) AS quote_volume,
    sum(trade_count)::bigint AS trade_count,
    sum(taker_buy_volume) AS taker_buy_volume,
    sum(taker_buy_quote_volume) AS taker_buy_quote_volume,
    min(first_trade_id) AS first_trade_id,
    max(last_trade_id) AS last_trade_id,
    {count} AS minute_count
FROM {parent}
GROUP BY 1, 2;
ALTER TABLE bare.candles_{name} ADD PRIMARY KEY (symbol, open_time);
ANALYZE bare.candles_{name}
"""


def _statement(name: str, parent: str) -> str:
    source = "market.candles_1m" if parent == "1m" else f"bare.candles_{parent}"
    bar = (
        "date_trunc('month', open_time, 'UTC')"
        if name == "1mo"
        else f"date_bin('{MINUTES[name]} minutes', open_time, '2001-01-01 00:00:00+00')"
    )
    count = "count(*)::integer" if parent == "1m" else "sum(minute_count)::integer"
    return _STATEMENT.format(name=name, bar=bar, count=count, parent=source)


def by_hand(connection: psycopg.Connection) -> tuple[float, Found, dict[str, str]]:
    """Roll up by one statement for each timeframe, into tables with a primary key."""
    connection.execute("CREATE SCHEMA bare")
    began = time.perf_counter()
    for name, parent in PARENTS.items():
        connection.execute(_statement(name, parent).encode())
    seconds = time.perf_counter() - began
    found, digests = found_in(connection, "bare"), digests_of(connection, "bare")
    connection.execute("DROP SCHEMA bare CASCADE")
    return seconds, found, digests


def found_in(connection: psycopg.Connection, schema: str) -> Found:
    """Return the sums over a schema's bars."""
    found = {}
    for name in PARENTS:
        sums = ", ".join(f"sum({column})" for column in SUMMED)
        query = f"SELECT count(*), {sums} FROM {schema}.candles_{name}"  # noqa: S608
        row = connection.execute(query.encode()).fetchone()
        assert row is not None
        found[name] = tuple(map(Decimal, row))
    return found


def digests_of(connection: psycopg.Connection, schema: str) -> dict[str, str]:
    """Return the sum of the hashes of all bars, by timeframe; the order of bars does not matter."""
    digests = {}
    for name in PARENTS:
        query = (
            f"SELECT sum(hashtextextended(bars::text, 0)) FROM (SELECT {VALUES}"  # noqa: S608
            f" FROM {schema}.candles_{name}) AS bars"
        )
        row = connection.execute(query.encode()).fetchone()
        assert row is not None
        digests[name] = str(row[0])
    return digests


def export(connection: psycopg.Connection, path: Path) -> pl.DataFrame:
    """Return the minutes as a frame with exact decimals, and save them as a Parquet file."""
    names = ("symbol", *DECIMALS, "trade_count", "first_trade_id", "last_trade_id")
    columns = ", ".join(names)
    buffer = bytearray()
    with connection.cursor().copy(
        f"COPY (SELECT {columns}, extract(epoch FROM open_time)::bigint / 60 AS minute"  # noqa: S608
        " FROM market.candles_1m ORDER BY symbol, open_time) TO STDOUT (FORMAT csv)"
    ) as copy:
        for block in copy:
            buffer += block
    frame = pl.read_csv(
        bytes(buffer), has_header=False, new_columns=[*names, "minute"], infer_schema=False
    ).with_columns(
        pl.col(DECIMALS).cast(pl.Decimal(28, 8)),
        pl.col("trade_count", "first_trade_id", "last_trade_id", "minute").cast(pl.Int64),
        minute_count=pl.lit(1, dtype=pl.Int64),
    )
    frame = frame.with_columns(
        open_time=(pl.col("minute") * 60_000_000).cast(pl.Datetime("us"))
    ).drop("minute")
    frame.write_parquet(path)
    return frame


def by_polars(minutes: pl.DataFrame) -> tuple[float, Found]:
    """Roll up in memory with polars, in this process."""
    began = time.perf_counter()
    frames = {"1m": minutes}
    for name, parent in PARENTS.items():
        frames[name] = _grouped(frames[parent], name)
    seconds = time.perf_counter() - began
    return seconds, {
        name: (Decimal(frame.height), *(Decimal(frame[column].sum()) for column in SUMMED))
        for name, frame in frames.items()
        if name != "1m"
    }


def _grouped(finer: pl.DataFrame, name: str) -> pl.DataFrame:
    moment = pl.col("open_time")
    if name == "1mo":
        bar = moment.dt.truncate("1mo")
    else:
        width = MINUTES[name] * 60_000_000
        origin = ORIGIN_MINUTES * 60_000_000
        micros = moment.dt.epoch("us") - origin
        bar = (micros - micros % width + origin).cast(pl.Datetime("us"))
    summed = ("volume", "quote_volume", "trade_count", "taker_buy_volume",
              "taker_buy_quote_volume", "minute_count")  # fmt: skip
    has_trades = pl.col("trade_count") > 0
    return (
        finer.with_columns(bar=bar)
        .group_by("symbol", "bar", maintain_order=True)
        .agg(
            pl.col("open").filter(has_trades).first(),
            pl.col("high").filter(has_trades).max(),
            pl.col("low").filter(has_trades).min(),
            pl.col("close").filter(has_trades).last(),
            pl.col(summed).sum(),
            pl.col("first_trade_id").min(),
            pl.col("last_trade_id").max(),
        )
        .rename({"bar": "open_time"})
    )


def by_duckdb(path: Path) -> tuple[float, Found] | None:
    """Roll up in memory with DuckDB, in the clients' environment; None if it is not installed."""
    if not CLIENTS_PYTHON.exists():
        return None
    done = subprocess.run(
        [CLIENTS_PYTHON, "benchmarks/marts/duckdb_rollup.py", path],
        capture_output=True, text=True, timeout=600, check=True,
    )  # fmt: skip
    answer = json.loads(done.stdout)
    return answer["seconds"], {
        name: tuple(map(Decimal, values)) for name, values in answer["found"].items()
    }
