"""Declarations of the derivative series."""

from __future__ import annotations

from include.domain.series.kinds import TABLES, Series


def test_each_series_has_one_table_of_its_own() -> None:
    assert set(TABLES) == set(Series)
    assert len({one.table for one in TABLES.values()}) == len(Series)


def test_each_value_has_a_unit() -> None:
    assert all(len(one.values) == len(one.units) for one in TABLES.values())
