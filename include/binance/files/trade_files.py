"""Read files of trades and aggTrades, and aggregate them into 1-minute candles.

Single trades are ``ID,Price,Quantity,QuoteQuantity,Timestamp,IsBuyerMaker,IsBestMatch`` as on the
dump site; their quote amounts are the exchange's own, with its rounding. AggTrades have the ids of
their first and last trade and no quote amounts. Files of futures lack IsBestMatch. Single trades of
COIN-M have the amount of the base asset in place of the quote amount, as COIN-M klines have.
``domain/columns/trades.py`` explains which minutes are complete; unusable rows are returned with
line and reason.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from include.binance.files.archives import BLOCK_BYTES, OnRead
from include.binance.files.columns import (
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
from include.binance.files.plain_rows import NUMBERS, PlainRows, read_plain, time_digits
from include.binance.files.read_ahead import read_ahead
from include.binance.files.restarts import part
from include.binance.files.text_blocks import TextBlock, text_blocks
from include.domain.columns.scaled import decimals_needed, to_scaled
from include.domain.columns.trades import TradeAggregator, TradeRows
from include.domain.instruments import Market, market_of
from include.domain.timeframes import MINUTE_US

_TRADE = ("id", "price", "quantity", "quote_quantity", "trade_time", "is_buyer_maker")
_AGG_TRADE = (
    "id", "price", "quantity", "first_trade_id", "last_trade_id", "trade_time", "is_buyer_maker",
)  # fmt: skip

_END_OF_TIME_US = 1 << 62

_Parsed = tuple[TextBlock, PlainRows | None]
"""A block, and its typed rows if the fast parser accepts all of them."""

SPOT_TRADES = Layout(
    name="spot trades",
    columns=(*_TRADE, "is_best_match"),
    headers=(
        "id,price,quantity,quotequantity,timestamp,isbuyermaker,isbestmatch",
        "id,price,qty,quoteqty,time,isbuyermaker,isbestmatch",
        "id,price,quantity,quotequantity,time,isbuyermaker,isbestmatch",
    ),
)
UM_TRADES = Layout(
    name="USD-M trades",
    columns=_TRADE,
    headers=(
        "id,price,qty,quoteqty,time,isbuyermaker",
        "id,price,quantity,quotequantity,timestamp,isbuyermaker",
    ),
)
CM_TRADES = Layout(
    name="COIN-M trades",
    columns=_TRADE,
    headers=("id,price,qty,baseqty,time,isbuyermaker",),
)
_AGG_HEADERS = (
    "aggtradeid,price,quantity,firsttradeid,lasttradeid,transacttime,isbuyermaker",
    "aggtradeid,price,quantity,firsttradeid,lasttradeid,timestamp,isbuyermaker",
)
SPOT_AGG_TRADES = Layout(
    name="spot aggTrades",
    columns=(*_AGG_TRADE, "is_best_match"),
    headers=tuple(f"{header},isbestmatch" for header in _AGG_HEADERS),
)
FUTURES_AGG_TRADES = Layout(name="futures aggTrades", columns=_AGG_TRADE, headers=_AGG_HEADERS)


_TRADES_LAYOUTS = {Market.SPOT: SPOT_TRADES, Market.UM: UM_TRADES, Market.CM: CM_TRADES}


def trades_layout(symbol: str) -> Layout:
    """Return the columns of a file of a symbol's single trades."""
    return _TRADES_LAYOUTS[market_of(symbol)]


def agg_trades_layout(symbol: str) -> Layout:
    """Return the columns of a file of a symbol's aggTrades."""
    return FUTURES_AGG_TRADES if market_of(symbol).is_futures else SPOT_AGG_TRADES


@dataclass(frozen=True, slots=True)
class TradeBlock:
    """Result of reading a part of a file.

    Attributes:
        whole: candles (``CANDLE_SCHEMA``) proven complete.
        partial: candles that lack trades or are not proven complete.
        rejections: unusable rows.
        trades: number of usable rows.
        time_unit: ``ms``, ``us``, or None while no row had a time.
        rows: the usable rows, if requested: the columns of the layout, numbers as text,
            ``trade_time`` in µs.
    """

    whole: pl.DataFrame
    partial: pl.DataFrame
    rejections: list[Rejection]
    trades: int
    time_unit: str | None
    rows: pl.DataFrame | None = None


class TradeReader:
    """Reads and aggregates one file.

    Args:
        symbol: platform symbol.
        layout: of the file; None for single trades of the symbol's market.
        after_id: id of the row before the file's first; see ``TradeAggregator``.
        window: half-open range (µs) of valid trade times; rows outside are rejected; None: any.
        keep_rows: return the rows as well.
    """

    def __init__(
        self,
        symbol: str,
        layout: Layout | None = None,
        *,
        after_id: int | None = None,
        window: tuple[int, int] | None = None,
        keep_rows: bool = False,
    ) -> None:
        self._layout = layout or trades_layout(symbol)
        self._is_agg = "first_trade_id" in self._layout.columns
        self._is_futures = market_of(symbol).is_futures
        self._symbol = symbol
        self._aggregator = self._new_aggregator(after_id)
        self._window = window or (0, _END_OF_TIME_US)
        self._keep_rows = keep_rows
        self._digits = 0

    @property
    def layout(self) -> Layout:
        """Columns that the file must have."""
        return self._layout

    @property
    def aggregator(self) -> TradeAggregator:
        """Ids read so far, and the first and last minute if they are not proven complete."""
        return self._aggregator

    def read_file(
        self,
        path: Path,
        *,
        before_id: int | None = None,
        block_bytes: int = BLOCK_BYTES,
        on_read: OnRead | None = None,
    ) -> Iterator[TradeBlock]:
        """Yield the blocks of a ``.csv``, ``.csv.gz`` or ``.zip``.

        While one block is aggregated, threads parse the next and decompress the one after it.

        Args:
            before_id: id of the row after the file's last; see ``TradeAggregator.finish``.

        Raises:
            RejectedInputError: damaged, or with other columns.
            OverflowError: a sum needs more than 128 bits.
        """
        texts = text_blocks(path, (self._layout,), block_bytes=block_bytes, on_read=on_read)
        held: _Parsed | None = None
        with closing(read_ahead(self._parsed(texts))) as blocks:
            for block in blocks:
                if held is not None:
                    yield self._read(held)
                held = block
        if held is not None:
            yield self._read(held, is_last=True, before_id=before_id)

    def read(
        self, block: TextBlock, *, is_last: bool = False, before_id: int | None = None
    ) -> TradeBlock:
        """Read a block without the header; ``is_last`` also returns the minutes held back."""
        parsed = block, read_plain(block.content, self._layout)
        return self._read(parsed, is_last=is_last, before_id=before_id)

    def _parsed(self, texts: Generator[TextBlock, None, None]) -> Generator[_Parsed, None, None]:
        with closing(read_ahead(texts)) as blocks:
            for block in blocks:
                yield block, read_plain(block.content, self._layout)

    def _read(
        self, parsed: _Parsed, *, is_last: bool = False, before_id: int | None = None
    ) -> TradeBlock:
        block, plain = parsed
        read = self._read_plain(plain)
        rejections: list[Rejection] = []
        if read is None:
            sections = part(block, self._layout, self._aggregator)
            if sections is not None:
                return self._read_two_instruments(*sections, is_last=is_last, before_id=before_id)
            read, rejections = self._read_carefully(block)
        whole, partial = self._aggregator.add(read)
        if is_last:
            rest = self._aggregator.finish(before_id=before_id)
            whole, partial = pl.concat([whole, rest.whole]), pl.concat([partial, rest.partial])
        rows = read.frame
        if "is_void" in rows.columns:
            rows = rows.filter(~pl.col("is_void") & ~pl.col("is_bad"))
        return TradeBlock(
            whole,
            partial,
            sorted(rejections, key=lambda one: one.line),
            rows.height,
            unit_of(self._digits),
            rows.select(self._raw_columns) if self._keep_rows else None,
        )

    def _read_two_instruments(
        self, former: TextBlock, later: TextBlock, *, is_last: bool, before_id: int | None
    ) -> TradeBlock:
        """Aggregate the blocks of two instruments with one ticker, each separately."""
        parts = [self.read(former)] if former.content else []
        rest = self._aggregator.finish()
        ended_us = self._aggregator.last_minute_us + MINUTE_US
        self._aggregator = self._new_aggregator()
        self._aggregator.aggregated_until_us = ended_us
        parts.append(self.read(later, is_last=is_last, before_id=before_id))
        stored_rows = [one.rows for one in parts if one.rows is not None]
        return TradeBlock(
            pl.concat([*(one.whole for one in parts), rest.whole]),
            pl.concat([*(one.partial for one in parts), rest.partial]),
            [one for each in parts for one in each.rejections],
            sum(one.trades for one in parts),
            unit_of(self._digits),
            pl.concat(stored_rows) if stored_rows else None,
        )

    def _new_aggregator(self, after_id: int | None = None) -> TradeAggregator:
        # Ids of single trades of futures skip by design; those of aggTrades do not.
        return TradeAggregator(
            self._symbol, ids_follow=self._is_agg or not self._is_futures, after_id=after_id
        )

    # --- the fast way

    def _read_plain(self, plain: PlainRows | None) -> TradeRows | None:
        """Return the rows of a block; None unless every row is good and in order."""
        if plain is None:
            return None
        table, decimals = plain
        digits = time_digits(table)
        if not digits or digits != (self._digits or digits):
            return None
        first, last = self._span
        rows = table.with_columns(
            to_micros("trade_time", digits=digits), first_trade_id=first, last_trade_id=last
        )
        is_void = pl.lit(value=False)
        if self._is_agg or self._is_futures:
            is_void = (pl.col("scaled_price") == 0) & (pl.col("scaled_quantity") == 0)
        if self._is_agg:
            is_void &= (pl.col("first_trade_id") == -1) & (pl.col("last_trade_id") == -1)
        if rows.select(is_void.any()).item():
            rows = rows.with_columns(is_void.alias("is_void"), is_bad=pl.lit(value=False))
        is_trade = (
            (pl.col("scaled_price") > 0)
            & (pl.col("scaled_quantity") > 0)
            & (pl.col("first_trade_id") >= 0)
            & (pl.col("last_trade_id") >= pl.col("first_trade_id"))
        )
        ids = pl.col("id")
        is_good = rows.select(
            (is_trade | is_void).all()
            & (ids > ids.shift(1)).all()
            & (ids.first() > self._aggregator.last_id)
            & (
                pl.col("trade_time").min()
                >= max(self._aggregator.aggregated_until_us, self._window[0])
            )
            & (pl.col("trade_time").max() < self._window[1])
        )
        if not is_good.item():
            return None
        self._digits = digits
        return self._as_rows(rows, decimals)

    # --- the careful way

    def _read_carefully(self, block: TextBlock) -> tuple[TradeRows, list[Rejection]]:
        table, rejections = split(block.lines(), self._layout)
        self._digits = self._digits or sniff_digits(table, "trade_time")
        table, bad = self._place(table)
        rejections += bad
        table, bad = self._find_voids(table)
        rejections += bad
        numbers = self._numbers
        is_trade = ~pl.col("is_void") & ~pl.col("is_bad")
        trades = table.filter(is_trade)
        decimals = {name: decimals_needed(trades, [name]) for name in numbers}
        trades = trades.with_columns(
            to_scaled(name, decimals[name]).alias(f"scaled_{name}") for name in numbers
        )
        table = pl.concat([trades, table.filter(~is_trade)], how="diagonal").sort("id")
        return self._as_rows(table, decimals), rejections

    def _place(self, table: pl.DataFrame) -> tuple[pl.DataFrame, list[Rejection]]:
        """Return the rows with a time and a unique id, ordered by id; reject the others.

        A rejected row leaves a missing id, which makes its minute incomplete.
        """
        table, rejections = reject(
            table,
            [
                *time_checks(["trade_time"], digits=self._digits),
                (~pl.col("id").str.contains(COUNT), "id is not an integer"),
            ],
        )
        table = table.with_columns(
            pl.col("id").cast(pl.Int64), to_micros("trade_time", digits=self._digits)
        ).sort("id", maintain_order=True)
        repeats = (pl.col("id") <= self._aggregator.last_id) | ~pl.col("id").is_first_distinct()
        late = pl.col("trade_time") < self._aggregator.aggregated_until_us
        outside = ~pl.col("trade_time").is_between(*self._window, closed="left")
        table, bad = reject(
            table,
            [
                (outside, "trade_time is outside the period of the file"),
                (repeats, "the id occurs earlier in this file"),
                (late, "the trade is out of time order: its minute was already complete"),
            ],
        )
        return table, rejections + bad

    def _find_voids(self, table: pl.DataFrame) -> tuple[pl.DataFrame, list[Rejection]]:
        """Mark rows that are not trades by design, and rows whose trade is unreadable.

        Unreadable rows are rejected and make their minute incomplete.
        """
        is_void = pl.lit(value=False)
        if self._is_agg or self._is_futures:
            is_void = _is_zero("price") & _is_zero("quantity")
        if self._is_agg:
            is_void &= (pl.col("first_trade_id") == "-1") & (pl.col("last_trade_id") == "-1")
        table = table.with_columns(is_void.alias("is_void"))
        flag = pl.col("is_buyer_maker").str.to_lowercase()
        checks: list[tuple[pl.Expr, str | pl.Expr]] = [
            *number_checks(self._numbers),
            (~flag.is_in(["true", "false"]), "is_buyer_maker is neither true nor false"),
            (_is_zero("quantity"), "quantity 0 with a valid id: its minute misses a trade"),
            (_is_zero("price"), "price 0 with a valid id: its minute misses a trade"),
        ]
        if self._is_agg:
            first, last = pl.col("first_trade_id"), pl.col("last_trade_id")
            checks += [
                (~first.str.contains(COUNT), "first_trade_id is not an integer"),
                (~last.str.contains(COUNT), "last_trade_id is not an integer"),
                (
                    last.cast(pl.Int64, strict=False) < first.cast(pl.Int64, strict=False),
                    "last_trade_id is below first_trade_id",
                ),
            ]
        good, bad = reject(table.filter(~pl.col("is_void")), checks)
        is_bad = ~pl.col("is_void") & ~pl.col("line").is_in(good["line"].implode())
        first_name, last_name = self._span
        table = table.with_columns(
            is_bad.alias("is_bad"),
            is_buyer_maker=flag == "true",
            first_trade_id=pl.col(first_name).cast(pl.Int64, strict=False),
            last_trade_id=pl.col(last_name).cast(pl.Int64, strict=False),
        )
        return table, bad

    # --- both

    @property
    def _numbers(self) -> list[str]:
        return [name for name in NUMBERS if name in self._layout.columns]

    @property
    def _span(self) -> tuple[str, str]:
        """Names of the columns with a row's first and last trade id."""
        return ("first_trade_id", "last_trade_id") if self._is_agg else ("id", "id")

    @property
    def _raw_columns(self) -> list[str]:
        return [name for name in self._layout.columns if name != "is_best_match"]

    def _as_rows(self, table: pl.DataFrame, decimals: dict[str, int]) -> TradeRows:
        return TradeRows(
            table, decimals["price"], decimals["quantity"], decimals.get("quote_quantity")
        )


def _is_zero(column: str) -> pl.Expr:
    return pl.col(column).str.contains(r"^[0.]+$")


def read_trades(
    path: Path, symbol: str, layout: Layout | None = None, *, on_read: OnRead | None = None
) -> Iterator[TradeBlock]:
    """Yield the blocks of a file of trades or aggTrades; see ``TradeReader``."""
    return TradeReader(symbol, layout).read_file(path, on_read=on_read)
