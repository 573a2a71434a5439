"""Files of metrics: open interest and the ratios of traders, every five minutes of a day."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from include.binance.files.columns import Layout, reject
from include.binance.files.series.reading import (
    TIME,
    SeriesFile,
    in_order,
    negative_checks,
    number_checks,
    once_each,
    points_in,
    read_table,
    window_check,
)
from include.domain.series.kinds import STATISTICS_STEP_US, TABLES, Series

_OPEN_INTEREST = TABLES[Series.OPEN_INTEREST].values
_RATIOS = TABLES[Series.RATIOS].values

_HEADER = (
    "createtime,symbol,sumopeninterest,sumopeninterestvalue,counttoptraderlongshortratio,"
    "sumtoptraderlongshortratio,countlongshortratio,sumtakerlongshortvolratio"
)
METRICS = Layout(
    name="metrics",
    columns=("create_time", "symbol", *_OPEN_INTEREST, *_RATIOS),
    headers=(_HEADER,),
)

_TIME_TEXT = r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d$"


def read_metrics(
    path: Path, exchange_symbol: str, *, window: tuple[int, int] | None = None
) -> SeriesFile:
    """Read a file of metrics; a point of open interest needs its cell, ratios may be unknown.

    Args:
        exchange_symbol: that each row must have.
        window: half-open range (µs) of the day. The first time of the next day is accepted too.

    Raises:
        RejectedInputError: damaged, or with other columns.
    """
    table, rejections = read_table(path, METRICS)
    numbers = [*_OPEN_INTEREST, *_RATIOS]
    moment = pl.col("create_time").str.to_datetime("%Y-%m-%d %H:%M:%S", strict=False)
    table = table.with_columns(moment.dt.epoch("us").alias(TIME))
    period = None if window is None else (window[0], window[1] + STATISTICS_STEP_US)
    table, bad = reject(
        table,
        [
            (
                ~pl.col("create_time").str.contains(_TIME_TEXT) | pl.col(TIME).is_null(),
                pl.format("create_time is no time: '{}'", pl.col("create_time")),
            ),
            (pl.col("symbol") != exchange_symbol, f"the row is not of {exchange_symbol}"),
            *negative_checks(numbers),
            *number_checks(numbers, may_be_empty=True),
            (pl.col(TIME) % STATISTICS_STEP_US != 0, "create_time is not a multiple of 5 minutes"),
            *window_check(period),
        ],
    )
    rejections += bad
    exact = [pl.col(name).replace("", None).cast(pl.Decimal(38, 16)) for name in numbers]
    names = [f"exact_{name}" for name in numbers]
    table = table.with_columns(one.alias(name) for one, name in zip(exact, names, strict=True))
    table, bad, repeated = once_each(table, names)
    table = table.drop(names)
    return SeriesFile(
        {
            Series.OPEN_INTEREST: points_in(
                table.filter(pl.col("open_interest") != ""), Series.OPEN_INTEREST, _OPEN_INTEREST
            ),
            Series.RATIOS: points_in(table, Series.RATIOS, _RATIOS),
        },
        in_order(rejections + bad),
        repeated,
    )
