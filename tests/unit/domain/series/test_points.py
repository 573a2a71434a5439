"""Points of derivative series."""

from __future__ import annotations

from include.domain.candles import Status
from include.domain.series.kinds import TABLES, Series
from include.domain.series.points import SeriesPoint, point_of
from include.domain.timeframes import from_us


def test_a_point_with_an_unknown_value_is_partial() -> None:
    table = TABLES[Series.OPEN_INTEREST]
    assert point_of(table, 0, ("1", None)).status is Status.PARTIAL
    assert point_of(table, 0, ("1", "2")).status is Status.VERIFIED


def test_an_unknown_filled_column_leaves_a_point_whole() -> None:
    assert point_of(TABLES[Series.FUNDING], 0, ("0.1", None, None, None)).status is Status.VERIFIED


def test_a_row_has_the_columns_of_its_table() -> None:
    row = SeriesPoint(60_000_000, ("1", "2", "0", "1")).row("BTCUSDT.P", "rest", 5)
    assert row == (
        "BTCUSDT.P", from_us(60_000_000), "1", "2", "0", "1", "verified", "rest", from_us(5),
    )  # fmt: skip
    assert len(row) == len(TABLES[Series.MARK].columns)
