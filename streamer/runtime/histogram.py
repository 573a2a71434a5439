"""Histograms counted in plain integers, for Prometheus."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from itertools import accumulate


class Histogram:
    """Counts values in a few fixed ranges.

    ``observe`` is a search among a dozen bounds and two additions: cheap enough to sample a path
    that handles hundreds of thousands of frames a second.

    Args:
        bounds: upper bounds, ascending; a value equal to a bound belongs to it.
    """

    __slots__ = ("_counts", "bounds", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        if not bounds or list(bounds) != sorted(set(bounds)):
            raise ValueError(f"bounds of a histogram should ascend, got {list(bounds)}")
        self.bounds = tuple(bounds)
        self.total: float = 0
        """Sum of all values."""
        self._counts = [0] * (len(self.bounds) + 1)

    @property
    def count(self) -> int:
        """Number of values."""
        return sum(self._counts)

    def observe(self, value: float) -> None:
        """Count a value."""
        self._counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def cumulative(self) -> Iterator[int]:
        """Yield the number of values up to each bound, then of all."""
        return accumulate(self._counts)

    def add(self, other: Histogram) -> None:
        """Add the counts of another histogram with the same bounds."""
        if other.bounds != self.bounds:
            raise ValueError(f"bounds differ: {self.bounds} and {other.bounds}")
        pairs = zip(self._counts, other._counts, strict=True)
        self._counts = [mine + theirs for mine, theirs in pairs]
        self.total += other.total
