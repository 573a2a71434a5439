"""Files of mark, index and premium index klines: columns of klines, volumes without meaning."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from include.binance.files.columns import reject, sniff_digits, time_checks, to_micros, unit_of
from include.binance.files.kline_files import KLINES
from include.binance.files.series.reading import (
    TIME,
    SeriesFile,
    in_order,
    number_checks,
    once_each,
    points_in,
    read_table,
    window_check,
)
from include.domain.series.kinds import PRICES, Series
from include.domain.timeframes import MINUTE_US

_EXACT = pl.Decimal(38, 18)


def read_price_klines(
    path: Path, series: Series, *, window: tuple[int, int] | None = None
) -> SeriesFile:
    """Read a file of 1m klines of a price.

    Args:
        window: half-open range (µs) of open times that the file covers.

    Raises:
        RejectedInputError: damaged, or with other columns.
    """
    table, rejections = read_table(path, KLINES)
    digits = sniff_digits(table, "open_time")
    table, bad = reject(
        table, [*time_checks(["open_time", "close_time"], digits=digits), *number_checks(PRICES)]
    )
    rejections += bad
    table = table.with_columns(
        to_micros("open_time", digits=digits).alias(TIME),
        to_micros("close_time", digits=digits),
        *(pl.col(name).cast(_EXACT).alias(f"exact_{name}") for name in PRICES),
    )
    opens, exact = pl.col(TIME), {name: pl.col(f"exact_{name}") for name in PRICES}
    checks: list[tuple[pl.Expr, str | pl.Expr]] = [
        (opens % MINUTE_US != 0, "open_time is not a full minute"),
        (
            ~pl.col("close_time").is_between(opens, opens + MINUTE_US, closed="left"),
            "close_time is not within the minute: not a 1m kline",
        ),
        (exact["high"] < pl.max_horizontal(*exact.values()), "high is below another price"),
        (exact["low"] > pl.min_horizontal(*exact.values()), "low is above another price"),
        *window_check(window),
    ]
    if series is not Series.PREMIUM:
        checks.append((exact["low"] <= 0, "a price is not positive"))
    table, bad = reject(table, checks)
    rejections += bad
    table, bad, repeated = once_each(table, [f"exact_{name}" for name in PRICES])
    points = points_in(table, series, PRICES)
    return SeriesFile({series: points}, in_order(rejections + bad), repeated, unit_of(digits))
