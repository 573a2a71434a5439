"""No aggregation creates a flat candle: only the exchange reports a silent minute."""

from __future__ import annotations

import ast
from pathlib import Path

import polars as pl

from include.domain.columns.candles import TRADE_SCHEMA, aggregate_trades
from include.domain.timeframes import MINUTE_US, from_us

ROOT = Path(__file__).parents[3]
T0 = 1_700_000_000_000_000 // MINUTE_US * MINUTE_US


def callers(name: str) -> list[str]:
    """Files of the product in which a function is named, other than by its definition."""
    return sorted(
        str(path.relative_to(ROOT))
        for folder in ("include", "streamer", "serving", "cli", "dags")
        for path in (ROOT / folder).rglob("*.py")
        if any(
            (isinstance(node, ast.Name) and node.id == name)
            or (isinstance(node, ast.Attribute) and node.attr == name)
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        )
    )


def test_no_writer_creates_silent_candles() -> None:
    assert callers("silent_candle") == []
    assert callers("candles_of") != []  # the search finds what exists


def test_trades_with_silent_minutes_give_the_minutes_that_traded() -> None:
    minutes = [0, 0, 3, 7]
    trades = pl.DataFrame(
        {
            "price": ["10", "11", "12", "13"],
            "quantity": ["1", "1", "1", "1"],
            "first_trade_id": [1, 2, 3, 4],
            "last_trade_id": [1, 2, 3, 4],
            "trade_time": [from_us(T0 + minute * MINUTE_US + 5) for minute in minutes],
            "is_buyer_maker": [True] * 4,
        }
    ).select(pl.col(name).cast(kind) for name, kind in TRADE_SCHEMA.items())

    bars = aggregate_trades(trades, symbol="BTCUSDT")

    assert bars["open_time"].to_list() == [from_us(T0 + m * MINUTE_US) for m in (0, 3, 7)]
    assert bars["trade_count"].to_list() == [2, 1, 1]
