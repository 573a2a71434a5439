"""Limit connection attempts, which the exchange counts by address.

More than 300 attempts in five minutes are refused and get the address banned, so all connections of
a process share one budget. Pure: times are passed in.
"""

from __future__ import annotations

from collections import deque

CONNECTS = 240
"""Attempts of this process in a window: a fifth is reserved for others on the same address."""
CONNECT_WINDOW_S = 300.0


class ConnectBudget:
    """Counts attempts to connect, by host, within a rolling window.

    An attempt counts when it is made, whatever its result: the exchange counts refused attempts
    too, and an attempt that timed out here may have reached it.

    Args:
        limit: attempts in any window.
        window_s: the exchange's window plus a margin for delayed attempts.
    """

    def __init__(self, *, limit: int = CONNECTS, window_s: float = CONNECT_WINDOW_S + 15.0) -> None:
        if limit < 1:
            raise ValueError(f"limit is {limit}; at least one attempt is needed to connect at all")
        self._limit = limit
        self._window_s = window_s
        self._made: dict[str, deque[float]] = {}

    def take(self, host: str, now_s: float) -> float:
        """Count an attempt and return 0, or return the seconds to wait before trying again.

        Args:
            host: host and port.
            now_s: monotonic clock.
        """
        made = self._made.setdefault(host, deque())
        self._forget(made, now_s)
        if len(made) >= self._limit:
            return max(made[0] + self._window_s - now_s, 0.001)
        made.append(now_s)
        return 0.0

    def left(self, host: str, now_s: float) -> int:
        """Return the attempts that may be made now."""
        made = self._made.get(host, deque())
        self._forget(made, now_s)
        return self._limit - len(made)

    def _forget(self, made: deque[float], now_s: float) -> None:
        while made and now_s - made[0] >= self._window_s:
            made.popleft()
