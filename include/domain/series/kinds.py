"""The derivative series: their tables, columns, steps and the order of their sources."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property

from include.domain.timeframes import HOUR_US, MINUTE_US


class Series(StrEnum):
    """A derivative series; the values are the keys of ``ops.series``."""

    FUNDING = "funding"
    MARK = "mark"
    INDEX = "index"
    PREMIUM = "premium"
    OPEN_INTEREST = "open_interest"
    RATIOS = "ratios"


STATISTICS_STEP_US = 5 * MINUTE_US

BY_REST = ("stream", "dump_monthly", "dump_daily", "rest")
"""Sources in ascending order where REST and files print the same digits."""

BY_FILE = ("stream", "rest", "dump_monthly", "dump_daily")
"""The same where a file has more digits than REST."""

PRICES = ("open", "high", "low", "close")


@dataclass(frozen=True)
class SeriesTable:
    """The table of a series; ``ops.series`` has the same declaration, and a test compares them.

    Attributes:
        table: in schema ``market``.
        time: column of the time, the key together with ``symbol``.
        step_us: distance of two rows; None if it varies.
        values: columns that sources may contradict each other in.
        units: largest difference of each value that is only a matter of printed digits.
        carried: columns that follow the winner but are not compared.
        filled: columns that only some sources have; the known value stays.
        sources: in ascending order of authority.
    """

    series: Series
    table: str
    time: str
    step_us: int | None
    values: tuple[str, ...]
    units: tuple[str, ...]
    carried: tuple[str, ...] = ()
    filled: tuple[str, ...] = ()
    sources: tuple[str, ...] = BY_REST

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """Columns of a candidate, in the order in which they are copied."""
        return (
            "symbol",
            self.time,
            *self.values,
            *self.carried,
            *self.filled,
            "status",
            "source",
            "evidence_at",
        )

    @property
    def is_statistic(self) -> bool:
        """Whether REST serves only the last thirty days, under ``/futures/data``."""
        return self.step_us == STATISTICS_STEP_US


def _prices(series: Series, table: str) -> SeriesTable:
    return SeriesTable(series, table, "open_time", MINUTE_US, PRICES, ("0",) * len(PRICES))


TABLES: dict[Series, SeriesTable] = {
    one.series: one
    for one in (
        SeriesTable(
            Series.FUNDING,
            "funding_rates",
            "settles_at",
            None,
            ("funding_rate",),
            ("0",),
            carried=("funding_time",),
            filled=("mark_price", "interval_hours"),
        ),
        _prices(Series.MARK, "mark_prices_1m"),
        _prices(Series.INDEX, "index_prices_1m"),
        _prices(Series.PREMIUM, "premium_index_1m"),
        SeriesTable(
            Series.OPEN_INTEREST,
            "open_interest_5m",
            "time",
            STATISTICS_STEP_US,
            ("open_interest", "open_interest_value"),
            ("0.00000001", "0.00000001"),
            sources=BY_FILE,
        ),
        SeriesTable(
            Series.RATIOS,
            "trader_ratios_5m",
            "time",
            STATISTICS_STEP_US,
            (
                "top_trader_account_ratio",
                "top_trader_position_ratio",
                "account_ratio",
                "taker_volume_ratio",
            ),
            ("0.0001",) * 4,
            sources=BY_FILE,
        ),
    )
}
"""The tables by series."""

FUNDING_STEP_US = HOUR_US
"""Settlements are due at whole hours."""
