"""Counts of merges, and the frames that writers hand over."""

from __future__ import annotations

from include.domain.candles import VALUE_NAMES
from include.store.candles.merging import CANDIDATE_COLUMNS, DECIMAL_COLUMNS, MergeCounts


def test_counts_add_up_field_by_field() -> None:
    assert MergeCounts(1, 2, 3, 4, 5, 6) + MergeCounts(10, 20, 30, 40, 50, 60) == MergeCounts(
        11, 22, 33, 44, 55, 66
    )


def test_candidate_has_nine_values_and_eight_are_decimals() -> None:
    assert set(VALUE_NAMES) < set(CANDIDATE_COLUMNS)
    assert len(CANDIDATE_COLUMNS) == len(set(CANDIDATE_COLUMNS)) == 17
    assert set(VALUE_NAMES) - set(DECIMAL_COLUMNS) == {"trade_count"}
