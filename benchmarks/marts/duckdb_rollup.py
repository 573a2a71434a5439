"""The roll-up in DuckDB: ``python marts_duckdb.py PARQUET``, in an environment with DuckDB.

Reads the minutes into memory first; prints the seconds of the roll-up alone and its results.
"""

from __future__ import annotations

import json
import sys
import time

PARENTS = {
    "3m": "1m", "5m": "1m", "15m": "5m", "30m": "15m", "1h": "30m", "2h": "1h", "4h": "2h",
    "6h": "2h", "8h": "4h", "12h": "6h", "1d": "12h", "3d": "1d", "1w": "1d", "1mo": "1d",
}  # fmt: skip
MINUTES = {
    "3m": 3, "5m": 5, "15m": 15, "30m": 30, "1h": 60, "2h": 120, "4h": 240, "6h": 360, "8h": 480,
    "12h": 720, "1d": 1440, "3d": 4320, "1w": 10080,
}  # fmt: skip

SUMMED = (
    "open", "high", "low", "close", "volume", "quote_volume", "trade_count", "taker_buy_volume",
    "taker_buy_quote_volume", "first_trade_id", "last_trade_id", "minute_count",
)  # fmt: skip
"""Columns whose sums are compared."""

STATEMENT = """
CREATE TABLE candles_{name} AS
SELECT
    symbol,
    {bar} AS bar,
    arg_min(open, open_time) FILTER (WHERE trade_count > 0) AS open,
    max(high) FILTER (WHERE trade_count > 0) AS high,
    min(low) FILTER (WHERE trade_count > 0) AS low,
    arg_max(close, open_time) FILTER (WHERE trade_count > 0) AS close,
    sum(volume) AS volume,
    sum(quote_volume) AS quote_volume,
    sum(trade_count) AS trade_count,
    sum(taker_buy_volume) AS taker_buy_volume,
    sum(taker_buy_quote_volume) AS taker_buy_quote_volume,
    min(first_trade_id) AS first_trade_id,
    max(last_trade_id) AS last_trade_id,
    sum(minute_count) AS minute_count
FROM candles_{parent}
GROUP BY symbol, bar;
ALTER TABLE candles_{name} RENAME bar TO open_time
"""


def bar_of(name: str) -> str:
    """Return the SQL expression of a bar's open time."""
    if name == "1mo":
        return "date_trunc('month', open_time)"
    return f"time_bucket(INTERVAL '{MINUTES[name]} minutes', open_time, TIMESTAMP '2001-01-01')"


def main(path: str) -> None:
    """Run the roll-up; print seconds, and the bars and sums of each timeframe, as JSON."""
    import duckdb  # not in the environment that imports the tables above

    database = duckdb.connect()
    database.execute("CREATE TABLE candles_1m AS SELECT * FROM read_parquet(?)", [path])
    began = time.perf_counter()
    for name, parent in PARENTS.items():
        database.execute(STATEMENT.format(name=name, parent=parent, bar=bar_of(name)))
    seconds = time.perf_counter() - began
    found = {}
    for name in PARENTS:
        sums = ", ".join(f"sum({column})::VARCHAR" for column in SUMMED)
        query = f"SELECT count(*), {sums} FROM candles_{name}"  # noqa: S608
        found[name] = database.execute(query).fetchone()
    print(json.dumps({"seconds": seconds, "found": found}))


if __name__ == "__main__":
    main(sys.argv[1])
