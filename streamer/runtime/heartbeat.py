"""Whether a part of the process still moves: it says itself by when it will be heard again."""

from __future__ import annotations

import time
from collections.abc import Callable

SLACK_S = 30.0
"""A busy event loop or machine may hold up the next beat for so long before it counts as stuck."""


class Heartbeat:
    """The heartbeat of one endless work.

    Each beat names the time within which the next one is due, so that a wait that is meant (a
    back-off of half a minute, a write of at most one) is no alarm, and one that is not meant is.

    Args:
        clock_s: a monotonic clock.
    """

    __slots__ = ("_clock_s", "_due_s")

    def __init__(self, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._clock_s = clock_s
        self._due_s: float | None = None

    def beat(self, within_s: float = 0.0) -> None:
        """It moves, and will be back within so many seconds."""
        self._due_s = self._clock_s() + within_s

    @property
    def overdue_s(self) -> float:
        """Seconds by which the next beat is late; negative or 0 while it is not.

        Before the first beat nothing is due: the work has not begun.
        """
        return 0.0 if self._due_s is None else self._clock_s() - self._due_s

    @property
    def is_stuck(self) -> bool:
        """Whether the work has come to a stop."""
        return self.overdue_s > SLACK_S
