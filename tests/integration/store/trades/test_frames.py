"""Rows of trade files are stored exactly once."""

from __future__ import annotations

from typing import Any

import polars as pl
import psycopg
import pytest

from include.domain.timeframes import DAY_US
from include.errors import PermanentError
from include.store.trades.captured import AGG_TRADES
from include.store.trades.frames import write_raw_frame

AT_US = 1_763_716_800_000_000
Connection = psycopg.Connection[Any]


def rows(*ids: int, at_us: int = AT_US, price: str = "61800.20000000") -> pl.DataFrame:
    """aggTrades with these ids, a microsecond apart."""
    count = len(ids)
    return pl.DataFrame(
        {
            "id": ids,
            "price": [price] * count,
            "quantity": ["0.00000001"] * count,
            "first_trade_id": ids,
            "last_trade_id": ids,
            "trade_time": [at_us + number for number in range(count)],
            "is_buyer_maker": [True] * count,
        }
    )


def stored(connection: Connection) -> list[tuple[Any, ...]]:
    query = "SELECT day::text, agg_trade_id, price::text FROM market.agg_trades ORDER BY 1, 2"
    return connection.execute(query).fetchall()


def test_known_rows_are_left_out_and_new_ones_counted(connection: Connection) -> None:
    assert write_raw_frame(connection, AGG_TRADES, rows(1, 2, 3), symbol="A") == 3
    assert write_raw_frame(connection, AGG_TRADES, rows(2, 3, 4), symbol="A") == 1
    assert write_raw_frame(connection, AGG_TRADES, rows(2, 3, 4), symbol="A") == 0
    assert write_raw_frame(connection, AGG_TRADES, rows(), symbol="A") == 0
    assert [row[1] for row in stored(connection)] == [1, 2, 3, 4]


def test_each_row_goes_to_the_partition_of_its_day(connection: Connection) -> None:
    both = pl.concat([rows(1), rows(2, at_us=AT_US + DAY_US)])
    assert write_raw_frame(connection, AGG_TRADES, both, symbol="A") == 2
    assert stored(connection) == [
        ("2025-11-21", 1, "61800.20000000"),
        ("2025-11-22", 2, "61800.20000000"),
    ]


def test_refused_row_rolls_back_the_whole_frame(connection: Connection) -> None:
    wrong = pl.concat([rows(1), rows(2, price="-1")])
    with pytest.raises(PermanentError):
        write_raw_frame(connection, AGG_TRADES, wrong, symbol="A")
    assert stored(connection) == []
