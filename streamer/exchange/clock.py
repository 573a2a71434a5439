"""Exchange time: the newest frame's event time, carried on while no frame arrives.

The wall clock is not used. But a market whose symbols are all halted sends no frames, and its
minutes must be closed nevertheless, so the time is carried on.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from include.domain.timeframes import MINUTE_US, SECOND_US

CARRIED_LAG_S = 10.0
"""Lag of carried-on time, for late frames. A trading market sends klines every two seconds, and a
connection without frames is replaced after fifteen."""

TICK_S = 0.02
"""Longest wait between checks for ended minutes: small compared with a grace of 250 ms."""
MIN_TICK_S = 0.004
"""Shortest wait, when a minute is about to end."""


def next_tick_s(now_us: int, graces_us: Iterable[int]) -> float:
    """Return the seconds until the next check for ended minutes: until one ends, at most a tick.

    Args:
        now_us: exchange time.
        graces_us: how long after their end minutes are closed, one for each market.
    """
    until_us = min(((grace_us - now_us) % MINUTE_US for grace_us in graces_us), default=MINUTE_US)
    return max(MIN_TICK_S, min(TICK_S, until_us / SECOND_US))


class ExchangeClock:
    """Exchange time of one connection, carried on by a monotonic clock.

    Args:
        begin_us: exchange time before the first frame; 0 if unknown.
        lag_s: lag of the carried-on time.
        clock_s: a monotonic clock.
    """

    __slots__ = ("_clock_s", "_frame_s", "_frame_us", "_held_until_s", "_lag_s")

    def __init__(
        self,
        *,
        begin_us: int = 0,
        lag_s: float = CARRIED_LAG_S,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._lag_s = lag_s
        self._clock_s = clock_s
        self._frame_us = begin_us
        self._frame_s = self._held_until_s = clock_s()

    def hold(self) -> None:
        """Stop carrying time on for ``lag_s`` after a connect: frames in flight come first."""
        self._held_until_s = self._clock_s() + self._lag_s

    def latest_us(self, event_us: int) -> int:
        """Return the latest possible exchange time; 0 before it is known."""
        self.now_us(event_us)
        if not self._frame_us:
            return 0
        return self._frame_us + int((self._clock_s() - self._frame_s) * SECOND_US)

    def now_us(self, event_us: int) -> int:
        """Return the exchange time now. Call it often: it measures when a new frame arrived.

        Args:
            event_us: the greatest event time so far.
        """
        now_s = self._clock_s()
        if event_us > self._frame_us:
            self._frame_us, self._frame_s = event_us, now_s
        if not self._frame_us or now_s < self._held_until_s:
            return self._frame_us
        return self._frame_us + int(max(0.0, now_s - self._frame_s - self._lag_s) * SECOND_US)
