"""Footprint and volume profile of a million trades against polars, and their cost to COPY.

dbt builds the marts in full, as always: footprint, profile and sessions of one symbol's day. The
time is that of the models, without the start of dbt. Polars groups the same rows by the same
buckets on all cores. It has the rows in memory already as integers, while PostgreSQL reads them
from its table and sums ``numeric``. Then five of those minutes get a late trade each, and are
rebuilt.

Each row stores the transaction that wrote it, with a block range index, so that a build finds new
rows. The benchmark measures the cost of this to COPY against the same table without either, and
against a trigger on insert that would do the same (candles have one). The three take turns.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import polars as pl
import psycopg

from deploy.local.postgres import EmbeddedPostgres
from include.jobs.dbt_env import dbt_environment
from include.store.migrate import migrate

ROWS = 1_000_000
COPIED_ROWS = 200_000
BATCH_ROWS = 20_000
"""Default batch size of raw capture."""
TURNS = 7
DAY = "2025-11-21"
START = "2025-11-21T00:00:00Z"
STEP = 2_000
"""Bucket of prices around 60,000 at a tick of 0.01, in ticks."""
MODELS = ("footprint_1m", "int_trades__hours", "volume_profile", "trade_sessions")
COLUMNS = (
    "symbol, day, agg_trade_id, price, quantity, first_trade_id, last_trade_id, trade_time, "
    "is_buyer_maker"
)
WITHOUT = (
    "DROP INDEX market.agg_trades_written",
    "ALTER TABLE market.agg_trades DROP COLUMN written_by",
)
TRIGGER = (
    "CREATE TABLE ops.logged (symbol text, day date, minutes tstzrange)",
    (
        "CREATE FUNCTION ops.log_inserted() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " INSERT INTO ops.logged"
        " SELECT symbol, day, tstzrange(min(trade_time), max(trade_time), '[]')"
        " FROM new_rows GROUP BY symbol, day; RETURN NULL; END $$"
    ),
    (
        "CREATE TRIGGER log_inserted AFTER INSERT ON market.agg_trades REFERENCING NEW TABLE AS"
        " new_rows FOR EACH STATEMENT EXECUTE FUNCTION ops.log_inserted()"
    ),
)


def trades(rows: int) -> pl.DataFrame:
    """Aggregate trades of one UTC day: ticks, steps (integers), times (µs), sides."""
    number = pl.int_range(rows, dtype=pl.Int64)
    walk = ((number * 7_919) % 2_003 - 1_001) + (number // 4_000) * (
        (number // 90_000) % 2 * 20 - 9
    )
    return pl.select(
        id=number,
        price=6_000_000 + walk * 10,
        quantity=(number * 31) % 9_973 + 1,
        time_us=number * (86_400_000_000 // rows),
        is_maker=(number * 13) % 7 < 3,
    )


def run() -> None:
    """Print the rates and their ratios."""
    with tempfile.TemporaryDirectory(prefix="candelabra-bench-") as folder:
        Path(folder).chmod(0o755)
        with EmbeddedPostgres(Path(folder) / "pg") as server:
            _measure_builds(server, Path(folder))
            _measure_copy(server)


def _measure_builds(server: EmbeddedPostgres, home: Path) -> None:
    url = server.create_database("marts")
    migrate(url)
    frame = trades(ROWS)
    with psycopg.connect(url, autocommit=True) as connection, _dbt(server, connection, home) as dbt:
        for text in _batches(frame, "BTCUSDT", BATCH_ROWS):
            _copy(connection, text)
        connection.execute("VACUUM ANALYZE market.agg_trades")
        full_s = dbt("run", "--select", "stg_market__instruments", *MODELS)
        polars_s = min(_grouped_s(frame) for _ in range(3))
        found = connection.execute("SELECT count(*) FROM marts.footprint_1m").fetchone()
        for number in range(5):
            late = frame.head(1).with_columns(
                id=pl.lit(2 * ROWS + number), time_us=pl.lit(number * 10_000_000_000)
            )
            _copy(connection, next(_batches(late, "BTCUSDT", 1)))
        touched_s = dbt("run", "--select", *MODELS)
    print(
        f"trade_marts: {ROWS:,} trades to {found[0] if found else 0:,} buckets of minutes, profile "
        f"and session: {ROWS / full_s:,.0f} rows/s ({full_s:.2f} s); polars from memory "
        f"{polars_s:.2f} s: {full_s / polars_s:.0f} times; five late trades: {touched_s:.2f} s"
    )


def _grouped_s(frame: pl.DataFrame) -> float:
    """Polars' time for the same sums."""
    began = time.perf_counter()
    sides = (
        pl.col("quantity").filter(pl.col("is_maker")).sum().alias("bid"),
        pl.col("quantity").filter(~pl.col("is_maker")).sum().alias("ask"),
        pl.len().alias("trades"),
    )
    footprint = (
        frame.lazy()
        .group_by(pl.col("time_us") // 60_000_000, pl.col("price") // STEP)
        .agg(*sides)
        .collect()
    )
    footprint.group_by("price").agg(pl.sum("bid", "ask", "trades")).sort("price")
    return time.perf_counter() - began


@contextmanager
def _dbt(
    server: EmbeddedPostgres, connection: psycopg.Connection[Any], home: Path
) -> Iterator[Any]:
    """Prepare dbt in this process; a call returns the seconds that its models took together."""
    from dbt.cli.main import dbtRunner

    connection.execute("ALTER ROLE candelabra_dbt PASSWORD 'bench'")
    url = server.url("marts", user="candelabra_dbt", password="bench")  # noqa: S106
    before = dict(os.environ)
    os.environ.update(dbt_environment(url, home=home))

    def call(*arguments: str) -> float:
        done = dbtRunner().invoke([*arguments, "--quiet"])
        if not done.success:
            raise RuntimeError(f"dbt {' '.join(arguments)} failed: {done.exception or done.result}")
        return sum(
            result.execution_time for result in done.result.results if result.node.name in MODELS
        )

    try:
        yield call
    finally:
        os.environ.clear()
        os.environ.update(before)


def _measure_copy(server: EmbeddedPostgres) -> None:
    variants = {"as it is": (), "without": WITHOUT, "trigger instead": WITHOUT + TRIGGER}
    texts = list(_batches(trades(COPIED_ROWS), None, BATCH_ROWS))
    rates: dict[str, list[float]] = {name: [] for name in variants}
    connections = {}
    for number, (name, statements) in enumerate(variants.items()):
        url = server.create_database(f"copied_{number}")
        migrate(url)
        connections[name] = psycopg.connect(url, autocommit=True)
        for statement in statements:
            connections[name].execute(statement.encode())
    for _ in range(TURNS):
        for name, connection in connections.items():
            connection.execute("TRUNCATE market.agg_trades")
            connection.execute("CHECKPOINT")
            began = time.perf_counter()
            for text in texts:
                _copy(connection, text)
            rates[name].append(COPIED_ROWS / (time.perf_counter() - began))
    for connection in connections.values():
        connection.close()
    rate = {name: statistics.median(values) for name, values in rates.items()}
    shown = ", ".join(
        f"{name} {value:,.0f} rows/s ({value / rate['without']:.2f})"
        for name, value in rate.items()
    )
    print(f"trade_marts: COPY of {BATCH_ROWS:,} rows at a time: {shown}")


def _batches(frame: pl.DataFrame, symbol: str | None, rows: int) -> Iterator[bytes]:
    """Return COPY lines; of a hundred symbols in turn if none is given."""
    name = pl.lit(symbol) if symbol else pl.format("SYM{}USDT", pl.col("id") % 100)
    moment = pl.from_epoch(pl.col("time_us"), time_unit="us")
    table = frame.select(
        name.alias("symbol"),
        pl.lit(DAY).alias("day"),
        pl.col("id"),
        pl.format(
            "{}.{}",
            pl.col("price") // 100,
            (pl.col("price") % 100 + 100).cast(pl.String).str.tail(2),
        ).alias("price"),
        pl.format("0.{}", (pl.col("quantity") + 100_000).cast(pl.String).str.tail(5)).alias(
            "quantity"
        ),
        (pl.col("id") * 2).alias("first"),
        (pl.col("id") * 2 + 1).alias("last"),
        pl.format(DAY + "T{}Z", moment.dt.strftime("%H:%M:%S%.6f")).alias("time"),
        pl.when("is_maker").then(pl.lit("t")).otherwise(pl.lit("f")).alias("maker"),
    )
    for part in table.iter_slices(rows):
        yield part.write_csv(include_header=False, separator="\t").encode()


def _copy(connection: psycopg.Connection[Any], text: bytes) -> None:
    connection.execute("SELECT ops.ensure_partition('market.agg_trades'::regclass, %s)", (START,))
    with connection.cursor().copy(f"COPY market.agg_trades ({COLUMNS}) FROM STDIN") as copy:
        copy.write(text)
