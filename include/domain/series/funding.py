"""The funding schedule: when a settlement was due, and which settlements are missing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from include.domain.timeframes import HOUR_US, SECOND_US

MAX_DELAY_US = SECOND_US
"""A funding time farther from its hour is not a settlement. Recorded ones are 0 to 11 ms late."""

MAX_INTERVAL_HOURS = 8
"""The longest interval of the exchange."""

NEIGHBOURS = 3
"""Distances on each side from which an unknown interval is taken; the smallest counts, because a
missing settlement makes a distance longer, never shorter."""


@dataclass(frozen=True, slots=True)
class FundingTime:
    """A settlement: the hour it was due, and the interval in force, if the source has it."""

    settles_at_us: int
    interval_hours: int | None = None


@dataclass(frozen=True, slots=True)
class MissingSettlements:
    """Settlements missing between two stored ones.

    Attributes:
        from_us: when the first missing one was due.
        to_us: the next stored settlement.
        count: at least this many are missing.
    """

    from_us: int
    to_us: int
    count: int


def settles_at_us(funding_time_us: int) -> int | None:
    """Return the whole hour of a settlement; None if the time is not near one."""
    hour_us = (funding_time_us + HOUR_US // 2) // HOUR_US * HOUR_US
    return hour_us if abs(funding_time_us - hour_us) <= MAX_DELAY_US else None


def missing_settlements(times: Sequence[FundingTime]) -> list[MissingSettlements]:
    """Return the holes of a schedule, whose interval may change.

    A distance is a hole if it is longer than the intervals on both of its sides. A longer distance
    next to equal ones is a change of the interval. Of a side without stored settlements nothing is
    known, so the longest interval applies. ``ops.series_gaps`` is the same rule in SQL.

    Args:
        times: stored settlements, ascending.
    """
    steps = [
        (after.settles_at_us - before.settles_at_us) // HOUR_US for before, after in pairwise(times)
    ]
    found = []
    for number, hours in enumerate(steps):
        before, after = times[number], times[number + 1]
        longest = max(
            before.interval_hours or _smallest(steps[max(0, number - NEIGHBOURS) : number]),
            after.interval_hours or _smallest(steps[number + 1 : number + 1 + NEIGHBOURS]),
        )
        interval = min(longest, MAX_INTERVAL_HOURS)
        if hours > interval:
            found.append(
                MissingSettlements(
                    before.settles_at_us + interval * HOUR_US,
                    after.settles_at_us,
                    -(-hours // interval) - 1,
                )
            )
    return found


def _smallest(hours: Sequence[int]) -> int:
    return min(hours, default=MAX_INTERVAL_HOURS)
