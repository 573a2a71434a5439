"""marts.indicators equals TA-Lib and polars, and does not depend on the requested range."""

from __future__ import annotations

import json
import math
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import psycopg
import pytest

from include.domain.timeframes import TIMEFRAMES
from tests.integration.dbt.conftest import BARS
from tests.integration.dbt.walks import START, simulated, walk, write

pytestmark = pytest.mark.long  # a million minutes
PYTHON = Path(__file__).parents[4] / ".venv-clients" / "bin" / "python"
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
CASES = [
    ("LONGUSDT", "1h"),
    ("LONGUSDT", "4h"),
    ("QUIETUSDT", "1h"),
    ("GAPUSDT", "1h"),
    ("DEARUSDT", "1d"),
    ("DEARUSDT", "1w"),
    ("DEARUSDT", "1M"),
    ("SHORTUSDT", "1h"),
    ("ONEUSDT", "1h"),
    ("COSUSDT", "1m"),
    ("COSUSDT", "5m"),
    ("BTCUSDT", "1m"),
]
YEAR_US = 365 * 86_400_000_000
PERCENT = ("rsi_14", "simple_return")


@pytest.fixture(scope="module")
def built(shared_market: Any, shared_dbt: Any) -> psycopg.Connection[Any]:
    """Walks and simulated minutes, with their bars and indicators."""
    connection: psycopg.Connection[Any] = shared_market.connection
    write(connection, walk("LONGUSDT", 3_200, HOUR))
    quiet = walk("QUIETUSDT", 2_600, HOUR, price=2e-4, seed=2, silent=range(300, 1_700))
    write(connection, quiet)
    gaps = walk("GAPUSDT", 2_000, HOUR, seed=3)
    write(connection, gaps[:700] + gaps[790:1_500] + gaps[1_502:])
    write(connection, walk("DEARUSDT", 420, DAY, price=60_000, decimals=2, seed=4))
    write(connection, walk("SHORTUSDT", 40, HOUR, seed=5))
    write(connection, walk("ONEUSDT", 1, HOUR, seed=6))
    write(connection, simulated("COSUSDT", 3_000))
    write(connection, simulated("BTCUSDT", 1_500))
    shared_dbt("run", "--select", BARS, "path:models/marts/indicators")
    shared_dbt("test", "--select", "path:models/marts/indicators")
    return connection


def bars(connection: psycopg.Connection[Any], symbol: str, timeframe: str) -> pl.DataFrame:
    return _frame(
        connection.execute(
            "SELECT open_time, close::float8, high::float8, low::float8, volume::float8,"
            " quote_volume::float8,"
            " to_char(open_time AT TIME ZONE 'UTC', %(form)s) AS session FROM marts.candles"
            " WHERE symbol = %(symbol)s AND timeframe = %(timeframe)s ORDER BY open_time",
            {
                "symbol": symbol,
                "timeframe": timeframe,
                "form": "YYYY" if timeframe in ("1d", "3d", "1w", "1M") else "YYYY-MM-DD",
            },
        )
    )


def indicators(
    connection: psycopg.Connection[Any],
    symbol: str,
    timeframe: str,
    *,
    start: datetime | None = None,
    end: datetime | None = None,
) -> pl.DataFrame:
    return _frame(
        connection.execute(
            "SELECT * FROM marts.indicators(%s, %s, coalesce(%s, '-infinity'::timestamptz),"
            " coalesce(%s, 'infinity'::timestamptz))",
            (symbol, timeframe, start, end),
        )
    )


def _frame(cursor: psycopg.Cursor[Any]) -> pl.DataFrame:
    assert cursor.description is not None
    names = [column.name for column in cursor.description]
    return pl.DataFrame(cursor.fetchall(), schema=names, orient="row", infer_schema_length=None)


@pytest.fixture(scope="module")
def by_talib(built: psycopg.Connection[Any]) -> dict[str, dict[str, list[float | None]]]:
    """TA-Lib's values for the bars of each symbol."""
    if not PYTHON.exists():
        pytest.fail("no .venv-clients; run `make setup-clients`", pytrace=False)
    series = {
        f"{symbol} {timeframe}": bars(built, symbol, timeframe)
        .drop("open_time", "quote_volume")
        .to_dict(as_series=False)
        for symbol, timeframe in CASES
    }
    done = subprocess.run(
        [PYTHON, "-I", Path(__file__).with_name("by_talib.py")],
        input=json.dumps(series),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    answers: dict[str, dict[str, list[float | None]]] = json.loads(done.stdout)
    return answers


@pytest.mark.parametrize(("symbol", "timeframe"), CASES)
def test_values_equal_talib_to_a_billionth(
    built: psycopg.Connection[Any],
    by_talib: dict[str, dict[str, list[float | None]]],
    symbol: str,
    timeframe: str,
) -> None:
    found = indicators(built, symbol, timeframe)
    found = found.with_columns(bollinger_middle=pl.col("sma_20"))
    closes = found["close"].to_list()
    assert len(found) == len(bars(built, symbol, timeframe))
    for column, wanted in by_talib[f"{symbol} {timeframe}"].items():
        for number, (got, want) in enumerate(zip(found[column], wanted, strict=True)):
            if got is None and (symbol, column) == ("QUIETUSDT", "rsi_14") and number > 14:
                # TA-Lib continues with the RSI of the last move, at least 550 hours ago.
                assert 850 < number < 1_700
            elif want is None or got is None:
                assert got is want, (column, number)
            else:
                # Relative to the price, so that small values of cheap coins count as well.
                scale = 1.0 if column in PERCENT else max(abs(want), closes[number])
                assert abs(got - want) <= 1e-9 * scale, (column, number, got, want)


@pytest.mark.parametrize(("symbol", "timeframe"), CASES)
def test_session_values_and_volatility_equal_polars(
    built: psycopg.Connection[Any], symbol: str, timeframe: str
) -> None:
    found = indicators(built, symbol, timeframe)
    intraday = timeframe not in ("1d", "3d", "1w", "1M")
    width_us = TIMEFRAMES[timeframe].width_us or YEAR_US / 12
    one = pl.col("open_time") if not intraday else pl.col("session")
    move = (pl.col("close") / pl.col("close").shift(1)).log()
    wanted = bars(built, symbol, timeframe).select(
        vwap=pl.col("quote_volume").cum_sum().over(one) / pl.col("volume").cum_sum().over(one),
        log_return=move,
        realised_volatility_30=(
            (move**2).rolling_mean(30, min_samples=30) * (YEAR_US / width_us)
        ).sqrt(),
    )
    for column in wanted.columns:
        for got, want in zip(found[column], wanted[column], strict=True):
            if want is None or math.isnan(want):
                assert got is None, column
            else:
                assert got == pytest.approx(want, rel=1e-9, abs=1e-7), column
    assert found["vwap"].drop_nulls().len() > 0.4 * len(found)


def test_values_do_not_depend_on_the_requested_range(built: psycopg.Connection[Any]) -> None:
    for symbol, timeframe, step in (("LONGUSDT", "1h", HOUR), ("GAPUSDT", "1h", HOUR)):
        all_rows = indicators(built, symbol, timeframe)
        for first, count in ((0, 3), (1_300, 400), (1_439, 2), (1_700, 20), (3_100, 500)):
            start, end = START + first * step, START + (first + count) * step
            wanted = all_rows.filter((pl.col("open_time") >= start) & (pl.col("open_time") < end))
            found = indicators(built, symbol, timeframe, start=start, end=end)
            assert found.rows() == wanted.rows()


def test_long_walk_spans_three_runs(built: psycopg.Connection[Any]) -> None:
    """The tests above depend on it: they cover the borders of runs."""
    runs = built.execute(
        "SELECT date_bin('60 days', open_time, '2001-01-01 00:00+00'), count(*)"
        " FROM marts.candles_1h WHERE symbol = 'LONGUSDT' GROUP BY 1 ORDER BY 1"
    ).fetchall()
    assert [count for _, count in runs] == [1_440, 1_440, 320]


@pytest.mark.parametrize("timeframe", ["1h", "1d"])
def test_stored_values_equal_the_function_bit_for_bit(
    built: psycopg.Connection[Any], timeframe: str
) -> None:
    stored = built.execute(f"SELECT * FROM marts.indicators_{timeframe}").fetchall()  # noqa: S608
    # the first column is the symbol, the last one the time of building
    rows = {(row[0], row[1]): row[2:-1] for row in stored}
    computed = built.execute(
        "SELECT symbol, i.* FROM (SELECT DISTINCT symbol FROM marts.candles_1d) AS s"
        " CROSS JOIN LATERAL marts.indicators(s.symbol, %s) AS i",
        (timeframe,),
    ).fetchall()
    assert rows == {(row[0], row[1]): row[2:] for row in computed}
    assert len(rows) > 400


def test_long_silence_has_no_rsi_and_no_band_width(
    built: psycopg.Connection[Any],
) -> None:
    quiet = indicators(built, "QUIETUSDT", "1h", start=START + 1_600 * HOUR)[0].to_dicts()[0]
    assert quiet["rsi_14"] is None
    assert quiet["bollinger_upper"] == pytest.approx(quiet["bollinger_lower"], rel=1e-12)
    assert quiet["vwap"] is None
    assert quiet["obv"] == 0


def test_aggregates_accept_any_period_and_ignore_nulls(built: psycopg.Connection[Any]) -> None:
    rows = built.execute(
        "SELECT marts.ema(value, 3) OVER bars, marts.wilder(value, 2) OVER bars"
        " FROM (VALUES (1, 2.0), (2, 4.0), (3, NULL), (4, 9.0), (5, 1.0)) AS v (bar, value)"
        " WINDOW bars AS (ORDER BY bar)"
    ).fetchall()
    assert rows == [(None, None), (None, 3), (None, 3), (5, 6), (3, 3.5)]


def test_unknown_symbols_are_empty_and_unknown_timeframes_fail(
    built: psycopg.Connection[Any],
) -> None:
    assert indicators(built, "NONEUSDT", "1h").is_empty()
    assert indicators(built, "LONGUSDT", "1h", end=datetime(2001, 1, 1, tzinfo=UTC)).is_empty()
    with pytest.raises(psycopg.errors.InvalidParameterValue, match=r"timeframe '7h'.* 1h, 2h"):
        built.execute("SELECT * FROM marts.indicators('LONGUSDT', '7h')")
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="timeframe null"):
        built.execute("SELECT * FROM marts.indicators('LONGUSDT', NULL)")


def test_reader_role_may_call_indicators(built: psycopg.Connection[Any]) -> None:
    with built.transaction(force_rollback=True):
        built.execute("SET LOCAL ROLE candelabra_reader")
        assert not indicators(built, "SHORTUSDT", "1h").is_empty()
