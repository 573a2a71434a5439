"""The fast parser of trade files accepts what the careful one accepts, and nothing else."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from itertools import pairwise

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from include.binance.files.columns import Layout, Rejection
from include.binance.files.plain_rows import PlainRows, read_plain
from include.binance.files.text_blocks import TextBlock
from include.binance.files.trade_files import (
    FUTURES_AGG_TRADES,
    SPOT_AGG_TRADES,
    SPOT_TRADES,
    UM_TRADES,
    TradeReader,
)
from include.domain.candle_builder import CandleBuilder
from include.domain.candles import Candle
from include.domain.columns.candles import to_candles
from include.domain.timeframes import MINUTE_US, minute_of, to_us

START = to_us(datetime(2025, 1, 1, 10, tzinfo=UTC))

FLAGS = {True: ["True", "False"], False: ["true", "false"]}
GOOD = "7,2.50,4.125,10,12,1735725600000,true"
BAD = [
    "1e5", "2.5e1", "+1", "-1", "-0.00", " 1", "1 ", ".5", "5.", "1_000", "NaN", "", "1.2.3",
    "1,2", '"1.5"', "0x1", "0.1234567890123456789", "1234567890123456789.5", "1234567890123456789",
    "x", "1\t", "1..5", "1.-5", "١",
]  # fmt: skip


def with_price(text: str) -> bytes:
    return "\n".join([GOOD, GOOD.replace("2.50", text), GOOD]).encode() + b"\n"


@pytest.mark.parametrize("text", BAD)
def test_unusual_numbers_are_left_to_the_careful_reader(text: str) -> None:
    assert read_plain(with_price(text), FUTURES_AGG_TRADES) is None


@pytest.mark.parametrize("text", ["2.5", "2.50", "3", "0.0001", "123456789012345678.123456789"])
def test_plain_numbers_of_any_length_are_exact(text: str) -> None:
    found = read_plain(with_price(text), FUTURES_AGG_TRADES)
    assert found is not None
    table, decimals = found
    values = [Decimal(one).scaleb(-decimals["price"]) for one in table["scaled_price"]]
    assert values == [Decimal("2.50"), Decimal(text), Decimal("2.50")]
    assert table["price"].to_list() == ["2.50", text, "2.50"]


@pytest.mark.parametrize(
    "line",
    [
        "8,2.5,4,10,12,1735725600000", "8,2.5,4,10,12,1735725600000,true,1", "", "8,2.5",
        "8,2.5,4,10,12,1735725600000,maybe", "8.5,2.5,4,10,12,1735725600000,true",
        "8,2.5,4,,12,1735725600000,true", "# 8,2.5,4,10,12,1735725600000,true",
        "9999999999999999999,2.5,4,10,12,1735725600000,true",
    ],
)  # fmt: skip
def test_block_with_an_irregular_row_is_left_to_the_careful_reader(line: str) -> None:
    assert read_plain(f"{GOOD}\n{line}\n{GOOD}\n".encode(), FUTURES_AGG_TRADES) is None
    assert read_plain(f"{GOOD}\n{GOOD}\n".encode(), FUTURES_AGG_TRADES) is not None


class CarefulReader(TradeReader):
    """Reads each block line by line."""

    def _read_plain(self, plain: object) -> None:
        return None


class CountingReader(TradeReader):
    """Counts the blocks that are read the fast way."""

    fast = 0

    def _read_plain(self, plain: PlainRows | None):
        found = super()._read_plain(plain)
        self.fast += found is not None
        return found


Told = tuple[list[Candle], list[Candle], list[Rejection], int, list[tuple[object, ...]]]


def outcome_of(reader: TradeReader, lines: list[str], cuts: list[int]) -> Told:
    """Result of a file cut into blocks."""
    edges = [0, *sorted({cut for cut in cuts if cut < len(lines)} - {0}), len(lines)]
    whole, partial, rejections, trades, rows = [], [], [], 0, []
    for begin, end in pairwise(edges):
        text = "".join(f"{line}\n" for line in lines[begin:end]).encode()
        block = reader.read(TextBlock(begin + 1, text), is_last=end == len(lines))
        whole += to_candles(block.whole)
        partial += to_candles(block.partial)
        rejections += block.rejections
        trades += block.trades
        assert block.rows is not None
        rows += block.rows.rows()
    return whole, partial, rejections, trades, rows


@st.composite
def files(draw: st.DrawFn) -> tuple[Layout, list[list[str]]]:
    """Rows of a file of any kind, all good, ids one after the other."""
    layout = draw(st.sampled_from([SPOT_TRADES, UM_TRADES, SPOT_AGG_TRADES, FUTURES_AGG_TRADES]))
    is_spot = layout in (SPOT_TRADES, SPOT_AGG_TRADES)
    number, trade_id, time_us = draw(st.integers(0, 10**10)), draw(st.integers(0, 10**10)), START
    decimals = draw(st.sampled_from([None, 0, 2, 8]))
    rows = []
    for _ in range(draw(st.integers(2, 25))):
        number, time_us = number + 1, time_us + draw(st.integers(0, 50_000_000)) // 1000 * 1000
        places = draw(st.integers(0, 8)) if decimals is None else decimals
        price, quantity = (
            format(draw(st.decimals(1, most, places=places)), "f") for most in ("9999999", "1e10")
        )
        values = {
            "id": str(number), "price": price, "quantity": quantity,
            "quote_quantity": format(draw(st.decimals(1, 10**9, places=8)), "f"),
            "first_trade_id": str(trade_id + 1),
            "trade_time": str(time_us if is_spot else time_us // 1000),
            "is_buyer_maker": draw(st.sampled_from(FLAGS[is_spot])),
            "is_best_match": "True",
        }  # fmt: skip
        trade_id += draw(st.integers(1, 4))
        values["last_trade_id"] = str(trade_id)
        rows.append([values[name] for name in layout.columns])
    return layout, rows


@settings(max_examples=40)
@given(
    files(),
    st.lists(st.integers(1, 24), max_size=4),
    st.lists(st.tuples(st.integers(0, 24), st.integers(0, 7), st.sampled_from([*BAD, "0", "0.0"]))),
    st.sets(st.integers(0, 24), max_size=2),
    st.booleans(),
)
def test_both_readers_agree_on_any_file(
    file: tuple[Layout, list[list[str]]],
    cuts: list[int],
    spoilt: list[tuple[int, int, str]],
    lost: set[int],
    voids: bool,
) -> None:
    layout, rows = file
    for place, column, text in spoilt[:2]:
        if place < len(rows) and column < len(layout.columns):
            rows[place][column] = text
    if voids and "first_trade_id" in layout.columns:
        rows[-1][1:5] = ["0", "0", "-1", "-1"]
    lines = [",".join(row) for place, row in enumerate(rows) if place not in lost]
    if not lines:
        return
    symbol = "X" if layout in (SPOT_TRADES, SPOT_AGG_TRADES) else "X.P"
    fast = outcome_of(TradeReader(symbol, layout, keep_rows=True), lines, cuts)
    assert fast == outcome_of(CarefulReader(symbol, layout, keep_rows=True), lines, cuts)
    if all(column != 0 for _, column, _ in spoilt[:2]):  # an id in disorder is late in one block
        assert fast == outcome_of(TradeReader(symbol, layout, keep_rows=True), lines, [])


def test_negative_zero_is_rejected_like_any_negative_number() -> None:
    lines = [
        "1,1,1,-0.00,1735725600000000,True,True",
        "2,1,1,1.00,1735725600000000,True,True",
    ]
    fast = outcome_of(TradeReader("X", SPOT_TRADES, keep_rows=True), lines, [])
    assert fast == outcome_of(CarefulReader("X", SPOT_TRADES, keep_rows=True), lines, [])


@settings(max_examples=40)
@given(files(), st.lists(st.integers(1, 24), max_size=4))
def test_fast_path_equals_the_row_by_row_aggregation(
    file: tuple[Layout, list[list[str]]], cuts: list[int]
) -> None:
    layout, rows = file
    symbol = "X" if layout in (SPOT_TRADES, SPOT_AGG_TRADES) else "X.P"
    reader = CountingReader(symbol, layout, keep_rows=True)
    whole, partial, rejections, trades, _ = outcome_of(
        reader, [",".join(row) for row in rows], cuts
    )
    assert (rejections, trades) == ([], len(rows))
    assert reader.fast >= 1
    expected: dict[int, _Sum] = {}
    for row in rows:
        values = dict(zip(layout.columns, row, strict=True))
        time_us = int(values["trade_time"]) * (1 if symbol == "X" else 1000)
        minute = minute_of(time_us)
        expected.setdefault(minute, _Sum(symbol, minute)).add(values)
    candles = sorted([*whole, *partial], key=lambda one: one.open_time_us)
    assert candles == [expected[minute].candle() for minute in sorted(expected)]
    inner = {one.open_time_us for one in candles} - {
        candles[0].open_time_us, candles[-1].open_time_us,
    }  # fmt: skip
    assert {one.open_time_us for one in whole} == inner


class _Sum:
    """A builder of a minute, with quote amounts where the rows have them."""

    def __init__(self, symbol: str, minute: int) -> None:
        self._builder = CandleBuilder(symbol, minute)
        self._quotes: list[Decimal] = []
        self._bought: list[Decimal] = []

    def add(self, values: dict[str, str]) -> None:
        fill = _Fill(values)
        self._builder.add(fill)
        if "quote_quantity" in values:
            self._quotes.append(Decimal(values["quote_quantity"]))
            self._bought.append(Decimal(0) if fill.is_buyer_maker else self._quotes[-1])

    def candle(self) -> Candle:
        from dataclasses import replace

        aggregated = self._builder.candle()
        if not self._quotes:
            return aggregated
        return replace(
            aggregated, quote_volume=sum(self._quotes), taker_buy_quote_volume=sum(self._bought)
        )


class _Fill:
    def __init__(self, values: dict[str, str]) -> None:
        self.price, self.quantity = Decimal(values["price"]), Decimal(values["quantity"])
        self.is_buyer_maker = values["is_buyer_maker"].lower() == "true"
        self.first_trade_id = int(values.get("first_trade_id", values["id"]))
        self.last_trade_id = int(values.get("last_trade_id", values["id"]))


def test_kept_rows_equal_those_of_the_file() -> None:
    reader = TradeReader("X.P", FUTURES_AGG_TRADES, keep_rows=True)
    block = reader.read(TextBlock(1, with_price("2.5").replace(b"\n7", b"\n8", 1)), is_last=True)
    assert block.rows is not None
    assert block.rows.columns == [
        "id", "price", "quantity", "first_trade_id", "last_trade_id", "trade_time",
        "is_buyer_maker",
    ]  # fmt: skip
    assert block.rows.row(0) == (7, "2.50", "4.125", 10, 12, 1735725600000000, True)
    assert block.rows.schema["is_buyer_maker"] == pl.Boolean
    assert START == 1735725600000000 // MINUTE_US * MINUTE_US
