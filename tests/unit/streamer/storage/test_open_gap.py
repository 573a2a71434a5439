"""Ranges of minutes of an open gap are sets."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from include.domain.ranges import united, without
from streamer.storage.gap_ledger import GROWS_FOR_S, OpenGap

BOUNDS = st.tuples(st.integers(0, 12), st.integers(1, 4)).map(lambda b: (b[0], b[0] + b[1]))


@given(st.lists(st.tuples(st.booleans(), BOUNDS), max_size=12))
def test_ranges_are_sets_of_minutes(steps: list[tuple[bool, tuple[int, int]]]) -> None:
    ranges: list[tuple[int, int]] = []
    minutes: set[int] = set()
    for adds, (start, end) in steps:
        if adds:
            ranges, minutes = united([*ranges, (start, end)]), minutes | set(range(start, end))
        else:
            ranges, minutes = without(ranges, [(start, end)]), minutes - set(range(start, end))
        assert [one for bounds in ranges for one in range(*bounds)] == sorted(minutes)


def test_gap_grows_until_it_is_old_and_partly_proven() -> None:
    gap = OpenGap("A", 10, 20, "cut", 0.0, [(10, 20)])
    assert gap.takes(20, 30, 0.0)
    assert gap.takes(5, 10, GROWS_FOR_S + 1)
    assert not gap.takes(21, 30, 0.0)
    gap.prove(10, 15, "kline", 1.0)
    assert gap.takes(20, 30, GROWS_FOR_S - 1)
    assert not gap.takes(20, 30, GROWS_FOR_S + 1)
    assert gap.takes(12, 14, GROWS_FOR_S + 1)


def test_proven_gap_opens_again_when_more_is_missed() -> None:
    gap = OpenGap("A", 10, 20, "cut", 0.0, [(10, 20)])
    gap.prove(10, 15, "kline", 1.0)
    assert gap.proven_s is None
    gap.prove(14, 30, "rest", 2.0)
    assert (gap.proven_s, gap.proofs) == (2.0, {"kline", "rest"})
    assert gap.add(12, 13)
    assert (gap.proven_s, gap.unproven) == (None, [(12, 13)])
