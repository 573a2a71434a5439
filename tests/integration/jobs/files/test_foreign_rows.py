"""Foreign minutes keep their unknown values, and refuse impossible ones."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import polars as pl
import psycopg
import pytest

from include.domain.columns.candles import CANDLE_SCHEMA
from include.domain.timeframes import from_us
from include.errors import PermanentError
from include.store.candles.foreign import store_foreign

ROOT = Path(__file__).parents[4]
AT = from_us(1_735_689_600_000_000)
Connection = psycopg.Connection[Any]


def frame(**values: object) -> pl.DataFrame:
    row = {
        "symbol": "ABC", "open_time": AT, "open": "1", "high": "2", "low": "1", "close": "2",
        **values,
    }  # fmt: skip
    return pl.DataFrame([{name: row.get(name) for name in CANDLE_SCHEMA}], schema=CANDLE_SCHEMA)


def test_unknown_values_are_null_and_repeats_change_nothing(connection: Connection) -> None:
    given = frame(volume="0.10", trade_count=0)
    assert store_foreign(connection, given.head(0), file="a.csv") == 0
    assert [store_foreign(connection, given, file="a.csv") for _ in range(2)] == [1, 0]
    assert store_foreign(connection, given, file="b.csv") == 1
    assert store_foreign(connection, frame(volume="0.20"), file="b.csv") == 1
    rows = connection.execute(
        "SELECT file, volume::text, quote_volume, trade_count, taker_buy_volume "
        "FROM market.foreign_candles_1m ORDER BY file"
    ).fetchall()
    assert rows == [("a.csv", "0.10", None, 0, None), ("b.csv", "0.20", None, None, None)]


@pytest.mark.parametrize(
    "values",
    [
        {"high": "1.5"},
        {"low": "0"},
        {"volume": "-1"},
        {"volume": "1", "taker_buy_volume": "2"},
        {"trade_count": -1},
        {"volume": "NaN"},
        {
            "volume": "1", "quote_volume": "1", "trade_count": 1, "taker_buy_volume": "1",
            "taker_buy_quote_volume": "1",
        },
    ],
)  # fmt: skip
def test_impossible_rows_are_refused(connection: Connection, values: dict[str, object]) -> None:
    with pytest.raises(PermanentError, match="foreign_candles_1m"):
        store_foreign(connection, frame(**values), file="a.csv")


def test_command_maps_columns_and_says_where_the_rows_are(
    connection: Connection, database_url: str, tmp_path: Path
) -> None:
    (tmp_path / "mine.csv").write_text(
        "date,open,high,low,close,Volume BTC\n2026-11-18 00:00:00,1,2,1,2,3\n"
    )
    run = subprocess.run(
        [
            sys.executable, "-m", "cli", "import", "mine.csv", "--symbol", "btc/usdt",
            "--columns", "volume=Volume BTC",
        ],
        cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False,
        env={
            "PATH": os.environ["PATH"], "JOBS_DATABASE_URL": database_url,
            "PYTHONPATH": str(ROOT), "CANDELABRA_HOME": str(tmp_path),
        },
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    assert "1 row lacks values; stored in market.foreign_candles_1m" in run.stdout
    rows = connection.execute(
        "SELECT symbol, volume::text, trade_count FROM market.foreign_candles_1m"
    ).fetchall()
    assert rows == [("BTCUSDT", "3", None)]
