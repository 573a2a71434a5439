"""Detect a stuck task: each beat states when the next one is due."""

from __future__ import annotations

import time
from collections.abc import Callable

SLACK_S = 30.0
"""How late a beat may be, on a busy event loop or machine, before the task counts as stuck."""


class Heartbeat:
    """The heartbeat of one endless task.

    Each beat announces the next one, so that an intended wait (a back-off of half a minute, a write
    of at most one) raises no alarm, but any longer wait does.

    Args:
        clock_s: a monotonic clock.
    """

    __slots__ = ("_clock_s", "_due_s")

    def __init__(self, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._clock_s = clock_s
        self._due_s: float | None = None

    def beat(self, within_s: float = 0.0) -> None:
        """Beat, and announce the next beat within this many seconds."""
        self._due_s = self._clock_s() + within_s

    @property
    def overdue_s(self) -> float:
        """Return the seconds by which the next beat is late; 0 or less if it is not, or before the
        first."""
        return 0.0 if self._due_s is None else self._clock_s() - self._due_s

    @property
    def is_stuck(self) -> bool:
        """Whether the task is stuck."""
        return self.overdue_s > SLACK_S
