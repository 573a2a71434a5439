"""Read 1-minute candles from files with columns of others: CSV or Parquet, times in ISO or epochs.

A value that a file does not have is unknown, never zero. Rows with all nine values can be merged;
the others are returned apart. Unusable rows are returned with line and reason, as from files of
klines.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

import polars as pl

from include.binance.files.archives import OnRead, read_blocks
from include.binance.files.columns import (
    NUMBER,
    Layout,
    Rejection,
    lines_of,
    number_checks,
    reject,
    split,
)
from include.binance.files.parquet_files import SUFFIX as PARQUET
from include.binance.files.parquet_files import foreign_blocks
from include.domain.columns.candles import CANDLE_SCHEMA, PRICES, VOLUMES
from include.domain.columns.candles import TIME as TIME_TYPE
from include.domain.columns.scaled import decimals_needed
from include.domain.exact import ZERO
from include.domain.instruments import Market, exchange_symbol_of, symbol_from
from include.domain.timeframes import MINUTE_US, TIMEFRAMES
from include.errors import RejectedInputError
from include.jobs.files.column_maps import OPTIONAL, SKIPPED, SYMBOL, ColumnMap, placed
from include.jobs.files.markets import check_amounts

FOREIGN = Layout("foreign candles", (), ())

_NUMBERS = (*PRICES, *VOLUMES)
_UNKNOWN = ("", "nan", "null", "none", "na", "n/a", "nil", "<na>", "-")
_EPOCH = r"^([0-9]{10}|[0-9]{13}|[0-9]{16}|[0-9]{19})$"
_ISO = (
    r"^([0-9]{4}-[0-9]{2}-[0-9]{2})[T ]([0-9]{2}:[0-9]{2})(:00(\.0+)?)?"
    r" ?(Z|UTC|[+-][0-9]{2}:?[0-9]{2})?$"
)
_EXPONENT = r"^[0-9]+(\.[0-9]+)?[eE][+-]?[0-9]{1,2}$"
_WHOLE = r"^([0-9]{1,18})(\.0+)?$"
_IS_VALUE = re.compile(r"[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?|[0-9]{4}-[0-9]{2}-[0-9]{2}.*")
_SAMPLED_ROWS = 200
_JUDGED_ROWS = 3
"""Fewer rows may be minutes far apart."""
_UNITS = {10: "s", 13: "ms", 16: "us", 19: "ns"}


@dataclass(frozen=True, slots=True)
class ForeignBlock:
    """A part of a file; frames are ``CANDLE_SCHEMA`` by open time.

    Attributes:
        candles: rows with all nine values.
        incomplete: rows that lack values, which are null.
        time_unit: ``ms``, ``us``, or None for other times.
    """

    candles: pl.DataFrame
    incomplete: pl.DataFrame
    rejections: list[Rejection]
    time_unit: str | None


class _Reader:
    """Reads one file; remembers the time format of its first row.

    Args:
        symbol: platform symbol of the rows.
        columns: our name of each column of the file.
        aside: open times (µs) of several rows; these are held back for ``finish``.
    """

    def __init__(self, symbol: str, columns: list[str], aside: frozenset[int]) -> None:
        self._symbol = symbol
        self._known = [name for name in columns if name != SKIPPED]
        self._aside = pl.Series("open_time", sorted(aside), dtype=pl.Int64)
        self._held: list[pl.DataFrame] = []
        self.digits: int | None = None
        """Digits of an epoch, 0 for ISO; None while no row had a time."""

    def times(self, table: pl.DataFrame) -> pl.Series:
        """Return the open times (µs) of rows; null where there is none."""
        if self.digits is None:
            first = table.filter(
                pl.col("open_time").str.contains(_EPOCH) | pl.col("open_time").str.contains(_ISO)
            )["open_time"]
            if first.len():
                is_iso = "-" in first[0]
                self.digits = 0 if is_iso else len(first[0])
        text = pl.col("open_time")
        if not self.digits:
            day, clock, zone = (text.str.extract(_ISO, group) for group in (1, 2, 5))
            local = (day + " " + clock).str.to_datetime(
                "%Y-%m-%d %H:%M", strict=False, time_unit="us"
            )
            hours, minutes = (
                zone.str.extract(r"^[+-]([0-9]{2}):?([0-9]{2})$", group).cast(pl.Int64)
                for group in (1, 2)
            )
            sign = pl.when(zone.str.starts_with("-")).then(-1).otherwise(1)
            ahead_us = (sign * (hours * 60 + minutes) * MINUTE_US).fill_null(0)
            found = local.dt.epoch("us") - ahead_us
        else:
            value = (
                pl.when(text.str.contains(_EPOCH) & (text.str.len_bytes() == self.digits))
                .then(text)
                .cast(pl.Int64)
            )
            if self.digits == 19:  # digits below µs would be lost: no full minute has any
                found = pl.when(value % 1000 == 0).then(value // 1000)
            else:
                found = value * 10 ** (16 - self.digits)
        return table.select(found.alias("open_time"))["open_time"]

    def read(self, table: pl.DataFrame, rejections: list[Rejection]) -> ForeignBlock:
        """Check rows (``line``, ``raw`` and our columns as text)."""
        times = self.times(table)
        table = table.with_columns(times.alias("moment"))
        unit = "" if self.digits is None else " of the first row's kind"
        no_time = pl.format(f"open_time is no time{unit}: '{{}}'", pl.col("open_time"))
        texts = [name for name in _NUMBERS if name in self._known]
        table, bad = reject(
            table,
            [
                (pl.col("open_time").is_null(), "open_time is missing"),
                (pl.col("moment").is_null(), no_time),
                (pl.col("moment") % MINUTE_US != 0, "open_time is not a full minute"),
                *((pl.col(name).is_null(), f"{name} is missing") for name in PRICES),
                *number_checks(texts),
                *(
                    (~pl.col(name).str.contains(_WHOLE), f"{name} is not an integer")
                    for name in ("trade_count",)
                    if name in self._known
                ),
            ],
        )
        rejections = rejections + bad
        table = table.with_columns(
            pl.col("moment").alias("open_time"),
            *(pl.lit(None, pl.String).alias(name) for name in OPTIONAL if name not in self._known),
        ).with_columns(pl.col("trade_count").str.extract(_WHOLE).cast(pl.Int64))
        decimals = decimals_needed(table, _NUMBERS)
        table = table.with_columns(
            pl.col(name).cast(pl.Decimal(38, decimals)).alias(f"scaled_{name}") for name in _NUMBERS
        )
        table, bad = reject(table, self._value_checks())
        rejections += bad
        if self._aside.len():
            is_aside = pl.col("open_time").is_in(self._aside.implode())
            self._held.append(table.filter(is_aside))
            table = table.filter(~is_aside)
        return self._block(table, rejections)

    def finish(self) -> ForeignBlock | None:
        """Return the rows that were held back: one of equal rows, none of contradictory ones."""
        if not self._held:
            return None
        table = pl.concat(self._held, how="vertical_relaxed")
        values = pl.struct(*(f"scaled_{name}" for name in _NUMBERS), "trade_count")
        key = pl.col("open_time")
        table, rejections = reject(
            table,
            [
                (values.n_unique().over(key) > 1, "rows of one open_time contradict each other"),
                (~key.is_first_distinct(), "the open_time occurs earlier in this file"),
            ],
        )
        return self._block(table, rejections)

    def _value_checks(self) -> list[tuple[pl.Expr, str | pl.Expr]]:
        """Return the checks of values; a check that needs an unknown value passes."""

        def value(name: str) -> pl.Expr:
            return pl.col(f"scaled_{name}")

        is_silent = pl.col("trade_count") == 0
        prices = [value(name) for name in PRICES]
        return [
            (value("high") < pl.max_horizontal(*prices), "high is below another price"),
            (value("low") > pl.min_horizontal(*prices), "low is above another price"),
            (value("low") == 0, "a price is zero"),
            (value("taker_buy_volume") > value("volume"), "taker_buy_volume exceeds volume"),
            (
                value("taker_buy_quote_volume") > value("quote_volume"),
                "taker_buy_quote_volume exceeds quote_volume",
            ),
            (is_silent != (value("volume") == 0), "volume and trade_count contradict each other"),
            (is_silent & (value("quote_volume") != 0), "a row without trades has quote volume"),
        ]

    def _block(self, table: pl.DataFrame, rejections: list[Rejection]) -> ForeignBlock:
        none = pl.lit(None, dtype=pl.Int64)
        rows = (
            table.sort("open_time")
            .with_columns(
                symbol=pl.lit(self._symbol),
                open_time=pl.col("open_time").cast(TIME_TYPE),
                first_trade_id=none,
                last_trade_id=none,
            )
            .select(*CANDLE_SCHEMA)
        )
        is_complete = pl.all_horizontal(pl.col(name).is_not_null() for name in OPTIONAL)
        unit = _UNITS.get(self.digits or 0)
        return ForeignBlock(
            rows.filter(is_complete),
            rows.filter(~is_complete),
            sorted(rejections, key=lambda one: one.line),
            unit if unit in ("ms", "us") else None,
        )


def read_foreign(
    path: Path, symbol: str, chosen: ColumnMap, *, on_read: OnRead | None = None
) -> Iterator[ForeignBlock]:
    """Yield the blocks of a ``.csv``, ``.csv.gz``, ``.zip`` or ``.parquet``.

    The file is read twice: first its times, since nothing shows which of two rows of a minute is
    right.

    Args:
        symbol: platform symbol of the rows.
        chosen: see ``column_maps``.

    Raises:
        RejectedInputError: damaged; a column is missing; several symbols; or wider than a minute.
    """
    columns, _ = _columns_of(path, chosen)
    reader = _Reader(symbol, columns, frozenset())
    times, symbols = [pl.Series("open_time", [], dtype=pl.Int64)], set[str]()
    for table, _ in _tables(path, chosen, on_read=None):
        times.append(reader.times(table).drop_nulls())
        if SYMBOL in columns:
            symbols |= {one for one in table[SYMBOL].unique() if one is not None}
    if len(symbols) > 1:
        raise RejectedInputError(
            f"{path.name} holds rows of {len(symbols)} symbols: write one file for each"
        )
    opens = pl.concat(times).sort()
    _check_width(path, opens)
    for name in symbols:
        if symbol_from(name) not in (symbol, exchange_symbol_of(symbol)):
            raise RejectedInputError(f"{path.name} holds rows of another symbol than {symbol}")
    twice = frozenset(opens.filter(opens == opens.shift(1)))
    reader = _Reader(symbol, columns, twice)
    for table, rejections in _tables(path, chosen, on_read=on_read):
        yield reader.read(table, rejections)
    last = reader.finish()
    if last is not None:
        yield last


def _check_width(path: Path, opens: pl.Series) -> None:
    """Check that rows may be minutes: hours would pass every other check."""
    steps = opens.diff().drop_nulls()
    least = steps.filter(steps > 0).min()
    if opens.len() < _JUDGED_ROWS or not isinstance(least, int) or least == MINUTE_US:
        return
    is_width = least in {one.width_us for one in TIMEFRAMES.values()}
    if is_width and (opens % least == opens[0] % least).all():
        raise RejectedInputError(
            f"{path.name}: its rows are at least {least // MINUTE_US} minutes apart; candles of 1 "
            "minute can be imported"
        )


def check_foreign(path: Path, chosen: ColumnMap, said: Market | str = "") -> None:
    """Check that a file has the mapped columns, and that its amounts fit its market.

    Raises:
        RejectedInputError: it lacks columns, is empty, or its amounts are of another market.
    """
    columns, _ = _columns_of(path, chosen)
    names = ("low", "high", "volume", "quote_volume")
    if not set(names) <= set(columns):
        return
    with closing(_tables(path, chosen, on_read=None)) as tables:
        table = next((table.head(_SAMPLED_ROWS) for table, _ in tables), None)
    if table is not None:
        plain = table.select(names).drop_nulls()
        rows = plain.filter(pl.all_horizontal(pl.all().str.contains(NUMBER))).iter_rows()
        values = [(Decimal(a), Decimal(b), Decimal(c), Decimal(d)) for a, b, c, d in rows]
        check_amounts(path, [row for row in values if row[2] > ZERO and row[3] > ZERO], said)


def _columns_of(path: Path, chosen: ColumnMap) -> tuple[list[str], bool]:
    """Return our names of a file's columns, and whether its first line is a header."""
    if path.suffix == PARQUET:
        header = next((frame.columns for frame, _ in foreign_blocks(path)), None)
        if header is None:
            raise RejectedInputError(f"{path.name} is empty")
        return placed(chosen, header, len(header), file=path.name), False
    for block in read_blocks(path, block_bytes=1 << 18):
        lines = lines_of(block, first_line=1)
        if lines.height:
            fields = [field.strip(' "') for field in lines["raw"][0].split(",")]
            has_header = not any(_IS_VALUE.fullmatch(field) for field in fields)
            header = fields if has_header else None
            return placed(chosen, header, len(fields), file=path.name), has_header
    raise RejectedInputError(f"{path.name} is empty")


def _tables(
    path: Path, chosen: ColumnMap, *, on_read: OnRead | None
) -> Generator[tuple[pl.DataFrame, list[Rejection]], None, None]:
    """Yield rows with ``line``, ``raw`` and our columns as text (null: unknown)."""
    columns, has_header = _columns_of(path, chosen)
    known = [name for name in columns if name != SKIPPED]
    if path.suffix == PARQUET:
        line = 1
        for frame, share in foreign_blocks(path):
            if on_read is not None:
                on_read(share)
            used = {
                theirs: ours
                for theirs, ours in zip(frame.columns, columns, strict=True)
                if ours != SKIPPED
            }
            table = frame.select(list(used)).rename(used)
            raw = pl.concat_str(pl.all().fill_null(""), separator=",")
            yield _cleaned(table.with_columns(raw=raw).with_row_index("line", line), known), []
            line += frame.height
        return
    layout = Layout(
        FOREIGN.name,
        tuple(name if name != SKIPPED else f"skipped_{at}" for at, name in enumerate(columns)),
        (),
    )
    line = 1
    for block in read_blocks(path, on_read=on_read):
        lines = lines_of(block, first_line=line)
        line += block.count(b"\n")
        if has_header and lines.height:
            lines, has_header = lines.slice(1), False
        table, rejections = split(lines, layout)
        yield _cleaned(table, known), rejections


def _cleaned(table: pl.DataFrame, known: list[str]) -> pl.DataFrame:
    """Return the rows without columns of no use; words for a missing value become null."""
    table = table.select(pl.col("line").cast(pl.Int64), "raw", *known).with_columns(
        pl.when(~pl.col(name).str.to_lowercase().is_in(_UNKNOWN)).then(pl.col(name))
        for name in known
    )
    for name in known:
        if name in _NUMBERS and table[name].str.contains(_EXPONENT).any():
            table = table.with_columns(
                pl.when(pl.col(name).str.contains(_EXPONENT))
                .then(pl.col(name).map_elements(_without_exponent, return_dtype=pl.String))
                .otherwise(pl.col(name))
            )
    return table


def _without_exponent(text: str) -> str:
    return format(Decimal(text), "f") if re.fullmatch(_EXPONENT, text) else text
