"""Ranges of minutes behave as the sets of minutes that they stand for."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from include.domain.ranges import (
    Ranges,
    common,
    gaps_in,
    minutes_in,
    ranges_of,
    united,
    without,
)
from include.domain.timeframes import MINUTE_US

minutes = st.sets(st.integers(0, 60))


def ranges(chosen: set[int]) -> Ranges:
    return ranges_of(one * MINUTE_US for one in sorted(chosen))


def chosen(ranges: Ranges) -> set[int]:
    """The minutes of ranges, each once, or this fails."""
    listed = [us // MINUTE_US for start, end in ranges for us in range(start, end, MINUTE_US)]
    assert listed == sorted(set(listed))
    assert all(start < end for start, end in ranges)
    return set(listed)


@given(minutes, minutes)
def test_range_operations_equal_set_operations(one: set[int], other: set[int]) -> None:
    left, right = ranges(one), ranges(other)
    assert chosen(left) == one
    assert minutes_in(left) == len(one)
    assert chosen(common(left, right)) == one & other
    assert chosen(without(left, right)) == one - other
    assert chosen(united([*right, *left])) == one | other


@given(minutes, st.integers(0, 60), st.integers(0, 60))
def test_gaps_are_the_rest_of_a_span(taken: set[int], start: int, end: int) -> None:
    gaps = gaps_in(ranges(taken), start * MINUTE_US, end * MINUTE_US)
    assert chosen(gaps) == set(range(start, end)) - taken


def test_ranges_that_touch_or_overlap_become_one() -> None:
    assert united([(60, 120), (0, 60), (100, 180), (240, 240)]) == [(0, 180)]
