"""Indicators: 500 bars by the function, a year of hours in full, and one new hour of many symbols.

The full build is held against reading the same bars from PostgreSQL, computing the same values
with polars and storing them there. ``INDICATORS_SYMBOLS`` sets the many (1,500).
"""

from __future__ import annotations

import io
import json
import os
import random
import tempfile
import time
from datetime import datetime, timedelta
from pathlib import Path

import polars as pl
import psycopg

from benchmarks.marts_rows import dbt, dbt_home, symbols, today, write_minutes
from benchmarks.stage import percentile
from deploy.local.postgres import EmbeddedPostgres
from include.store.migrate import migrate

HOUR = timedelta(hours=1)
YEAR = timedelta(days=365)
READS = 100
BARS = 500
BUILT = ("+indicators_1h", "indicators")


def run() -> None:
    """Print the figures."""
    with tempfile.TemporaryDirectory(prefix="candelabra-bench-") as folder:
        Path(folder).chmod(0o755)
        with EmbeddedPostgres(Path(folder) / "pg") as server:
            _a_year_of_hours(server.create_database("year"), Path(folder) / "year")
            _one_new_hour(server.create_database("many"), Path(folder) / "many")


def _a_year_of_hours(url: str, home: Path) -> None:
    migrate(url)
    with psycopg.connect(url, autocommit=True) as connection, dbt_home(url, home) as environment:
        connection.execute("SET timezone = 'UTC'")
        # one minute makes an hour: the bars below are not what is measured
        names = symbols(10)
        write_minutes(connection, names, today() - YEAR, today(), step=HOUR, is_logged=False)
        minute_days = timedelta(days=10)
        write_minutes(connection, ["MINUTES"], today() - minute_days, today(), is_logged=False)
        connection.execute("VACUUM ANALYZE market.candles_1m")
        dbt(environment, "run", "--select", "path:models/staging", *BUILT)
        dbt(environment, "run", "--select", "indicators_1h", "--full-refresh")
        build_s = _statements_s(environment)
        rows, polars_s = _by_polars(connection)
        print(
            f"full build of indicators_1h, {rows} hours of {len(names)} symbols: {build_s:.2f} s "
            f"({build_s / rows * 1e6:.0f} µs a bar); read, computed by polars and stored: "
            f"{polars_s:.2f} s: ratio {build_s / polars_s:.1f}"
        )
        _reads(connection, "1h", names, today() - YEAR, YEAR - BARS * HOUR)
        minute = timedelta(minutes=1)
        _reads(connection, "1m", ["MINUTES"], today() - minute_days, minute_days - BARS * minute)


def _reads(
    connection: psycopg.Connection,
    timeframe: str,
    names: list[str],
    start: datetime,
    span: timedelta,
) -> None:
    """500 bars somewhere, many times, by one session."""
    places = random.Random(1)
    width = HOUR if timeframe == "1h" else timedelta(minutes=1)
    took_ms = []
    for _ in range(READS):
        begin = start + int(places.random() * (span // width)) * width
        began = time.perf_counter()
        found = connection.execute(
            "SELECT * FROM marts.indicators(%s, %s, %s, %s)",
            (places.choice(names), timeframe, begin, begin + BARS * width),
        ).fetchall()
        took_ms.append((time.perf_counter() - began) * 1e3)
        assert len(found) == BARS
    took_ms.sort()
    print(
        f"marts.indicators, {BARS} bars of {timeframe}: median {took_ms[READS // 2]:.1f} ms, "
        f"p99 {percentile(took_ms, 0.99):.1f} ms of {READS} reads"
    )


def _one_new_hour(url: str, home: Path) -> None:
    migrate(url)
    names = symbols(int(os.environ.get("INDICATORS_SYMBOLS", "1500")))
    with psycopg.connect(url, autocommit=True) as connection, dbt_home(url, home) as environment:
        connection.execute("SET timezone = 'UTC'")
        start = today() - timedelta(days=10)
        write_minutes(connection, names, start, today(), step=HOUR, is_logged=False)
        connection.execute("VACUUM ANALYZE market.candles_1m")
        dbt(environment, "run", "--select", "path:models/staging", *BUILT)
        write_minutes(connection, names, today(), today() + HOUR, step=HOUR)
        dbt(environment, "run", "--select", *BUILT)
        took_s = _statements_s(environment)
    print(f"one new hour of {len(names)} symbols in indicators_1h: {took_s:.2f} s of statements")


def _statements_s(environment: dict[str, str]) -> float:
    """Seconds that indicators_1h took in the last run, without dbt around it."""
    results = json.loads(Path(environment["DBT_TARGET_PATH"], "run_results.json").read_text())
    (took_s,) = (
        result["execution_time"]
        for result in results["results"]
        if result["unique_id"].endswith(".indicators_1h")
    )
    return float(took_s)


def _by_polars(connection: psycopg.Connection) -> tuple[int, float]:
    """Rows, and seconds to read, compute and store them; the values are those of the mart."""
    names = (
        "symbol, open_time, sma_20, sma_50, sma_200, ema_20, ema_50, rsi_14, macd, macd_signal,"
        " atr_14, bollinger_upper, bollinger_lower, vwap, log_return, realised_volatility_30"
    )
    began = time.perf_counter()
    bars = "symbol, open_time, close, high, low, volume, quote_volume"
    found = _indicators(_read(connection, bars, "candles_1h"))
    connection.execute(
        f"CREATE TABLE public.by_polars AS SELECT {names} FROM marts.indicators_1h"  # noqa: S608
        " WITH NO DATA"
    )
    with connection.cursor().copy(f"COPY public.by_polars ({names}) FROM STDIN CSV") as copy:
        copy.write(found.select(names.replace(" ", "").split(",")).write_csv(include_header=False))
    took_s = time.perf_counter() - began
    stored = _read(connection, names, "indicators_1h")
    for column in stored.columns[2:]:
        difference = (stored[column] - found[column]).abs() / stored[column].abs().clip(1)
        assert stored[column].null_count() == found[column].null_count(), column
        assert float(difference.max()) < 1e-9, column  # type: ignore[arg-type]
    return len(found), took_s


def _read(connection: psycopg.Connection, columns: str, table: str) -> pl.DataFrame:
    buffer = io.BytesIO()
    query = f"COPY (SELECT {columns} FROM marts.{table} ORDER BY 1, 2) TO STDOUT CSV HEADER"  # noqa: S608
    with connection.cursor().copy(query) as copy:
        for block in copy:
            buffer.write(block)
    frame = pl.read_csv(buffer.getvalue(), infer_schema_length=None)
    return frame.with_columns(pl.col(pl.Int64).cast(pl.Float64))


def _indicators(bars: pl.DataFrame) -> pl.DataFrame:
    close, before = pl.col("close"), pl.col("close").shift(1)
    number = pl.int_range(pl.len())
    day = ["symbol", pl.col("open_time").str.slice(0, 10)]

    def smoothed(value: pl.Expr, count: int, alpha: float, *, first: int) -> pl.Expr:
        """Recursive average whose seed is the mean of the ``count`` values up to ``first``."""
        seed = pl.when(number == first).then(value.rolling_mean(count))
        return seed.when(number > first).then(value).ewm_mean(alpha=alpha, adjust=False)

    def ema(value: pl.Expr, count: int, *, first: int | None = None) -> pl.Expr:
        return smoothed(value, count, 2 / (count + 1), first=count - 1 if first is None else first)

    move = close - before
    gain, loss = (smoothed(m.clip(0), 14, 1 / 14, first=14) for m in (move, -move))
    reach = pl.max_horizontal(pl.col("high"), before) - pl.min_horizontal(pl.col("low"), before)
    line = ema(close, 12, first=25) - ema(close, 26)
    mean, width = close.rolling_mean(20), 2 * close.rolling_std(20, ddof=0)
    log_return = (close / before).log()
    values = {
        "sma_20": mean,
        "sma_50": close.rolling_mean(50),
        "sma_200": close.rolling_mean(200),
        "ema_20": ema(close, 20),
        "ema_50": ema(close, 50),
        "rsi_14": 100 * gain / (gain + loss),
        "line": line,
        "atr_14": smoothed(pl.when(number > 0).then(reach), 14, 1 / 14, first=14),
        "bollinger_upper": mean + width,
        "bollinger_lower": mean - width,
        "log_return": log_return,
        "realised_volatility_30": ((log_return**2).rolling_mean(30) * 8_760).sqrt(),
    }
    return (
        bars.with_columns(**{name: value.over("symbol") for name, value in values.items()})
        .with_columns(macd_signal=ema(pl.col("line"), 9, first=33).over("symbol"))
        .with_columns(
            macd=pl.when(pl.col("macd_signal").is_not_null()).then(pl.col("line")),
            vwap=pl.when(pl.col("volume").cum_sum().over(day) > 0).then(
                pl.col("quote_volume").cum_sum().over(day) / pl.col("volume").cum_sum().over(day)
            ),
        )
    )
