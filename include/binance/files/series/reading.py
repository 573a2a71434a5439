"""Strictly read a file of a derivative series.

The largest, a month of price klines, has 45,000 rows, so a file is read at once. Bad rows are
returned with line and reason; the others stay usable. Files may be unsorted and may have rows
twice: equal rows count once, contradictory ones are rejected.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from include.binance.files.columns import Layout, Rejection, reject, split
from include.binance.files.text_blocks import text_blocks
from include.domain.series.kinds import TABLES, Series
from include.domain.series.points import SeriesPoint, point_of

NUMBER = r"^-?[0-9]{1,18}(\.[0-9]{1,18})?$"
"""Plain decimal notation; funding rates and the premium index may be negative."""

TIME = "time_us"
"""Column that the checks of each kind add: the row's time in µs, Int64."""

Checks = list[tuple[pl.Expr, str | pl.Expr]]


@dataclass(frozen=True, slots=True)
class SeriesFile:
    """Content of a file.

    Attributes:
        points: by series, ascending; of a kind with one series, its key is always there.
        rejections: bad rows, by line.
        repeated: equal rows that were there again.
        time_unit: ``ms`` or ``us``; None if the file has times as text, or no row.
    """

    points: dict[Series, list[SeriesPoint]]
    rejections: list[Rejection] = field(default_factory=list)
    repeated: int = 0
    time_unit: str | None = None

    @property
    def rows(self) -> int:
        """Usable rows: of the series with most points."""
        return max((len(points) for points in self.points.values()), default=0)


def read_table(path: Path, layout: Layout) -> tuple[pl.DataFrame, list[Rejection]]:
    """Return the lines of a file as text columns with ``line`` and ``raw``, and malformed lines.

    Raises:
        RejectedInputError: damaged, or with other columns.
    """
    lines = [block.lines() for block in text_blocks(path, (layout,))]
    if not lines:
        lines = [pl.DataFrame(schema={"line": pl.Int64, "raw": pl.String})]
    return split(pl.concat(lines), layout)


def number_checks(columns: Iterable[str], *, may_be_empty: bool = False) -> Checks:
    """Return the checks that columns contain plain numbers."""
    checks: Checks = []
    for name in columns:
        text = pl.col(name)
        if not may_be_empty:
            checks.append((text == "", f"{name} is empty"))
        is_wrong = ~text.str.contains(NUMBER) & (text != "")
        checks.append((is_wrong, pl.format(f"{name} is no number: '{{}}'", text)))
    return checks


def negative_checks(columns: Iterable[str]) -> Checks:
    """Return the checks that numbers are not negative."""
    return [(pl.col(name).str.starts_with("-"), f"{name} is negative") for name in columns]


def window_check(window: tuple[int, int] | None) -> Checks:
    """Return the check that a row's time is within the period of the file (half-open, µs)."""
    if window is None:
        return []
    moment = pl.col(TIME)
    outside = (moment < window[0]) | (moment >= window[1])
    return [(outside, "the time is outside the period of the file")]


def once_each(
    table: pl.DataFrame, values: Iterable[str]
) -> tuple[pl.DataFrame, list[Rejection], int]:
    """Keep one of equal rows of a time; reject all contradictory ones.

    Returns:
        The rows by time, the rejections, and the number of equal rows left out.
    """
    contents = pl.struct(*values)
    table, bad = reject(
        table,
        [(contents.n_unique().over(TIME) > 1, "rows of one time contradict each other")],
    )
    kept = table.unique(TIME, keep="first").sort(TIME)
    return kept, bad, table.height - kept.height


def points_in(
    table: pl.DataFrame,
    series: Series,
    columns: tuple[str, ...],
    *,
    convert: Callable[[Any], Any] = lambda value: value or None,
) -> list[SeriesPoint]:
    """Return rows as points.

    Args:
        columns: of the file, in the order of the table's; empty text is unknown.
        convert: of each value.
    """
    declared = TABLES[series]
    return [
        point_of(declared, time_us, tuple(convert(value) for value in values))
        for time_us, *values in table.select(TIME, *columns).iter_rows()
    ]


def in_order(rejections: Iterable[Rejection]) -> list[Rejection]:
    """Return rejections by line."""
    return sorted(rejections, key=lambda one: one.line)
