"""Columns of text files: split lines and find malformed rows."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from include.counts import counted
from include.domain.timeframes import DAY_US
from include.errors import RejectedInputError

MAX_RAW_CHARACTERS = 500
"""Maximum stored length of a rejected line."""

NUMBER = r"^[0-9]{1,18}(\.[0-9]{1,18})?$"
"""Plain decimal notation that fits 128 bits; the exchange prints nothing else."""

COUNT = r"^[0-9]{1,18}$"
TIME = r"^([0-9]{13}|[0-9]{16})$"

FLAGS = ("is_buyer_maker", "is_best_match")

_BOM = "\ufeff"


@dataclass(frozen=True, slots=True)
class Rejection:
    """An unusable line; ``line`` counts from 1."""

    line: int
    reason: str
    raw: str


@dataclass(frozen=True, slots=True)
class Layout:
    """Columns of a kind of file.

    Attributes:
        name: for messages.
        columns: our names, in the file's order.
        headers: known header lines of the kind, in lower case without ``_``.
    """

    name: str
    columns: tuple[str, ...]
    headers: tuple[str, ...]


def lines_of(block: bytes, *, first_line: int) -> pl.DataFrame:
    """Return the lines of a block with their numbers (``line``, ``raw``), without blank lines.

    Invalid UTF-8 becomes U+FFFD, so that its row is rejected rather than the file.
    """
    text = block.decode("utf-8", "replace").removeprefix(_BOM)
    raw = pl.Series("raw", text.split("\n"), dtype=pl.String)
    frame = raw.str.strip_chars().to_frame().with_row_index("line", offset=first_line)
    return frame.with_columns(pl.col("line").cast(pl.Int64)).filter(pl.col("raw") != "")


def choose_layout(first: str, layouts: Sequence[Layout], *, file: str) -> tuple[Layout, bool]:
    """Detect a file's layout from its first line, and whether that line is a header.

    A header is detected by its first character; otherwise the number of columns decides.

    Raises:
        RejectedInputError: no layout matches; the message lists the layouts.
    """
    known = "; ".join(f"{one.name}: {','.join(one.columns)}" for one in layouts)
    if first.lstrip('" ')[:1].isdigit():
        fields = [field.strip(' "') for field in first.split(",")]
        width = len(fields)
        fitting = [layout for layout in layouts if len(layout.columns) == width]
        # Trades of one market have as many columns as aggTrades of the other: only the flags
        # differ.
        if fitting:
            return max(fitting, key=lambda one: _fits_flags(fields, one)), False
        raise RejectedInputError(
            f"{file} has {counted(width, 'column')}; known are {known}. Candles of others "
            "need --columns"
        )
    header = first.lower().replace("_", "").replace(" ", "").replace('"', "")
    for layout in layouts:
        if header in layout.headers:
            return layout, True
    # Never the line itself: the reason may be read by others than the file.
    raise RejectedInputError(
        f"{file}: the first line, with {counted(len(first.split(',')), 'field')}, is neither a "
        f"row nor a known header; known are {known}. Candles of others need --columns"
    )


def _fits_flags(fields: Sequence[str], layout: Layout) -> bool:
    """Whether a first row has flags in the columns where a layout has them."""
    return all(
        (value.lower() in ("true", "false")) == (name in FLAGS)
        for value, name in zip(fields, layout.columns, strict=True)
    )


def split(lines: pl.DataFrame, layout: Layout) -> tuple[pl.DataFrame, list[Rejection]]:
    """Split lines into text columns; reject lines with another number of columns.

    Returns:
        Columns ``line``, ``raw`` and the layout's.
    """
    width = len(layout.columns)
    reason = pl.format("{} columns, expected {} (half a line?)", found(), pl.lit(width))
    good, bad = reject(lines, [(found().ne(width), reason)])
    fields = pl.col("raw").str.split_exact(",", width - 1).struct.rename_fields(layout.columns)
    table = good.with_columns(fields.alias("fields")).unnest("fields")
    if not good["raw"].str.contains_any([" ", '"']).any():
        return table, bad
    return table.with_columns(pl.col(name).str.strip_chars(' "') for name in layout.columns), bad


def found() -> pl.Expr:
    """Return the expression for the number of columns of a raw line."""
    return pl.col("raw").str.count_matches(",", literal=True) + 1


def reject(
    table: pl.DataFrame, checks: Sequence[tuple[pl.Expr, str | pl.Expr]]
) -> tuple[pl.DataFrame, list[Rejection]]:
    """Split rows into those that pass all checks, and rejections with the first reason.

    Args:
        checks: pairs of a condition that is true for bad rows, and the reason.
    """
    # Formatting reasons for all rows is slow, and a good file needs none.
    if not table.select(pl.any_horizontal(condition for condition, _ in checks).any()).item():
        return table, []
    reasons = [
        pl.when(condition).then(pl.lit(reason) if isinstance(reason, str) else reason)
        for condition, reason in checks
    ]
    return part(table.with_columns(reason=pl.coalesce(*reasons)))


def part(table: pl.DataFrame) -> tuple[pl.DataFrame, list[Rejection]]:
    """Split a table by its column ``reason``, which is dropped; null means good."""
    bad = table.filter(pl.col("reason").is_not_null())
    rejections = [
        Rejection(line, reason, raw)
        for line, reason, raw in bad.select(
            "line", "reason", pl.col("raw").str.slice(0, MAX_RAW_CHARACTERS)
        ).iter_rows()
    ]
    return table.filter(pl.col("reason").is_null()).drop("reason"), rejections


def number_checks(columns: Sequence[str]) -> list[tuple[pl.Expr, str | pl.Expr]]:
    """Return the expression that checks columns for non-negative plain numbers."""
    checks: list[tuple[pl.Expr, str | pl.Expr]] = []
    for name in columns:
        text = pl.col(name)
        checks.append((text.str.contains(r"^-[0-9.]+$"), f"{name} is negative"))
        checks.append((~text.str.contains(NUMBER), pl.format(f"{name} is no number: '{{}}'", text)))
    return checks


MAX_AHEAD_US = DAY_US
"""How far a time may lie in the future: clocks differ, and simulated time may run ahead."""


def time_checks(columns: Sequence[str], *, digits: int) -> list[tuple[pl.Expr, str | pl.Expr]]:
    """Return the checks that columns contain times in the file's unit.

    Args:
        digits: 13 for milliseconds, 16 for microseconds.
    """
    checks: list[tuple[pl.Expr, str | pl.Expr]] = []
    for name in columns:
        text = pl.col(name)
        no_time = pl.format(f"{name} is no time in ms (13 digits) or µs (16 digits): '{{}}'", text)
        checks.append((~text.str.contains(TIME), no_time))
        other_unit = f"{name} is not in the unit of the file's first row"
        checks.append((text.str.len_bytes() != digits, other_unit))
        latest = (time.time_ns() // 1_000 + MAX_AHEAD_US) // (1_000 if digits == 13 else 1)
        is_ahead = (text.cast(pl.Int64, strict=False) > latest).fill_null(value=False)
        checks.append((is_ahead, pl.format(f"{name} lies in the future: {{}}", text)))
    return checks


def sniff_digits(table: pl.DataFrame, column: str) -> int:
    """Return the digits of the first time in a column: 13 (ms), 16 (µs), or 0 if there is none."""
    times = table.filter(pl.col(column).str.contains(TIME))
    return len(times[column][0]) if times.height else 0


def unit_of(digits: int) -> str | None:
    """Return ``ms`` or ``us`` for the digits of a time; None for 0."""
    return {13: "ms", 16: "us"}.get(digits)


def to_micros(column: str, *, digits: int) -> pl.Expr:
    """Return the expression that converts a column of times to Int64 microseconds."""
    value = pl.col(column).cast(pl.Int64)
    return value * 1000 if digits == 13 else value
