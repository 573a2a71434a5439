"""Rows a second into ``market.candles_1m``, against COPY plus INSERT … ON CONFLICT alone."""

from __future__ import annotations

import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import psycopg

from deploy.local.postgres import EmbeddedPostgres
from include.domain.candles import SOURCE_RANK, Source
from include.store.candles.merging import merge_frame
from include.store.migrate import migrate
from include.store.postgres.pools import connect

ROWS = 300_000
SYMBOLS = 10


def offers() -> pl.DataFrame:
    """Rows of a daily dump, as text with eight decimals."""
    minutes = ROWS // SYMBOLS
    start = datetime(2024, 1, 1, tzinfo=UTC)
    times = pl.datetime_range(
        start, start + timedelta(minutes=minutes - 1), "1m", time_zone="UTC", eager=True
    ).dt.cast_time_unit("us")
    price = pl.Series([f"{60_000 + n % 1000}.12000000" for n in range(ROWS)])
    return pl.DataFrame(
        {
            "symbol": [f"SYM{n}USDT" for n in range(SYMBOLS) for _ in range(minutes)],
            "open_time": pl.concat([times] * SYMBOLS),
            **{name: price for name in ("open", "high", "low", "close")},
            "volume": pl.Series([f"{n % 500 + 2}.50000000" for n in range(ROWS)]),
            "quote_volume": pl.Series([f"{n % 900 + 2}.25000000" for n in range(ROWS)]),
            "trade_count": pl.Series([n % 300 + 1 for n in range(ROWS)]),
            "taker_buy_volume": pl.Series(["1.00000000"] * ROWS),
            "taker_buy_quote_volume": pl.Series(["1.00000000"] * ROWS),
            "first_trade_id": pl.Series([None] * ROWS, dtype=pl.Int64),
            "last_trade_id": pl.Series([None] * ROWS, dtype=pl.Int64),
            "status": ["verified"] * ROWS,
            "source": [Source.DUMP_DAILY.value] * ROWS,
            "source_rank": pl.Series([SOURCE_RANK[Source.DUMP_DAILY]] * ROWS, dtype=pl.Int16),
            "evidence_at": pl.Series([start] * ROWS, dtype=pl.Datetime("us", "UTC")),
        }
    )


def run() -> None:
    """Print both rates and their ratio; a second merge of the same rows shows repeats."""
    frame = offers()
    with tempfile.TemporaryDirectory(prefix="candelabra-bench-") as folder:
        Path(folder).chmod(0o755)
        with EmbeddedPostgres(Path(folder) / "pg") as server:
            bare_url = server.create_database("bare")
            bare_s = _bare(bare_url, frame)
            url = server.create_database("merge")
            migrate(url)
            with connect(url, application_name="benchmark") as connection:
                merge_s = _timed(connection, frame)
                again_s = _timed(connection, frame)
    print(
        f"merge: {ROWS / merge_s:,.0f} rows/s new, {ROWS / again_s:,.0f} rows/s repeated; "
        f"COPY and upsert alone {ROWS / bare_s:,.0f}: ratio {bare_s / merge_s:.2f}"
    )


def _timed(connection: psycopg.Connection, frame: pl.DataFrame) -> float:
    began = time.perf_counter()
    merge_frame(connection, frame)
    return time.perf_counter() - began


def _bare(url: str, frame: pl.DataFrame) -> float:
    """The plain way: COPY of the same text to a temporary table, one upsert."""
    text = frame.drop("first_trade_id", "last_trade_id").write_csv(include_header=False)
    columns = """symbol text, open_time timestamptz, open numeric, high numeric, low numeric,
        close numeric, volume numeric, quote_volume numeric, trade_count bigint,
        taker_buy_volume numeric, taker_buy_quote_volume numeric, status text, source text,
        source_rank smallint, evidence_at timestamptz"""
    with psycopg.connect(url) as connection:
        connection.execute(f"CREATE TABLE candles ({columns}, PRIMARY KEY (symbol, open_time))")
        connection.commit()
        began = time.perf_counter()
        connection.execute(f"CREATE TEMP TABLE offered ({columns}) ON COMMIT DROP")
        with connection.cursor().copy("COPY offered FROM STDIN (FORMAT csv)") as copy:
            copy.write(text)
        connection.execute(
            "INSERT INTO candles SELECT * FROM offered ON CONFLICT (symbol, open_time) "
            "DO UPDATE SET close = excluded.close WHERE candles.close <> excluded.close"
        )
        connection.commit()
        return time.perf_counter() - began
