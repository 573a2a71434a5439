"""Streams that do not deliver: acted upon at once, then less and less often.

A halt, a delisting and a dead subscription look the same from here. Each is asked about by REST
and subscribed anew, but a symbol that is gone for good must not cost requests and log lines for
ever.
"""

from __future__ import annotations

from include.domain.timeframes import MINUTE_US

SILENT_AFTER_MINUTES = 2
"""A stream that stays empty for so long although it was subscribed anew is called silent."""
LONGEST_PAUSE_MINUTES = 16


def is_due(minutes: int) -> bool:
    """Whether to act in the n-th minute in a row: the 1st, 2nd, 4th, 8th, then each 16th."""
    if minutes > LONGEST_PAUSE_MINUTES:
        return minutes % LONGEST_PAUSE_MINUTES == 0
    return minutes & (minutes - 1) == 0


class Failures:
    """Minutes in a row in which a stream failed."""

    __slots__ = ("minutes",)

    def __init__(self) -> None:
        self.minutes = 0

    def note(self) -> bool:
        """Count one more; whether to act upon it."""
        self.minutes += 1
        return is_due(self.minutes)


class Silence:
    """Minutes in a row in which nothing came of a symbol.

    Attributes:
        minutes: how many so far; 0 while it speaks.
        since_us: open time of the first.
        unasked_since_us: open time of the first that was not asked about.
    """

    __slots__ = ("_until_us", "minutes", "since_us", "unasked_since_us")

    def __init__(self) -> None:
        self.minutes = 0
        self.since_us = 0
        self._until_us = 0
        self.unasked_since_us = 0

    def note(self, open_time_us: int) -> tuple[int, int] | None:
        """Count one more; the range of minutes to ask about now, if any."""
        if not self.minutes:
            self.since_us = self.unasked_since_us = open_time_us
        self.minutes += 1
        self._until_us = open_time_us + MINUTE_US
        if not is_due(self.minutes):
            return None
        start_us, self.unasked_since_us = self.unasked_since_us, self._until_us
        return start_us, self._until_us

    def end(self) -> tuple[int, int] | None:
        """It speaks again: the range that was not asked about yet, if any."""
        self.minutes = 0
        if self.unasked_since_us == self._until_us:
            return None
        return self.unasked_since_us, self._until_us
