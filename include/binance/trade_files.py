"""Files of single trades, folded into 1-minute candles.

``ID,Price,Quantity,QuoteQuantity,Timestamp,IsBuyerMaker,IsBestMatch`` as the dump site writes
them (USD-M files end before the last column). The quote amounts are the exchange's own, rounded
as it rounds them. A minute is whole only if the file proves it: its trades' ids follow each
other, the trades just before and after it are there, and no row of it was rejected. Other
minutes come out as partial. Minutes without trades make no row: a file of trades cannot tell
silence from a halt.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from include.binance.archives import OnRead
from include.binance.columns import (
    COUNT,
    Layout,
    Rejection,
    number_checks,
    reject,
    sniff_digits,
    split,
    time_checks,
    to_micros,
    unit_of,
)
from include.binance.kline_files import data_lines
from include.domain.columnar import CANDLE_SCHEMA, TIME, TRADE_SCHEMA, fold_trades
from include.domain.instruments import Market, market_of
from include.domain.timeframes import MINUTE_US

_COLUMNS = ("id", "price", "quantity", "quote_quantity", "trade_time", "is_buyer_maker")

SPOT_TRADES = Layout(
    name="spot trades",
    columns=(*_COLUMNS, "is_best_match"),
    headers=(
        "id,price,quantity,quotequantity,timestamp,isbuyermaker,isbestmatch",
        "id,price,qty,quoteqty,time,isbuyermaker,isbestmatch",
        "id,price,quantity,quotequantity,time,isbuyermaker,isbestmatch",
    ),
)
UM_TRADES = Layout(
    name="USD-M trades",
    columns=_COLUMNS,
    headers=(
        "id,price,qty,quoteqty,time,isbuyermaker",
        "id,price,quantity,quotequantity,timestamp,isbuyermaker",
    ),
)

_NUMBERS = ("price", "quantity", "quote_quantity")


@dataclass(frozen=True, slots=True)
class TradeBlock:
    """What a part of a file gave.

    Attributes:
        whole: candles (``CANDLE_SCHEMA``) proven whole.
        partial: candles known to miss trades, or not proven to miss none.
        rejections: rows that cannot be used.
        trades: rows used.
        time_unit: ``ms``, ``us``, or None while no row had a time.
    """

    whole: pl.DataFrame
    partial: pl.DataFrame
    rejections: list[Rejection]
    trades: int
    time_unit: str | None


class TradeReader:
    """Folds the blocks of one file; trades of the last minute wait for the next block.

    Args:
        symbol: platform symbol. USD-M ids skip by design, so they prove nothing there: all
            minutes but the file's first and last count as whole.
    """

    def __init__(self, symbol: str) -> None:
        self._symbol = symbol
        market = market_of(symbol)
        self._layout = UM_TRADES if market is Market.UM else SPOT_TRADES
        self._ids_follow = market is Market.SPOT
        self._digits = 0
        self._last_id = -1
        self._run_first = -1
        self._folded_until_us = 0
        self._first_minute_us: int | None = None
        self._waiting = _TRADES.to_frame()
        self._condemned: set[int] = set()

    @property
    def layout(self) -> Layout:
        """The columns that the file must have."""
        return self._layout

    def read(self, lines: pl.DataFrame, *, is_last: bool = False) -> TradeBlock:
        """Read lines without the header; ``is_last`` folds what still waits."""
        table, rejections = split(lines, self._layout)
        self._digits = self._digits or sniff_digits(table, "trade_time")
        table, bad = self._place(table)
        rejections += bad
        table, bad = self._find_voids(table)
        rejections += bad
        fresh = self._follow_ids(table)
        whole, partial = self._fold(pl.concat([self._waiting, fresh]), is_last=is_last)
        return TradeBlock(
            whole,
            partial,
            sorted(rejections, key=lambda one: one.line),
            fresh.filter(~pl.col("is_void")).height,
            unit_of(self._digits),
        )

    def _place(self, table: pl.DataFrame) -> tuple[pl.DataFrame, list[Rejection]]:
        """Rows with a time and an id of their own, by id; the others are rejected.

        A row that is rejected here leaves a hole in the ids, which shows in its minute.
        """
        table, rejections = reject(
            table,
            [
                *time_checks(["trade_time"], digits=self._digits),
                (~pl.col("id").str.contains(COUNT), "id is no whole number"),
            ],
        )
        table = table.with_columns(
            pl.col("id").cast(pl.Int64), to_micros("trade_time", digits=self._digits)
        ).sort("id", maintain_order=True)
        repeats = (pl.col("id") <= self._last_id) | ~pl.col("id").is_first_distinct()
        late = pl.col("trade_time") < self._folded_until_us
        table, bad = reject(
            table,
            [
                (repeats, "the id came before in this file"),
                (late, "the trade comes more than a block too late for its minute"),
            ],
        )
        return table, rejections + bad

    def _find_voids(self, table: pl.DataFrame) -> tuple[pl.DataFrame, list[Rejection]]:
        """Mark rows whose trade is unknown; they are rejected and condemn their minute."""
        flag = pl.col("is_buyer_maker").str.to_lowercase()
        good, bad = reject(
            table,
            [
                *number_checks(_NUMBERS),
                (~flag.is_in(["true", "false"]), "is_buyer_maker is neither true nor false"),
                (_is_zero("quantity"), "quantity 0 with a valid id: its minute misses a trade"),
                (_is_zero("price"), "price 0 with a valid id: its minute misses a trade"),
            ],
        )
        is_void = ~pl.col("line").is_in(good["line"].implode())
        table = table.with_columns(is_void=is_void, is_buyer_maker=flag == "true")
        minute = pl.col("trade_time") - pl.col("trade_time") % MINUTE_US
        self._condemned.update(table.filter("is_void").select(minute).to_series().to_list())
        return table, bad

    def _follow_ids(self, table: pl.DataFrame) -> pl.DataFrame:
        """Tell each trade at which id its run of ids without holes begins."""
        if table.is_empty():
            return _TRADES.to_frame()
        previous = pl.col("id").shift(1, fill_value=self._last_id)
        run_first = pl.when(pl.col("id") != previous + 1).then("id").forward_fill()
        table = table.with_columns(run_first=run_first.fill_null(self._run_first))
        self._run_first = int(table["run_first"][-1])
        self._last_id = int(table["id"][-1])
        return table.with_columns(
            pl.col("trade_time").cast(TIME), first_trade_id="id", last_trade_id="id"
        ).select(*_TRADES)

    def _fold(self, trades: pl.DataFrame, *, is_last: bool) -> tuple[pl.DataFrame, pl.DataFrame]:
        """Fold the minutes that are over; returns whole and partial candles."""
        none = CANDLE_SCHEMA.to_frame()
        if trades.is_empty():
            return none, none
        trades = trades.with_columns(minute=pl.col("trade_time").dt.truncate("1m"))
        minutes = trades["minute"].dt.epoch("us")
        if self._first_minute_us is None:
            self._first_minute_us = int(minutes[0])
        last_minute_us = max(minutes)
        # The trade after a minute proves its end, so the newest minute waits for more.
        end_us = last_minute_us + MINUTE_US if is_last else last_minute_us
        ready = trades.filter(minutes < end_us)
        self._waiting = trades.filter(minutes >= end_us).select(*_TRADES)
        if ready.is_empty():
            return none, none
        proven = self._proven(trades, last_minute_us if is_last else None)
        self._folded_until_us = end_us
        self._condemned = {minute for minute in self._condemned if minute >= end_us}
        candles = fold_trades(ready.filter(~pl.col("is_void")), symbol=self._symbol)
        is_whole = pl.col("open_time").is_in(proven.implode())
        return candles.filter(is_whole), candles.filter(~is_whole)

    def _proven(self, trades: pl.DataFrame, final_minute_us: int | None) -> pl.Series:
        """Minutes that miss no trade."""
        unproven = set(self._condemned)
        if not self._ids_follow:
            unproven |= {self._first_minute_us or 0, final_minute_us or 0}
        condemned = pl.Series(sorted(unproven), dtype=pl.Int64).cast(TIME)
        spans = trades.group_by("minute").agg(
            first=pl.col("last_trade_id").min(),
            last=pl.col("last_trade_id").max(),
            run_first=pl.col("run_first").min(),
            is_one_run=pl.col("run_first").n_unique() == 1,
        )
        is_whole = ~pl.col("minute").is_in(condemned.implode())
        if self._ids_follow:
            ends = trades.group_by("run_first").agg(run_last=pl.col("last_trade_id").max())
            spans = spans.join(ends, on="run_first")
            is_whole &= (
                pl.col("is_one_run")
                & (pl.col("first") > pl.col("run_first"))
                & (pl.col("last") < pl.col("run_last"))
            )
        return spans.filter(is_whole)["minute"]


_TRADES = pl.Schema(
    {
        **TRADE_SCHEMA,
        "quote_quantity": pl.String(),
        "run_first": pl.Int64(),
        "is_void": pl.Boolean(),
    }
)


def _is_zero(column: str) -> pl.Expr:
    return pl.col(column).str.contains(r"^[0.]+$")


def read_trades(path: Path, symbol: str, *, on_read: OnRead | None = None) -> Iterator[TradeBlock]:
    """Blocks of a ``.csv``, ``.csv.gz`` or ``.zip`` of trades.

    Raises:
        RejectedInputError: damaged, or of other columns.
        OverflowError: a sum needs more than 128 bits.
    """
    reader = TradeReader(symbol)
    held: pl.DataFrame | None = None
    for lines in data_lines(path, (reader.layout,), on_read=on_read):
        if held is not None:
            yield reader.read(held)
        held = lines
    if held is not None:
        yield reader.read(held, is_last=True)
