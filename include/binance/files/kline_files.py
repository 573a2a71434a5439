"""Strictly read files of klines in the dump site's format, by default of 1 minute.

They have twelve columns, with or without a header, and times in ms or µs: detected for each file.
Bad rows are returned with line and reason; the others stay usable.
"""

from __future__ import annotations

from collections.abc import Iterator
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
from include.binance.files.plain_rows import read_plain, time_digits
from include.binance.files.text_blocks import TextBlock, text_blocks
from include.domain.columns.candles import CANDLE_SCHEMA, PRICES, VOLUMES
from include.domain.columns.candles import TIME as TIME_TYPE
from include.domain.columns.scaled import decimals_needed
from include.domain.timeframes import MINUTE_US, TIMEFRAMES, Timeframe

KLINES = Layout(
    name="1m klines",
    columns=(
        "open_time",
        "open",
        "high",
        "low",
        "close",
        "volume",
        "close_time",
        "quote_volume",
        "trade_count",
        "taker_buy_volume",
        "taker_buy_quote_volume",
        "ignore",
    ),
    headers=tuple(
        f"opentime,open,high,low,close,volume,closetime,{names},ignore"
        for names in (
            "quotevolume,count,takerbuyvolume,takerbuyquotevolume",
            "quotevolume,tradecount,takerbuyvolume,takerbuyquotevolume",
            "quoteassetvolume,numberoftrades,takerbuybaseassetvolume,takerbuyquoteassetvolume",
        )
    ),
)

_NUMBERS = (*PRICES, *VOLUMES)
_SCALED = tuple(f"scaled_{name}" for name in _NUMBERS)


@dataclass(frozen=True, slots=True)
class KlineBlock:
    """A part of a file.

    Attributes:
        candles: good rows as ``CANDLE_SCHEMA``, by open time.
        rejections: bad rows.
        time_unit: ``ms``, ``us``, or None while no row had a time.
        repeated_us: open times that an earlier block had too. If two rows of one time differ, the
            caller must reject the earlier one too, because its block was returned already.
    """

    candles: pl.DataFrame
    rejections: list[Rejection]
    time_unit: str | None
    repeated_us: frozenset[int] = frozenset()


class KlineReader:
    """Reads the blocks of one file of klines; remembers what later blocks need.

    Args:
        symbol: platform symbol of the rows.
        window: half-open range (µs) of valid open times; rows outside are rejected; None: any.
        interval: of the rows.
        aside: open times (µs) known to repeat across blocks; their rows are held back, and checked
            together in ``finish``.
    """

    def __init__(
        self,
        symbol: str,
        *,
        window: tuple[int, int] | None = None,
        interval: Timeframe = TIMEFRAMES["1m"],
        aside: frozenset[int] = frozenset(),
    ) -> None:
        self._symbol = symbol
        self._interval = interval
        self._window = window
        self._digits = 0
        self._seen = pl.Series("open_time", [], dtype=pl.Int64)
        self._aside = pl.Series("open_time", sorted(aside), dtype=pl.Int64)
        self._held: list[pl.DataFrame] = []

    def read(self, block: TextBlock) -> KlineBlock:
        """Read a block without the header."""
        table = self._read_plain(block.content)
        if table is None:
            return self._read_carefully(block.lines())
        self._seen = pl.concat([self._seen, table["open_time"]])
        return KlineBlock(self._candles(table), [], unit_of(self._digits))

    def finish(self) -> KlineBlock | None:
        """Check and return the rows of ``aside``, after the last block; None if there are none."""
        if not self._held:
            return None
        lines, self._held, self._aside = pl.concat(self._held), [], self._aside.clear()
        return self._read_carefully(lines)

    # --- the fast way

    def _read_plain(self, content: bytes) -> pl.DataFrame | None:
        """Return the rows of a block, by open time; None unless every row is good."""
        found = read_plain(content, KLINES)
        if found is None:
            return None
        table, decimals = found
        digits = time_digits(table, "open_time")
        if not digits or digits != (self._digits or digits):
            return None
        if time_digits(table, "close_time") != digits:
            return None
        most = max(decimals.values())
        table = table.with_columns(
            *(
                pl.col(f"scaled_{name}") * pl.lit(10 ** (most - decimals[name]), dtype=pl.Int128)
                for name in _NUMBERS
                if decimals[name] < most
            ),
            to_micros("open_time", digits=digits),
            to_micros("close_time", digits=digits),
        )
        opens = pl.col("open_time")
        last_us = self._seen.max()
        is_bad = table.select(
            pl.any_horizontal(condition for condition, _ in self._value_checks()).any()
            | (opens <= opens.shift(1)).any()
            | (opens.first() <= pl.lit(last_us, dtype=pl.Int64)).fill_null(value=False)
            | opens.is_in(self._aside.implode()).any()
        )
        if is_bad.item():
            return None
        self._digits = digits
        return table

    # --- the careful way

    def _read_carefully(self, lines: pl.DataFrame) -> KlineBlock:
        table, rejections = split(lines, KLINES)
        self._digits = self._digits or sniff_digits(table, "open_time")
        table, bad = reject(
            table,
            [
                *time_checks(["open_time", "close_time"], digits=self._digits),
                *number_checks(_NUMBERS),
                (~pl.col("trade_count").str.contains(COUNT), "trade_count is not an integer"),
            ],
        )
        rejections += bad
        table, bad = self._check_values(table)
        rejections += bad
        if self._aside.len():
            is_aside = pl.col("open_time").is_in(self._aside.implode())
            numbers = table.filter(is_aside)["line"]
            self._held.append(lines.filter(pl.col("line").is_in(numbers.implode())))
            table = table.filter(~is_aside)
        repeated = table["open_time"].filter(table["open_time"].is_in(self._seen.implode()))
        table, bad = self._check_repeats(table)
        rejections += bad
        return KlineBlock(
            self._candles(table),
            sorted(rejections, key=lambda one: one.line),
            unit_of(self._digits),
            frozenset(repeated),
        )

    def _check_values(self, table: pl.DataFrame) -> tuple[pl.DataFrame, list[Rejection]]:
        decimals = decimals_needed(table, _NUMBERS)
        table = table.with_columns(
            *(
                pl.col(name).cast(pl.Decimal(38, decimals)).alias(f"scaled_{name}")
                for name in _NUMBERS
            ),
            to_micros("open_time", digits=self._digits),
            to_micros("close_time", digits=self._digits),
            pl.col("trade_count").cast(pl.Int64),
        )
        return reject(table, self._value_checks())

    def _value_checks(self) -> list[tuple[pl.Expr, str | pl.Expr]]:
        def value(name: str) -> pl.Expr:
            return pl.col(f"scaled_{name}")

        open_time, close_time = pl.col("open_time"), pl.col("close_time")
        width_us = self._interval.width_us
        if width_us is None:
            end_time = open_time.cast(TIME_TYPE).dt.offset_by("1mo").dt.epoch("us")
        else:
            end_time = open_time + width_us
        is_silent = pl.col("trade_count") == 0
        checks: list[tuple[pl.Expr, str | pl.Expr]] = [
            (open_time % MINUTE_US != 0, "open_time is not a full minute"),
            (
                # An outage closes a bar early.
                (close_time < open_time) | (close_time >= end_time),
                "close_time is not within the minute: not a 1m kline"
                if self._interval.width_us == MINUTE_US
                else f"close_time is not within the bar: not a {self._interval.name} kline",
            ),
            (
                value("high") < pl.max_horizontal(*(value(name) for name in PRICES)),
                "high is below another price",
            ),
            (
                value("low") > pl.min_horizontal(*(value(name) for name in PRICES)),
                "low is above another price",
            ),
            (value("low") == 0, "a price is zero"),
            (value("taker_buy_volume") > value("volume"), "taker_buy_volume exceeds volume"),
            (
                value("taker_buy_quote_volume") > value("quote_volume"),
                "taker_buy_quote_volume exceeds quote_volume",
            ),
            (is_silent != (value("volume") == 0), "volume and trade_count contradict each other"),
            (is_silent & (value("quote_volume") != 0), "a row without trades has quote volume"),
        ]
        if self._window is not None:
            start_us, end_us = self._window
            outside = (open_time < start_us) | (open_time >= end_us)
            checks.append((outside, "open_time is outside the period of the file"))
        return checks

    def _check_repeats(self, table: pl.DataFrame) -> tuple[pl.DataFrame, list[Rejection]]:
        """Keep one of several equal rows of a minute; reject all contradictory rows."""
        values = pl.struct(*_SCALED, "trade_count")
        key = pl.col("open_time")
        opens = table["open_time"].unique()  # also minutes whose rows are all rejected
        table, rejections = reject(
            table,
            [
                (key.is_in(self._seen.implode()), "the open_time occurs earlier in this file"),
                (values.n_unique().over(key) > 1, "rows of one open_time contradict each other"),
                (~key.is_first_distinct(), "the open_time occurs earlier in this file"),
            ],
        )
        self._seen = pl.concat([self._seen, opens])
        return table, rejections

    def _candles(self, table: pl.DataFrame) -> pl.DataFrame:
        ids = {name: pl.lit(None, dtype=pl.Int64) for name in ("first_trade_id", "last_trade_id")}
        in_order = table if table["open_time"].is_sorted() else table.sort("open_time")
        return in_order.with_columns(
            symbol=pl.lit(self._symbol), open_time=pl.col("open_time").cast(TIME_TYPE), **ids
        ).select(*CANDLE_SCHEMA)


def read_klines(
    path: Path,
    symbol: str,
    *,
    window: tuple[int, int] | None = None,
    interval: Timeframe = TIMEFRAMES["1m"],
    aside: frozenset[int] = frozenset(),
    block_bytes: int = BLOCK_BYTES,
    on_read: OnRead | None = None,
) -> Iterator[KlineBlock]:
    """Yield the blocks of a ``.csv``, ``.csv.gz`` or ``.zip`` of klines.

    Args:
        symbol: platform symbol of the rows.
        window: half-open range of open times (µs) that the file covers.
        interval: of the rows.
        aside: see ``KlineReader``; their rows are in the last block.

    Raises:
        RejectedInputError: damaged, or with other columns.
    """
    reader = KlineReader(symbol, window=window, interval=interval, aside=aside)
    for block in text_blocks(path, (KLINES,), block_bytes=block_bytes, on_read=on_read):
        yield reader.read(block)
    last = reader.finish()
    if last is not None:
        yield last
