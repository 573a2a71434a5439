"""Count consecutive minutes in which a stream failed, and act on them ever more rarely.

A halt, a delisting and a dead subscription look the same on the stream. In each case REST repairs
the minutes and the symbol is subscribed again. But a symbol that is gone for good must not cost
requests and log lines for ever.
"""

from __future__ import annotations

from include.domain.timeframes import MINUTE_US

SILENT_AFTER_MINUTES = 2
"""Empty minutes after which a symbol counts as silent; it is subscribed again at the second one."""
LONGEST_PAUSE_MINUTES = 16


def is_due(failures: int) -> bool:
    """Whether to act on the n-th consecutive failure: the 1st, 2nd, 4th, 8th, then every 16th."""
    if failures > LONGEST_PAUSE_MINUTES:
        return failures % LONGEST_PAUSE_MINUTES == 0
    return failures & (failures - 1) == 0


class FailingMinutes:
    """Consecutive minutes in which a stream failed."""

    __slots__ = ("minutes",)

    def __init__(self) -> None:
        self.minutes = 0

    def count(self) -> bool:
        """Count another minute; return whether to act."""
        self.minutes += 1
        return is_due(self.minutes)


class Silence:
    """Consecutive minutes without any frame of a symbol.

    Attributes:
        minutes: number so far; 0 while the symbol delivers.
        since_us: open time of the first.
        unrequested_since_us: open time of the first minute that was not requested from REST.
    """

    __slots__ = ("_until_us", "minutes", "since_us", "unrequested_since_us")

    def __init__(self) -> None:
        self.minutes = 0
        self.since_us = 0
        self._until_us = 0
        self.unrequested_since_us = 0

    def count(self, open_time_us: int) -> tuple[int, int] | None:
        """Count another minute; return the range to request now, if any."""
        if not self.minutes:
            self.since_us = self.unrequested_since_us = open_time_us
        self.minutes += 1
        self._until_us = open_time_us + MINUTE_US
        if not is_due(self.minutes):
            return None
        start_us, self.unrequested_since_us = self.unrequested_since_us, self._until_us
        return start_us, self._until_us

    def end(self) -> tuple[int, int] | None:
        """End the silence; return the range that was not requested yet, if any."""
        self.minutes = 0
        if self.unrequested_since_us == self._until_us:
            return None
        return self.unrequested_since_us, self._until_us
