"""Fast parsing of files of trades and klines, for blocks in which every row is plain.

polars' own reader types the columns; cheap aggregates over whole columns then prove that every row
is plain. If a row may not be, ``read_plain`` returns None, and the slow way (``columns``) reads the
block line by line and says which row is wrong. Tests compare the results of both.
"""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from include.binance.files.columns import Layout
from include.domain.columns.candles import PRICES, VOLUMES

NUMBERS = ("price", "quantity", "quote_quantity", *PRICES, *VOLUMES)
COUNTS = (
    "id", "first_trade_id", "last_trade_id", "trade_time", "open_time", "close_time", "trade_count",
)  # fmt: skip

MAX_DIGITS = 18
"""Maximum digits on each side of the point, and of a count: see ``columns.NUMBER``."""

_CHARACTERS = b"0123456789.,\r\n"
_CHARACTERS_OF_TRADES = _CHARACTERS + b"-tTrueFfals"
"""Characters of rows with flags, and with -1 for a missing id."""

_LARGEST_COUNT = 10**MAX_DIGITS - 1
_TIMES = {13: (10**12, 10**13 - 1), 16: (10**15, 10**16 - 1)}
_TRUE, _FALSE = ("true", "True"), ("false", "False")


PlainRows = tuple[pl.DataFrame, dict[str, int]]
"""Typed rows, and the decimals of their numbers; see ``read_plain``."""


def read_plain(block: bytes, layout: Layout) -> PlainRows | None:
    """Type the rows of a block without header; None if any row may not be plain.

    Returns:
        The layout's columns: counts and times as Int64, flags as Boolean, numbers as text and also
        as ``scaled_…`` (Int128 in units of 10^-decimals); and the decimals of each number. Values
        may be zero, and negative counts are as in the file.
    """
    has_flags = "is_buyer_maker" in layout.columns
    if block.translate(None, _CHARACTERS_OF_TRADES if has_flags else _CHARACTERS):
        return None
    if b"-0" in block:
        return None  # a negative zero is not plain, but would equal 0 once typed
    schema = pl.Schema(
        {name: pl.Int64() if name in COUNTS else pl.String() for name in layout.columns}
    )
    try:
        table = pl.read_csv(block, has_header=False, schema=schema, quote_char=None)
    except pl.exceptions.PolarsError:
        return None  # a row has other columns, or a non-number in a number's column
    if table.is_empty():
        return None
    numbers = [name for name in NUMBERS if name in layout.columns]
    common = _common_decimals(table, numbers)
    scaled: list[pl.Expr] = []
    decimals: dict[str, int] = {}
    for name in numbers:
        found = _as_integers(table[name], common[name])
        if found is None:
            return None
        values, decimals[name] = found
        scaled.append(values.alias(f"scaled_{name}"))
    is_flag = pl.lit(value=True)
    if has_flags:
        is_true = pl.col("is_buyer_maker").is_in(_TRUE)
        scaled.append(is_true.alias("is_buyer_maker"))
        is_flag = is_true | pl.col("is_buyer_maker").is_in(_FALSE)
    typed = table.with_columns(*scaled, is_flag.alias("is_flag"))
    counts = [name for name in COUNTS if name in layout.columns]
    if not _is_sound(typed, numbers, counts):
        return None
    return typed.drop("is_flag"), decimals


def time_digits(table: pl.DataFrame, name: str = "trade_time") -> int:
    """Return the digits of all times of a typed table: 13 (ms), 16 (µs), or 0 if they differ."""
    low, high = table.select(pl.col(name).min(), pl.col(name).max().alias("high")).row(0)
    for digits, (least, most) in _TIMES.items():
        if least <= low and high <= most:
            return digits
    return 0


def _as_integers(column: pl.Series, common: int) -> tuple[pl.Expr, int] | None:
    """Return a column of numbers scaled to Int128, and its decimals; None if one may not be a
    number.

    Text that is not a number becomes null in the expression.
    """
    text = pl.col(column.name)
    if common:
        # A plain number is an integer without its point; far cheaper to check than a decimal.
        digits = text.str.replace(".", "", literal=True)
        return digits.cast(pl.Int64, strict=False).cast(pl.Int128), common
    most = _max_decimals(column)
    if most is None:
        return None
    return text.cast(pl.Decimal(38, most), strict=False).to_physical(), most


def _common_decimals(table: pl.DataFrame, names: Sequence[str]) -> dict[str, int]:
    """Return the decimals that all texts of a column have; 0 if they differ or are too many."""
    decimals, are_common = {}, []
    for name in names:
        _, point, fraction = str(table[name][0] or "").partition(".")
        decimals[name] = count = len(fraction) if point else 0
        text = pl.col(name)
        sizes = text.str.len_bytes()
        are_common.append(
            (text.str.slice(-count - 1, 1) == ".").all()
            & (sizes.min() >= count + 2)
            & (sizes.max() <= MAX_DIGITS + 1)
            & pl.lit(value=count > 0)
        )
    found = table.select(one.alias(name) for name, one in zip(names, are_common, strict=True))
    return {name: decimals[name] if found[name].item() else 0 for name in names}


def _max_decimals(column: pl.Series) -> int | None:
    """Return the most decimals in a column; None if a text may not be a plain number."""
    text = pl.col(column.name)
    point, size = text.str.find(".", literal=True), text.str.len_bytes()
    min_before, max_before, min_behind, max_behind, longest_whole, has_e = (
        column.to_frame()
        .select(
            point.min().alias("least before"),
            point.max().alias("most before"),
            (size - point).min().alias("least behind"),
            (size - point).max().alias("most behind"),
            size.filter(point.is_null()).max().alias("longest whole"),
            # A cast to decimal would accept 1e5.
            text.str.contains("e", literal=True).any().alias("has e"),
        )
        .row(0)
    )
    if has_e or (longest_whole or 0) > MAX_DIGITS:
        return None
    if max_before is None:
        return 0
    if min_before < 1 or max_before > MAX_DIGITS:
        return None
    if min_behind < 2 or max_behind > MAX_DIGITS + 1:
        return None
    return int(max_behind) - 1


def _is_sound(typed: pl.DataFrame, numbers: Sequence[str], counts: Sequence[str]) -> bool:
    """Whether no value is missing, no number is negative and every flag is valid."""
    no_nulls = pl.all_horizontal((pl.col(name).null_count() == 0) for name in typed.columns)
    not_negative = pl.all_horizontal((pl.col(f"scaled_{name}") >= 0).all() for name in numbers)
    no_giants = pl.all_horizontal((pl.col(name) <= _LARGEST_COUNT).all() for name in counts)
    sound = typed.select(no_nulls & not_negative & no_giants & pl.col("is_flag").all())
    return bool(typed.height and sound.item())
