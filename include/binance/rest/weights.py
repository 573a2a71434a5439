"""Weight of REST requests, and budgets of request weight.

The exchange counts weight by IP address and clock minute (UTC). A budget grants weight before each
request and receives the answer's header. Processes that share a database share its budget;
``LocalBudget`` is for one process alone.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Protocol

from include.domain.instruments import Market
from include.errors import RateLimitedError

WEIGHT_LIMITS: dict[Market, int] = {Market.SPOT: 6_000, Market.UM: 2_400, Market.CM: 2_400}
"""Weight limit per minute and IP address, from ``exchangeInfo.rateLimits``."""

MAX_KLINES: dict[Market, int] = {Market.SPOT: 1_000, Market.UM: 1_500, Market.CM: 1_500}
"""Maximum rows of one answer."""

BEST_KLINES: dict[Market, int] = {Market.SPOT: 1_000, Market.UM: 499, Market.CM: 499}
"""Rows of a page with the best ratio of rows to weight. Futures cost 2 below 500 rows, 5 up to
1,000."""

MAX_WAIT_S = 150.0
"""Maximum wait for weight: two full windows and a margin."""

WINDOW_S = 60.0


def klines_weight(market: Market, limit: int) -> int:
    """Return the weight of a klines request of ``limit`` rows."""
    if market is Market.SPOT:
        return 2
    # The documentation is ambiguous at the bounds; assuming the higher weight cannot overspend.
    if limit < 100:
        return 1
    if limit < 500:
        return 2
    return 5 if limit <= 1_000 else 10


def klines_rows(market: Market, bars: int) -> int:
    """Return the rows to request: the bars and the one after them, within a page.

    The bar after is omitted if it alone raises the page's weight: if the last bar needs it as
    proof, the next page can begin with that bar.
    """
    rows = min(BEST_KLINES[market], bars + 1)
    is_dearer = klines_weight(market, rows) > klines_weight(market, rows - 1)
    return rows - 1 if is_dearer else rows


TIME_WEIGHT = 1
EXCHANGE_INFO_WEIGHT: dict[Market, int] = {Market.SPOT: 20, Market.UM: 1, Market.CM: 1}
AGG_TRADES_WEIGHT: dict[Market, int] = {Market.SPOT: 4, Market.UM: 20, Market.CM: 20}
HISTORICAL_TRADES_WEIGHT = 25
DELIVERY_PRICE_WEIGHT = 0
TICKERS_24H_WEIGHT: dict[Market, int] = {Market.SPOT: 80, Market.UM: 40, Market.CM: 40}
"""Weight of one request for all symbols."""


FUNDING_REQUESTS = 500
"""Requests of ``fundingRate`` and ``fundingInfo`` in 5 minutes by address, besides weight."""
STATISTICS_REQUESTS = 1_000
"""Requests under ``/futures/data`` in five minutes and by address, besides weight."""
POOL_MINUTES = 5
POOLED_WEIGHT = 1
"""Weight of a request with such a limit: documented as 0; 1 cannot overspend."""


class WeightBudget(Protocol):
    """Grants request weight."""

    def take(self, weight: int) -> None:
        """Return once a request of this weight may be sent.

        Raises:
            RateLimitedError: the wait would exceed the budget's maximum.
        """

    def report(self, used: int | None, *, retry_after_s: float | None = None) -> None:
        """Apply the headers of the answer to this thread's last grant.

        Args:
            used: weight used at this address in the grant's minute, by all clients. An answer that
                arrives in the next minute does not describe the new minute.
            retry_after_s: pause that the exchange demands.
        """


class LocalBudget:
    """The budget of one process, in windows of the clock's minute; thread-safe.

    Args:
        limit: weight per minute for all clients at this address, as far as headers show.
        own_limit: weight per minute of this process; None: the same.
        max_wait_s: a longer wait raises instead.
        clock: seconds since the epoch.
    """

    def __init__(
        self,
        limit: int,
        *,
        own_limit: int | None = None,
        max_wait_s: float = MAX_WAIT_S,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._limit = limit
        self._own_limit = limit if own_limit is None else own_limit
        self._max_wait_s = max_wait_s
        self._clock = clock
        self._sleep = sleep
        self._window = 0.0
        self._used = 0
        self._own = 0
        self._blocked_until_s = 0.0
        self._lock = threading.Lock()
        self._granted = threading.local()

    @property
    def used(self) -> int:
        """Weight used in the window of the last request."""
        return self._used

    def take(self, weight: int) -> None:
        """Wait until this weight is available; see ``WeightBudget``."""
        waited_s = 0.0
        while (wait_s := self._try(weight)) > 0:
            waited_s += wait_s
            refuse_long_wait(waited_s, self._max_wait_s, wait_s)
            self._sleep(wait_s)

    def report(self, used: int | None, *, retry_after_s: float | None = None) -> None:
        """Raise the counted weight to the header's value if that is greater."""
        with self._lock:
            now_s = self._clock()
            self._roll(now_s)
            if used is not None and getattr(self._granted, "window", self._window) == self._window:
                self._used = max(self._used, used)
            if retry_after_s is not None:
                self._blocked_until_s = max(self._blocked_until_s, now_s + retry_after_s)

    def _try(self, weight: int) -> float:
        """Reserve the weight and return 0, or return how long to wait."""
        with self._lock:
            now_s = self._clock()
            self._roll(now_s)
            if self._blocked_until_s > now_s:
                return self._blocked_until_s - now_s
            is_spent = self._used and self._used + weight > self._limit
            if is_spent or (self._own and self._own + weight > self._own_limit):
                return self._window + WINDOW_S - now_s
            self._used += weight
            self._own += weight
            self._granted.window = self._window
            return 0.0

    def _roll(self, now_s: float) -> None:
        window = now_s - now_s % WINDOW_S
        if window > self._window:
            self._window, self._used, self._own = window, 0, 0


def refuse_long_wait(total_wait_s: float, max_wait_s: float, wait_s: float) -> None:
    """Raise if the total wait for weight exceeds the maximum.

    Raises:
        RateLimitedError: ``total_wait_s`` exceeds ``max_wait_s``.
    """
    if total_wait_s > max_wait_s:
        raise RateLimitedError(
            f"no request weight for {total_wait_s:.0f} s (waiting at most {max_wait_s:.0f} s): "
            "other processes at this address use it, or the exchange demanded a pause",
            retry_after_s=wait_s,
        )
