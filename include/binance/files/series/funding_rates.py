"""Files of funding rates: one line for each settlement of a month."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from include.binance.files.columns import (
    Layout,
    reject,
    sniff_digits,
    time_checks,
    to_micros,
    unit_of,
)
from include.binance.files.series.reading import (
    TIME,
    SeriesFile,
    in_order,
    number_checks,
    once_each,
    read_table,
    window_check,
)
from include.domain.series.funding import MAX_DELAY_US
from include.domain.series.kinds import Series
from include.domain.series.points import SeriesPoint
from include.domain.timeframes import HOUR_US, from_us

FUNDING_RATES = Layout(
    name="funding rates",
    columns=("funding_time", "interval_hours", "funding_rate"),
    headers=("calctime,fundingintervalhours,lastfundingrate",),
)

MAX_INTERVAL_HOURS = 24


def read_funding_rates(path: Path, *, window: tuple[int, int] | None = None) -> SeriesFile:
    """Read a file of settlements; each belongs to the hour at which it was due.

    Args:
        window: half-open range (µs) of hours that the file covers.

    Raises:
        RejectedInputError: damaged, or with other columns.
    """
    table, rejections = read_table(path, FUNDING_RATES)
    digits = sniff_digits(table, "funding_time")
    hours = pl.col("interval_hours")
    table, bad = reject(
        table,
        [
            *time_checks(["funding_time"], digits=digits),
            *number_checks(["funding_rate"]),
            (
                ~hours.str.contains(r"^[0-9]{1,2}$")
                | ~hours.cast(pl.Int16, strict=False).is_between(1, MAX_INTERVAL_HOURS),
                pl.format("interval_hours is not within a day: '{}'", hours),
            ),
            (
                pl.col("funding_rate").cast(pl.Decimal(38, 18), strict=False).abs() >= 1,
                "funding_rate is not below 100 %",
            ),
        ],
    )
    rejections += bad
    moment = to_micros("funding_time", digits=digits)
    table = table.with_columns(
        moment.alias("funding_us"),
        ((moment + HOUR_US // 2) // HOUR_US * HOUR_US).alias(TIME),
        pl.col("funding_rate").cast(pl.Decimal(38, 18)).alias("exact"),
    )
    table, bad = reject(
        table,
        [
            (
                (pl.col("funding_us") - pl.col(TIME)).abs() > MAX_DELAY_US,
                "funding_time is not near a whole hour",
            ),
            *window_check(window),
        ],
    )
    rejections += bad
    table, bad, repeated = once_each(table, ["exact", "interval_hours"])
    points = [
        SeriesPoint(settles_us, (rate, from_us(funding_us), None, int(interval)))
        for settles_us, rate, funding_us, interval in table.select(
            TIME, "funding_rate", "funding_us", "interval_hours"
        ).iter_rows()
    ]
    return SeriesFile(
        {Series.FUNDING: points}, in_order(rejections + bad), repeated, unit_of(digits)
    )
