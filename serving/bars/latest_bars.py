"""The newest bars of requested symbols, from memory.

Each requested timeframe has a subscription that outlives the request for a while. No task reads
it: a request takes what has changed since the previous one.

Call it from the event loop's own thread.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import structlog

from include.domain.timeframes import Timeframe
from serving.bars.live_bars import LiveBars
from serving.bars.subscription import Bars, BarSubscription, BarUpdate

log = structlog.get_logger(__name__)

LINGER_S = 60.0
"""A symbol's bars stay subscribed this long after the last request."""
MAX_FOLLOWED = 1_000
"""Subscribed symbols of a timeframe; beyond this the least recently requested are dropped."""
WAIT_S = 2.0
"""Timeout of a symbol's first bar, whose past must be read."""
BATCH = 100_000
"""More than can wait in the mailbox: takes everything."""


@dataclass(slots=True)
class _FollowedTimeframe:
    """A requested timeframe."""

    subscription: BarSubscription
    requested_s: dict[str, float] = field(default_factory=dict)
    """Time of the last request by symbol, oldest first."""
    newest: dict[str, BarUpdate] = field(default_factory=dict)
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)

    def note(self, bars: Bars | None) -> None:
        """Remember the newest bar of each symbol."""
        for update in bars.updates if bars is not None else ():
            symbol = update.candle.symbol
            known = self.newest.get(symbol)
            if symbol in self.requested_s and (
                known is None or update.candle.open_time_us >= known.candle.open_time_us
            ):
                self.newest[symbol] = update


class LatestBars:
    """The newest bar of any symbol and timeframe.

    Args:
        clock: in seconds.
    """

    def __init__(
        self,
        live_bars: LiveBars,
        *,
        linger_s: float = LINGER_S,
        max_followed: int = MAX_FOLLOWED,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._live_bars = live_bars
        self._linger_s = linger_s
        self._max_followed = max_followed
        self._clock = clock
        self._followed: dict[str, _FollowedTimeframe] = {}

    async def of(
        self, names: frozenset[str], timeframe: Timeframe, *, wait_s: float = WAIT_S
    ) -> dict[str, BarUpdate]:
        """Return the newest bars by symbol; symbols that are not in memory are left out.

        Args:
            names: fewer than ``max_followed``.
            wait_s: timeout for symbols that were not requested recently.
        """
        followed = self._follow(names, timeframe)
        followed.note(followed.subscription.drain(BATCH))
        for name in names & followed.newest.keys():
            if not self._live_bars.knows(name):  # dropped symbols may be streamed again later
                del followed.newest[name]
        if not names <= followed.newest.keys():
            try:
                async with asyncio.timeout(wait_s):
                    await _until_known(followed, names)
            except TimeoutError:
                log.debug("bars_awaited", timeframe=timeframe.name)
        return {name: followed.newest[name] for name in names if name in followed.newest}

    def _follow(self, names: frozenset[str], timeframe: Timeframe) -> _FollowedTimeframe:
        followed = self._followed.get(timeframe.name)
        if followed is None:
            followed = _FollowedTimeframe(self._live_bars.subscribe([], [timeframe]))
            self._followed[timeframe.name] = followed
            self._schedule_expiry(timeframe.name)
        now_s = self._clock()
        for name in names:
            followed.requested_s.pop(name, None)
            followed.requested_s[name] = now_s
        too_many = max(0, len(followed.requested_s) - self._max_followed)
        self._drop(followed, list(followed.requested_s)[:too_many])
        self._live_bars.add_symbols(followed.subscription, names)
        return followed

    def _schedule_expiry(self, name: str) -> None:
        asyncio.get_running_loop().call_later(self._linger_s, self._expire, name)

    def _expire(self, name: str) -> None:
        """Unsubscribe symbols that were not requested recently."""
        followed = self._followed[name]
        since_s = self._clock() - self._linger_s
        self._drop(followed, [one for one, at_s in followed.requested_s.items() if at_s <= since_s])
        if followed.requested_s:
            self._schedule_expiry(name)
            return
        del self._followed[name]
        followed.subscription.unsubscribe()

    def _drop(self, followed: _FollowedTimeframe, symbols: Sequence[str]) -> None:
        for symbol in symbols:
            del followed.requested_s[symbol]
            followed.newest.pop(symbol, None)
        self._live_bars.remove_symbols(followed.subscription, symbols)


async def _until_known(followed: _FollowedTimeframe, names: frozenset[str]) -> None:
    """Receive bars until all symbols are known; one request at a time reads the subscription."""
    while not names <= followed.newest.keys():
        async with followed.turn:
            if not names <= followed.newest.keys():
                bars = await followed.subscription.receive(BATCH)
                if bars is None:
                    return
                followed.note(bars)
