"""The exchange's time, from the newest frame on, also while no frame comes.

Frames tell it, and the machine's own time decides nothing. But a market of which all symbols are
halted sends none, and its minutes have to be asked about all the same.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from include.domain.timeframes import MINUTE_US, SECOND_US

CARRIED_LAG_S = 10.0
"""A time that is carried on stays so far behind: frames that are merely late have it still.
Klines come each two seconds of a market that trades, and a connection without any frame is
replaced after fifteen."""

TICK_S = 0.02
"""How often it is looked whether minutes are over: small beside a grace of 250 ms."""
MIN_TICK_S = 0.004
"""The same where one is about to be."""


def next_look_s(now_us: int, graces_us: Iterable[int]) -> float:
    """How long to wait before looking for minutes that are over: until one is, but no tick longer.

    Args:
        now_us: the exchange's time.
        graces_us: how long after their end minutes are closed.
    """
    until_us = min(((grace_us - now_us) % MINUTE_US for grace_us in graces_us), default=MINUTE_US)
    return max(MIN_TICK_S, min(TICK_S, until_us / SECOND_US))


class ExchangeClock:
    """The time of one connection's frames, carried on by a monotonic clock.

    Args:
        begin_us: the exchange's time before the first frame; 0 where it is not known.
        lag_s: by how much the carried time stays behind.
        clock_s: a monotonic clock.
    """

    __slots__ = ("_clock_s", "_heard_s", "_heard_us", "_held_until_s", "_lag_s")

    def __init__(
        self,
        *,
        begin_us: int = 0,
        lag_s: float = CARRIED_LAG_S,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._lag_s = lag_s
        self._clock_s = clock_s
        self._heard_us = begin_us
        self._heard_s = self._held_until_s = clock_s()

    def hold(self) -> None:
        """A connection was made: what is on its way comes first."""
        self._held_until_s = self._clock_s() + self._lag_s

    def latest_us(self, heard_us: int) -> int:
        """The latest that it can be, whatever is on its way; 0 where no time is known yet."""
        self.now_us(heard_us)
        if not self._heard_us:
            return 0
        return self._heard_us + int((self._clock_s() - self._heard_s) * SECOND_US)

    def now_us(self, heard_us: int) -> int:
        """The time now; to be called often, since it is then that a new frame is noticed.

        Args:
            heard_us: the greatest event time so far.
        """
        now_s = self._clock_s()
        if heard_us > self._heard_us:
            self._heard_us, self._heard_s = heard_us, now_s
        if not self._heard_us or now_s < self._held_until_s:
            return self._heard_us
        return self._heard_us + int(max(0.0, now_s - self._heard_s - self._lag_s) * SECOND_US)
