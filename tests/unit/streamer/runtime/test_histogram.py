"""Distributions in plain integers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamer.runtime.histogram import Histogram

BOUNDS = (1, 10, 100)


@given(st.lists(st.integers(-5, 500)))
def test_each_bound_counts_values_up_to_it(values: list[int]) -> None:
    histogram = Histogram(BOUNDS)
    for value in values:
        histogram.observe(value)
    expected = [sum(value <= bound for value in values) for bound in BOUNDS]
    assert list(histogram.cumulative()) == [*expected, len(values)]
    assert (histogram.count, histogram.total) == (len(values), sum(values))


def test_histograms_with_equal_bounds_add_up() -> None:
    one, other = Histogram(BOUNDS), Histogram(BOUNDS)
    one.observe(5)
    other.observe(50)
    other.observe(500)
    one.add(other)
    assert list(one.cumulative()) == [0, 1, 2, 3]
    assert one.total == 555
    assert list(other.cumulative()) == [0, 0, 1, 2]


def test_histograms_with_different_bounds_do_not_add_up() -> None:
    with pytest.raises(ValueError, match=r"bounds differ: \(1, 10, 100\) and \(1, 2\)"):
        Histogram(BOUNDS).add(Histogram((1, 2)))


@pytest.mark.parametrize("bounds", [(), (2, 1), (1, 1)])
def test_bounds_ascend(bounds: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="should ascend"):
        Histogram(bounds)
