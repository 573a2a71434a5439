"""Exact decimals in polars: convert text to scaled 128-bit integers and back.

polars' own functions lose digits silently: a cast from text to Decimal truncates digits beyond its
scale, Decimal products round, and integer sums wrap around. Here a column becomes integers at the
scale that its digits need, and a sum or product that could exceed 128 bits raises beforehand.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import polars as pl

_LARGEST = 2**127 - 1


def decimals_needed(frame: pl.DataFrame, columns: Iterable[str]) -> int:
    """Return the most decimals of any value of these text columns, without trailing zeros.

    Args:
        columns: names of ``pl.String`` columns in plain decimal notation.
    """
    fractions = [_fraction(pl.col(name)).str.len_bytes().max() for name in columns]
    if frame.is_empty() or not fractions:
        return 0
    return int(frame.select(pl.max_horizontal(*fractions)).item() or 0)


def to_scaled(column: str, decimals: int) -> pl.Expr:
    """Return the expression that converts a text column to Int128 in units of 10^-decimals.

    Args:
        decimals: at least ``decimals_needed``, or the cast fails.

    A value that is too large or not a plain decimal number raises
    ``pl.exceptions.InvalidOperationError`` when the expression is collected.
    """
    text = pl.col(column)
    whole = text.str.splitn(".", 2).struct.field("field_0")
    # Without the mark, an empty text would be padded to zero.
    whole = pl.when(whole == "").then(pl.lit("?")).otherwise(whole)
    digits = whole + _fraction(text).str.pad_end(decimals, "0")
    return digits.cast(pl.Int128, strict=True).alias(column)


def to_text(column: str, decimals: int) -> pl.Expr:
    """Return the expression that converts non-negative scaled integers to plain decimal text."""
    value = pl.col(column)
    if decimals == 0:
        return value.cast(pl.String).alias(column)
    unit = pl.lit(10**decimals, dtype=pl.Int128)
    fraction = (value % unit).cast(pl.String).str.zfill(decimals)
    return ((value // unit).cast(pl.String) + "." + fraction).alias(column)


def rescaled(frame: pl.DataFrame, more: Mapping[str, int]) -> pl.DataFrame:
    """Return a frame whose columns of scaled integers have more decimals.

    Args:
        more: decimals to add, by column.

    Raises:
        OverflowError: names the column whose values would need more than 128 bits.
    """
    units = {name: 10**count for name, count in more.items() if count}
    for name, unit in units.items():
        if int(frame[name].max() or 0) * unit > _LARGEST:  # type: ignore[arg-type]
            raise OverflowError(f"{name} with {more[name]} more decimals needs over 128 bits")
    return frame.with_columns(
        pl.col(name) * pl.lit(unit, dtype=pl.Int128) for name, unit in units.items()
    )


def trimmed(frame: pl.DataFrame, columns: Iterable[str], decimals: int) -> int:
    """Return the decimals that scaled integer columns need, without trailing zeros."""
    names = list(columns)
    for spare in range(decimals, 0, -1):
        unit = pl.lit(10**spare, dtype=pl.Int128)
        are_zeros = pl.all_horizontal((pl.col(name) % unit == 0).all() for name in names)
        if frame.select(are_zeros).item():
            return decimals - spare
    return decimals


def check_sums_fit(frame: pl.DataFrame, columns: Iterable[str]) -> None:
    """Raise if the sum of a column of scaled integers could overflow.

    Raises:
        OverflowError: names the column.
    """
    for name in columns:
        largest = frame[name].max() or 0
        if int(largest) * frame.height > _LARGEST:  # type: ignore[arg-type]
            raise OverflowError(f"the sum of {frame.height} values of {name} needs over 128 bits")


def check_products_fit(frame: pl.DataFrame, left: str, right: str) -> None:
    """Raise if the sum of the products of two columns could overflow.

    Raises:
        OverflowError: names the columns.
    """
    bound = int(frame[left].max() or 0) * int(frame[right].max() or 0)  # type: ignore[arg-type]
    if bound * frame.height > _LARGEST:
        raise OverflowError(
            f"the sum of {frame.height} products {left} × {right} needs over 128 bits"
        )


def _fraction(text: pl.Expr) -> pl.Expr:
    field = text.str.splitn(".", 2).struct.field("field_1")
    return field.fill_null("").str.strip_chars_end("0")
