"""Two instruments that had one ticker, in one file: each is aggregated by itself."""

from __future__ import annotations

from decimal import Decimal

import polars as pl
import pytest

from include.binance.files.columns import Layout
from include.binance.files.text_blocks import TextBlock
from include.binance.files.trade_files import TradeReader, agg_trades_layout, trades_layout
from include.domain.columns.candles import to_candles
from include.domain.timeframes import MINUTE_US

AT_US = 1_735_725_600_000_000  # 2025-01-01 10:00


def trade(number: int, second: int, price: str = "2") -> str:
    return f"{number},{price},4,{Decimal(price) * 4},{AT_US + second * 1_000_000},True,True\n"


def agg_trade(number: int, second: int) -> str:
    return f"{number},2,4,{number},{number},{AT_US + second * 1_000_000},True,True\n"


OLD = [trade(500 + n, 20 * n) for n in range(9)]
"""Three minutes."""
NEW = [trade(n, 3_600 + 20 * n, "7") for n in range(9)]
"""Three minutes, an hour later."""

Outcome = tuple[list[int], list[int], int, list[tuple[int, str]]]


def outcome(rows: list[str], rows_a_block: int, layout: Layout | None = None) -> Outcome:
    """Whole and partial minutes, trades used, and what was rejected."""
    reader = TradeReader("BTCUSDT", layout or trades_layout("BTCUSDT"), keep_rows=True)
    firsts = range(0, len(rows), rows_a_block)
    blocks = [
        reader.read(
            TextBlock(first + 1, "".join(rows[first : first + rows_a_block]).encode()),
            is_last=first == firsts[-1],
        )
        for first in firsts
    ]
    whole, partial = (
        [
            (one.open_time_us - AT_US) // MINUTE_US
            for one in to_candles(pl.concat([getattr(each, name) for each in blocks]))
        ]
        for name in ("whole", "partial")
    )
    trades = sum(block.trades for block in blocks)
    assert sum(block.rows.height for block in blocks if block.rows is not None) == trades
    rejected = [(one.line, one.reason) for block in blocks for one in block.rejections]
    return sorted(whole), sorted(partial), trades, rejected


@pytest.mark.parametrize("rows_a_block", [3, 4, 9, 18, 100])
def test_both_instruments_of_a_file_are_aggregated(rows_a_block: int) -> None:
    assert outcome([*OLD, *NEW], rows_a_block) == ([1, 61], [0, 2, 60, 62], 18, [])


def test_restart_in_the_last_row_of_a_block_rejects_that_row() -> None:
    whole, partial, trades, rejected = outcome([*OLD, *NEW], 5)
    assert (whole, partial) == ([1, 61], [0, 2, 60, 62])  # that minute is an edge anyway
    assert (trades, rejected) == (17, [(10, BEFORE)])


def test_restarted_ids_of_agg_trades_split_instruments() -> None:
    rows = [agg_trade(500 + n, 20 * n) for n in range(9)]
    rows += [agg_trade(n, 3_600 + 20 * n) for n in range(9)]
    layout = agg_trades_layout("BTCUSDT")
    assert outcome(rows, 100, layout) == ([1, 61], [0, 2, 60, 62], 18, [])


def test_three_instruments_in_a_block_are_split() -> None:
    rows = [*OLD, *NEW, *[trade(n, 7_200 + 20 * n) for n in range(9)]]
    expected = ([1, 61, 121], [0, 2, 60, 62, 120, 122], 27, [])
    assert outcome(rows, 100) == expected


BEFORE = "the id occurs earlier in this file"


@pytest.mark.parametrize(
    ("rows", "rejected"),
    [
        ([*OLD, *OLD], [(line, BEFORE) for line in range(10, 19)]),
        ([*OLD[3:], *OLD[:3]], []),  # in another order
        ([*OLD[:5], trade(500, 90_000), *OLD[5:]], [(6, BEFORE)]),  # no row continues from it
        ([*OLD, trade(500, 90_000)], [(10, BEFORE)]),
        ([*OLD, trade(500, 219), trade(501, 219)], [(10, BEFORE), (11, BEFORE)]),  # too soon
    ],
)
def test_unordered_or_repeated_rows_are_no_other_instrument(
    rows: list[str], rejected: list[tuple[int, str]]
) -> None:
    assert outcome(rows, 100)[3] == rejected


def test_late_row_of_the_former_instrument_is_rejected() -> None:
    late = trade(509, 175)
    whole, partial, trades, rejected = outcome([*OLD, *NEW[:5], late, *NEW[5:]], 100)
    assert (whole, partial, trades) == ([1, 61], [0, 2, 60, 62], 18)
    assert rejected == [(15, "the trade is out of time order: its minute was already complete")]
