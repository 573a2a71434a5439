"""Faulty minutes, which quality rules report, never fail a build."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from psycopg import sql

START = datetime(2025, 1, 30, 21, 0, tzinfo=UTC)
FAULTY, FINE = "ODDUSDT", "FINEUSDT"
SILENT = (
    "volume = 0, quote_volume = 0, trade_count = 0, taker_buy_volume = 0,"
    " taker_buy_quote_volume = 0, first_trade_id = NULL, last_trade_id = NULL"
)
FAULTS = {
    6: "last_trade_id = first_trade_id - 5000",
    12: "first_trade_id = NULL, last_trade_id = NULL",
    18: "open = 0, high = 0, low = 0, close = 0",
    24: "quote_volume = 1000 * quote_volume",
    31: "trade_count = 1000000",
    # Two silent minutes with different prices around a missing minute.
    36: f"open = 1000, high = 1000, low = 1000, close = 1000, {SILENT}",
    38: f"open = 1040, high = 1040, low = 1040, close = 1040, {SILENT}",
    # A silent minute that is not flat.
    43: f"open = 1000, high = 1010, low = 990, close = 1003, {SILENT}",
}


def test_faulty_minutes_fail_no_layer(market: Any, dbt: Any, coarse: Any) -> None:
    for symbol in (FAULTY, FINE):
        market.write(symbol, START, 200)
    for minute, fault in FAULTS.items():
        update = sql.SQL("UPDATE market.candles_1m SET {} WHERE symbol = %s AND open_time = %s")
        changed = market.connection.execute(
            update.format(sql.SQL(fault)),  # type: ignore[arg-type]
            (FAULTY, START + timedelta(minutes=minute)),
        )
        assert changed.rowcount == 1
    market.delete(FAULTY, START + timedelta(minutes=37), 1)

    dbt("build", "--exclude-resource-type", "unit_test", "--vars", "tested: all")

    for timeframe in coarse:
        expected = market.expected(timeframe)
        assert market.bars(timeframe) == expected
        assert market.bars(timeframe, suffix="_live") == expected
    flat = market.connection.execute(
        "SELECT open, high, low, close, minute_count, is_complete FROM marts.candles_3m"
        " WHERE symbol = %s AND open_time = %s",
        (FAULTY, START + timedelta(minutes=36)),
    ).fetchone()
    # Flat at the last known price.
    assert flat == (*[Decimal(1040)] * 4, 2, False)
