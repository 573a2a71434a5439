"""Half-open ranges of minutes: count, join, subtract."""

from __future__ import annotations

from collections.abc import Iterable

from include.domain.timeframes import MINUTE_US

Ranges = list[tuple[int, int]]
"""Half-open ranges of open times in µs, ascending."""


def minutes_in(ranges: Iterable[tuple[int, int]]) -> int:
    """Return the number of minutes in half-open ranges."""
    return sum(end - start for start, end in ranges) // MINUTE_US


def ranges_of(open_times: Iterable[int]) -> Ranges:
    """Join open times of minutes (ascending, unique) to half-open ranges."""
    opens = list(open_times)
    if opens and opens[-1] - opens[0] == (len(opens) - 1) * MINUTE_US:
        return [(opens[0], opens[-1] + MINUTE_US)]  # the usual case: no minute is missing
    ranges: Ranges = []
    for moment in opens:
        if ranges and ranges[-1][1] == moment:
            ranges[-1] = (ranges[-1][0], moment + MINUTE_US)
        else:
            ranges.append((moment, moment + MINUTE_US))
    return ranges


def gaps_in(ranges: Iterable[tuple[int, int]], start_us: int, end_us: int) -> Ranges:
    """Return the parts of [start, end) that ascending ranges do not cover."""
    gaps: Ranges = []
    cursor = start_us
    for begin, end in ranges:
        if begin > cursor:
            gaps.append((cursor, min(begin, end_us)))
        cursor = max(cursor, end)
        if cursor >= end_us:
            break
    if cursor < end_us:
        gaps.append((cursor, end_us))
    return [gap for gap in gaps if gap[0] < gap[1]]


def united(ranges: Iterable[tuple[int, int]]) -> Ranges:
    """Return ranges in any order as ascending ranges that do not touch."""
    whole: Ranges = []
    for start, end in sorted(ranges):
        if whole and start <= whole[-1][1]:
            whole[-1] = (whole[-1][0], max(end, whole[-1][1]))
        elif start < end:
            whole.append((start, end))
    return whole


def common(ranges: Iterable[tuple[int, int]], others: Iterable[tuple[int, int]]) -> Ranges:
    """Return the intersection of two ascending lists of ranges."""
    shared: Ranges = []
    left, right = iter(ranges), iter(others)
    one, other = next(left, None), next(right, None)
    while one is not None and other is not None:
        start, end = max(one[0], other[0]), min(one[1], other[1])
        if start < end:
            shared.append((start, end))
        if one[1] <= other[1]:
            one = next(left, None)
        else:
            other = next(right, None)
    return shared


def without(ranges: Iterable[tuple[int, int]], removed: Ranges) -> Ranges:
    """Subtract ascending ranges from ascending ranges."""
    return [part for start, end in ranges for part in gaps_in(removed, start, end)]
