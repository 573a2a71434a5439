"""Store minutes of foreign files that lack values; they take no part in the merge."""

from __future__ import annotations

from datetime import UTC, datetime

import polars as pl

from include.domain.columns.candles import TIME
from include.store.candles.merging import Connection, write_csv
from include.store.postgres.pools import translated

_VALUES = (
    "open", "high", "low", "close", "volume", "quote_volume", "trade_count", "taker_buy_volume",
    "taker_buy_quote_volume",
)  # fmt: skip

_CREATE = """
CREATE TEMPORARY TABLE IF NOT EXISTS foreign_rows (LIKE market.foreign_candles_1m)
ON COMMIT DELETE ROWS
"""
_COPY = """
COPY pg_temp.foreign_rows (
    symbol, open_time, file, origin, open, high, low, close, volume, quote_volume, trade_count,
    taker_buy_volume, taker_buy_quote_volume, imported_at
) FROM STDIN (FORMAT csv, ENCODING 'UTF8')
"""
_STORE = """
INSERT INTO market.foreign_candles_1m AS f
SELECT * FROM pg_temp.foreign_rows ORDER BY symbol, open_time, file, origin
ON CONFLICT (symbol, open_time, file, origin) DO UPDATE SET
    open = excluded.open,
    high = excluded.high,
    low = excluded.low,
    close = excluded.close,
    volume = excluded.volume,
    quote_volume = excluded.quote_volume,
    trade_count = excluded.trade_count,
    taker_buy_volume = excluded.taker_buy_volume,
    taker_buy_quote_volume = excluded.taker_buy_quote_volume,
    imported_at = excluded.imported_at
WHERE
    (
        f.open, f.high, f.low, f.close, f.volume, f.quote_volume, f.trade_count,
        f.taker_buy_volume, f.taker_buy_quote_volume
    ) IS DISTINCT FROM (
        excluded.open, excluded.high, excluded.low, excluded.close, excluded.volume,
        excluded.quote_volume, excluded.trade_count, excluded.taker_buy_volume,
        excluded.taker_buy_quote_volume
    )
"""


def store_foreign(
    connection: Connection, frame: pl.DataFrame, *, file: str, origin: str = ""
) -> int:
    """Store rows of a file in ``market.foreign_candles_1m``; repeating it changes nothing.

    Args:
        frame: ``CANDLE_SCHEMA``; null means unknown.
        file: name of the file; its earlier rows of these minutes are replaced.
        origin: distinguishes files of one name.

    Returns:
        Number of rows that are new or have other values than before.

    Raises:
        TransientError: the database is away.
        PermanentError: a row breaks a rule of the table.
    """
    if frame.is_empty():
        return 0
    now = pl.lit(datetime.now(UTC), dtype=TIME)
    rows = frame.select(
        "symbol",
        "open_time",
        pl.lit(file).alias("file"),
        pl.lit(origin).alias("origin"),
        *_VALUES,
        imported_at=now,
    )
    with translated(connection), connection.transaction(), connection.cursor() as cursor:
        cursor.execute(_CREATE)
        with cursor.copy(_COPY) as copy:
            write_csv(rows, copy)
        return cursor.execute(_STORE).rowcount
