"""Trades aggregate into candles; a minute counts as whole only where the file proves it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from include.binance.files.text_blocks import TextBlock
from include.binance.files.trade_files import TradeReader, agg_trades_layout, read_trades
from include.domain.candle_builder import CandleBuilder
from include.domain.candles import Candle
from include.domain.columns.candles import to_candles
from include.domain.timeframes import MINUTE_US, to_us
from include.errors import RejectedInputError

START = to_us(datetime(2025, 1, 1, 10, tzinfo=UTC))
NO_TIME = "trade_time is no time in ms (13 digits) or µs (16 digits)"
HEADER = "ID,Price,Quantity,QuoteQuantity,Timestamp,IsBuyerMaker,IsBestMatch"


def trade(
    number: int, minute: int, *, price: str = "2.5", quantity: str = "4", **others: str
) -> str:
    fields = {
        "id": str(number), "price": price, "quantity": quantity,
        "quote": format(Decimal(price) * Decimal(quantity), "f"),
        "time": str(START + minute * MINUTE_US + number), "maker": "True", "best": "True",
    }  # fmt: skip
    return ",".join({**fields, **others}.values())


@dataclass
class Outcome:
    whole: list[Candle]
    partial: list[Candle]
    rejected: list[tuple[int, str]]
    trades: int

    def minutes(self, kind: str) -> list[int]:
        return [(one.open_time_us - START) // MINUTE_US for one in getattr(self, kind)]


def read(tmp_path: Path, *lines: str, symbol: str = "BTCUSDT") -> Outcome:
    path = tmp_path / "x.csv"
    path.write_text("\n".join(lines) + "\n")
    blocks = list(read_trades(path, symbol))
    return Outcome(
        [one for block in blocks for one in to_candles(block.whole)],
        [one for block in blocks for one in to_candles(block.partial)],
        [(one.line, one.reason) for block in blocks for one in block.rejections],
        sum(block.trades for block in blocks),
    )


FIVE_MINUTES = [trade(number, (number - 300) // 3) for number in range(300, 315)]


def test_inner_minutes_are_complete_and_the_edges_are_not(tmp_path: Path) -> None:
    out = read(tmp_path, HEADER, *FIVE_MINUTES)
    assert (out.minutes("whole"), out.minutes("partial")) == ([1, 2, 3], [0, 4])
    assert (out.rejected, out.trades) == ([], 15)
    assert out.whole[0].values == (
        Decimal("2.5"), Decimal("2.5"), Decimal("2.5"), Decimal("2.5"), Decimal(12), Decimal(30), 3,
        Decimal(0), Decimal(0),
    )  # fmt: skip
    assert (out.whole[0].first_trade_id, out.whole[0].last_trade_id) == (303, 305)


def test_missing_id_inside_a_minute_makes_only_that_minute_partial(tmp_path: Path) -> None:
    out = read(tmp_path, *(one for one in FIVE_MINUTES if not one.startswith("307,")))
    assert (out.minutes("whole"), out.minutes("partial")) == ([1, 3], [0, 2, 4])


def test_missing_id_between_minutes_makes_both_partial(tmp_path: Path) -> None:
    out = read(tmp_path, *(one for one in FIVE_MINUTES if not one.startswith("306,")))
    assert (out.minutes("whole"), out.minutes("partial")) == ([3], [0, 1, 2, 4])


def test_trade_of_quantity_zero_makes_its_minute_partial_and_is_rejected(tmp_path: Path) -> None:
    lines = list(FIVE_MINUTES)
    lines[6] = trade(306, 2, quantity="0.00000000")
    out = read(tmp_path, *lines)
    assert (out.minutes("whole"), out.minutes("partial")) == ([1, 3], [0, 2, 4])
    assert out.rejected == [(7, "quantity 0 with a valid id: its minute misses a trade")]
    assert [one.trade_count for one in out.partial] == [3, 2, 3]


def test_minute_with_only_void_trades_has_no_candle(tmp_path: Path) -> None:
    lines = list(FIVE_MINUTES)
    lines[6:9] = [trade(number, 2, quantity="0") for number in (306, 307, 308)]
    out = read(tmp_path, *lines)
    assert (out.minutes("whole"), out.minutes("partial")) == ([1, 3], [0, 4])
    assert len(out.rejected) == 3


@pytest.mark.parametrize(
    ("bad", "reason", "partial"),
    [
        ("307,2.5", "2 columns, expected 7 (half a line?)", [0, 2, 4]),
        (trade(307, 2).replace(",2.5,", ",x2,", 1), "price is no number: 'x2'", [0, 2, 4]),
        (trade(307, 2).replace(",2.5,", ",-2.5,", 1), "price is negative", [0, 2, 4]),
        (trade(307, 2, price="0"), "price 0 with a valid id: its minute misses a trade", [0, 2, 4]),
        (trade(307, 2, maker="maybe"), "is_buyer_maker is neither true nor false", [0, 2, 4]),
        (trade(307, 2, id="3x7"), "id is not an integer", [0, 2, 4]),
        (trade(307, 2, time="1"), f"{NO_TIME}: '1'", [0, 2, 4]),
    ],
)  # fmt: skip
def test_bad_row_is_rejected_and_makes_its_minute_partial(
    tmp_path: Path, bad: str, reason: str, partial: list[int]
) -> None:
    lines = list(FIVE_MINUTES)
    lines[7] = bad
    out = read(tmp_path, *lines)
    assert out.minutes("partial") == partial
    assert out.rejected == [(8, reason)]


def test_repeated_trade_counts_once(tmp_path: Path) -> None:
    out = read(tmp_path, *FIVE_MINUTES, FIVE_MINUTES[7])
    assert out.minutes("whole") == [1, 2, 3]
    assert out.rejected == [(16, "the id occurs earlier in this file")]
    assert out.trades == 15


def test_taker_buys_are_trades_whose_buyer_is_not_the_maker(tmp_path: Path) -> None:
    lines = list(FIVE_MINUTES)
    lines[4] = trade(304, 1, quantity="1.25", maker="false")
    out = read(tmp_path, *lines)
    assert (out.whole[0].taker_buy_volume, out.whole[0].taker_buy_quote_volume) == (
        Decimal("1.25"),
        Decimal("3.125"),
    )


def test_quote_amounts_of_the_file_are_summed(tmp_path: Path) -> None:
    lines = list(FIVE_MINUTES)
    lines[4] = trade(304, 1, price="0.043375", quantity="0.0333", quote="0.00144439")
    out = read(tmp_path, *lines)
    assert out.whole[0].quote_volume == Decimal("20.00144439")


def test_ids_of_futures_skip_by_design(tmp_path: Path) -> None:
    header = "id,price,qty,quote_qty,time,is_buyer_maker"
    lines = [
        f"{300 + 7 * number},2.5,4,10,{(START + number // 2 * MINUTE_US) // 1000},true"
        for number in range(8)
    ]
    out = read(tmp_path, header, *lines, symbol="BTCUSDT.P")
    assert (out.minutes("whole"), out.minutes("partial")) == ([1, 2], [0, 3])


def test_file_with_other_columns_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RejectedInputError, match="spot trades: id,price"):
        read(tmp_path, "a,b,c", "1,2,3")


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    minutes=st.lists(st.integers(0, 9), min_size=2, max_size=40).map(sorted),
    cuts=st.lists(st.integers(1, 39), max_size=6).map(sorted),
    lost=st.sets(st.integers(0, 39), max_size=3),
)
def test_block_size_changes_nothing_and_complete_minutes_equal_the_builder(
    minutes: list[int], cuts: list[int], lost: set[int]
) -> None:
    """However a file is cut into blocks, what it proves is the same, and is right."""
    numbered = [(500 + index, minute) for index, minute in enumerate(minutes)]
    kept = [one for index, one in enumerate(numbered) if index not in lost]
    if not kept:
        return
    lines = [trade(*one, price=str(1 + one[0] % 7)) for one in kept]

    def outcome(bounds: list[int]) -> tuple[list[Candle], list[Candle]]:
        reader = TradeReader("BTCUSDT")
        edges = [0, *(cut for cut in bounds if cut < len(lines)), len(lines)]
        whole, partial = [], []
        for place, (begin, end) in enumerate(pairwise(edges)):
            block = TextBlock(begin + 1, "\n".join(lines[begin:end]).encode())
            part = reader.read(block, is_last=place == len(edges) - 2)
            whole += to_candles(part.whole)
            partial += to_candles(part.partial)
        return whole, partial

    whole, partial = outcome([])
    assert outcome(cuts) == (whole, partial)
    assert {one.open_time_us for one in [*whole, *partial]} == {
        START + minute * MINUTE_US for _, minute in kept
    }
    missing = {number for number, _ in numbered} - {number for number, _ in kept}
    for candle in whole:
        minute = (candle.open_time_us - START) // MINUTE_US
        inside = [number for number, at in numbered if at == minute]
        assert not missing.intersection(inside)
        builder = CandleBuilder("BTCUSDT", candle.open_time_us)
        for number in inside:
            builder.add(_Fill(Decimal(1 + number % 7), Decimal(4), True, number, number))
        assert builder.candle() == candle


@dataclass
class _Fill:
    price: Decimal
    quantity: Decimal
    is_buyer_maker: bool
    first_trade_id: int
    last_trade_id: int


def test_file_larger_than_a_block_is_read_in_parts(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text("\n".join([HEADER, *FIVE_MINUTES]) + "\n")
    blocks = list(TradeReader("BTCUSDT").read_file(path, block_bytes=200))
    assert len(blocks) > 3
    assert sum(len(block.whole) for block in blocks) == 3


AGG = "agg_trade_id,price,quantity,first_trade_id,last_trade_id,transact_time,is_buyer_maker"


def agg(number: int, minute: int, *, first: int | None = None, quantity: str = "4") -> str:
    first = 2 * number if first is None else first
    time_ms = (START + minute * MINUTE_US + number) // 1000
    return f"{number},2.5,{quantity},{first},{first + 1},{time_ms},false"


@pytest.mark.parametrize("symbol", ["BTCUSDT", "BTCUSDT.P"])
def test_agg_trades_are_aggregated_and_their_trades_counted(tmp_path: Path, symbol: str) -> None:
    is_um = symbol.endswith(".P")
    lines = [
        agg(number, (number - 30) // 3) + ("" if is_um else ",true") for number in range(30, 42)
    ]
    path = tmp_path / "x.csv"
    path.write_text("\n".join([*([AGG] if is_um else []), *lines, ""]))
    reader = TradeReader(symbol, agg_trades_layout(symbol), after_id=29)
    (block,) = reader.read_file(path, before_id=42)
    assert block.partial.is_empty()
    candles = to_candles(block.whole)
    assert [one.trade_count for one in candles] == [6, 6, 6, 6]
    assert (candles[0].first_trade_id, candles[0].last_trade_id) == (60, 65)
    assert candles[0].taker_buy_quote_volume == Decimal(30)
    assert (reader.aggregator.first_id, reader.aggregator.last_id) == (30, 41)


def test_void_agg_trades_are_skipped_and_quantity_zero_makes_minutes_partial(
    tmp_path: Path,
) -> None:
    lines = [agg(number, (number - 30) // 3) for number in range(30, 42)]
    lines[4] = f"34,0,0,-1,-1,{(START + MINUTE_US) // 1000 + 1},false"
    lines[7] = agg(37, 2, quantity="0.000")
    path = tmp_path / "x.csv"
    path.write_text("\n".join([AGG, *lines, ""]))
    reader = TradeReader("X.P", agg_trades_layout("X.P"), after_id=29)
    (block,) = reader.read_file(path, before_id=42)
    assert [one.trade_count for one in to_candles(block.whole)] == [6, 4, 6]
    assert [one.trade_count for one in to_candles(block.partial)] == [4]
    assert [(one.line, one.reason) for one in block.rejections] == [
        (9, "quantity 0 with a valid id: its minute misses a trade")
    ]
    assert block.trades == 10
