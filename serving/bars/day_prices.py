"""Prices of the last 24 hours, for the symbols that readers request.

A symbol's day takes tens of kilobytes, so it is built on the first request only: from the newest
minutes in memory and, in the background, from the table.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Set
from contextlib import suppress
from functools import partial

import structlog

from include.backoff import Backoff, RetryLoop
from include.domain.candles import Candle
from include.domain.day_prices import DayOfMinutes, DayPrices
from include.domain.live_bars import is_of_another
from include.domain.timeframes import DAY_US, MINUTE_US
from include.errors import PermanentError, TransientError
from include.store.candles.minutes import read_candles
from include.store.candles.unbuilt_bars import listed_from_us
from serving.read_pool import ReadPool

log = structlog.get_logger(__name__)

RECENT = 4
"""Minutes remembered of each symbol: those that the table may not have yet."""
POLL_INTERVAL_S = 2.0
"""Interval at which dropped symbols are removed and missing minutes are read again."""
WAIT_S = 2.0
"""Maximum wait of a response for minutes from before this process started."""
READS = 3
"""Reads of a table that lacks the minute before the live ones: it may never have existed."""
PAUSE_S = 0.01
"""Minimum pause between two symbols: reading the past is not urgent."""
PAUSE_RATIO = 4
"""Pause after each symbol, as a multiple of the time its read took, to leave the CPU to live data.
"""
SYMBOLS_A_TURN = 10
"""Days that are summed before the event loop may run other tasks."""
BACKOFF = Backoff(first_s=0.5, max_s=60.0, min_s=0.1)


class _Day:
    """The day of one requested symbol.

    Attributes:
        live_from_us: open time of the first minute that came live; None if none did.
        is_read: minutes from before this process started are included.
        due_s: monotonic time before which the table is not read again.
    """

    def __init__(self, symbol: str, recent: Iterable[Candle]) -> None:
        self.minutes = DayOfMinutes(symbol)
        self.live_from_us: int | None = None
        self.is_read = False
        self.due_s = 0.0
        self._reads = 0
        for candle in recent:
            self.put(candle)

    def put(self, candle: Candle) -> None:
        """Add a live minute."""
        is_within = self.minutes.put(candle)
        if is_within and (self.live_from_us is None or candle.open_time_us < self.live_from_us):
            self.live_from_us = candle.open_time_us

    def put_stored(self, candles: Iterable[Candle]) -> None:
        """Add rows of the table; live minutes are newer and stay."""
        for candle in candles:
            if not self.minutes.has(candle.open_time_us):
                self.minutes.put(candle)
        self._reads += 1
        self.due_s = time.monotonic() + POLL_INTERVAL_S
        follows = self.live_from_us is None or self.minutes.has(self.live_from_us - MINUTE_US)
        self.is_read = follows or self._reads >= READS


class DayPriceCache:
    """The prices of the last 24 hours of each symbol.

    Args:
        streamed: returns the streamed symbols.
        newest: returns the newest minute of a symbol, open or not; None if none is in memory.
        now_us: returns the exchange's time.
    """

    def __init__(
        self,
        history: ReadPool,
        *,
        streamed: Callable[[], Iterable[str]],
        newest: Callable[[str], Candle | None],
        now_us: Callable[[], int],
    ) -> None:
        self._history = history
        self._streamed = streamed
        self._newest = newest
        self._now_us = now_us
        self._days: dict[str, _Day] = {}
        self._recent: dict[str, dict[int, Candle]] = {}
        """The newest minutes of all symbols, by open time."""
        self._traded: dict[str, Candle] = {}
        """The newest minute with trades, by symbol; reveals a ticker that was reused."""
        self._is_reading = False
        """Whether the table could be read the last time."""
        self._requested = asyncio.Event()
        self._changed = asyncio.Event()
        """Set, and replaced by a new event, after each read of a day."""

    def candle_closed(self, candle: Candle) -> None:
        """Add a minute that was closed or revised."""
        symbol, open_time_us = candle.symbol, candle.open_time_us
        if candle.last_trade_id is not None:
            before = self._traded.get(symbol)
            if before is not None and is_of_another(before, candle):
                self._recent.pop(symbol, None)
                if symbol in self._days:
                    self._days[symbol] = _Day(symbol, ())
                    self._days[
                        symbol
                    ].is_read = True  # earlier minutes belong to another instrument
            if before is None or open_time_us >= before.open_time_us:
                self._traded[symbol] = candle
        recent = self._recent.setdefault(symbol, {})
        recent[open_time_us] = candle
        if len(recent) > RECENT:
            del recent[min(recent)]
        if (day := self._days.get(symbol)) is not None:
            day.put(candle)

    async def of(self, symbols: Iterable[str]) -> list[tuple[DayPrices, bool]]:
        """Return the last 24 hours of the streamed symbols among these.

        Returns:
            Prices, and whether they include minutes from before this process started. The first
            request of a symbol waits up to two seconds for those.
        """
        live = frozenset(self._streamed())
        days = {symbol: self._day_of(symbol) for symbol in symbols if symbol in live}
        with suppress(TimeoutError):
            async with asyncio.timeout(WAIT_S):
                while self._is_reading and not all(day.is_read for day in days.values()):
                    await self._changed.wait()
        found = []
        for index, symbol in enumerate(days, start=1):
            if index % SYMBOLS_A_TURN == 0:
                await asyncio.sleep(0)
            if (newest := self._newest(symbol)) is not None:
                self.candle_closed(newest)  # the open minute counts as far as it has come
            day = self._days.get(symbol)
            if day is not None and (prices := day.minutes.prices()) is not None:
                found.append((prices, day.is_read))
        return found

    async def run(self) -> None:
        """Read the past of requested symbols, until cancelled."""
        loop = RetryLoop(
            BACKOFF,
            retry_on=(TransientError, PermanentError, TimeoutError),
            on_failure=self._stop_waiters,
            on_retry=partial(log.warning, "prices_not_read"),
            timeout_text="timeout",
        )
        self._wake_waiters(is_reading=True)
        try:
            await loop.run(self._read_and_wait)
        finally:
            self._wake_waiters(is_reading=False)

    async def _read_and_wait(self) -> None:
        """Read the past of requested symbols once, then wait for further requests."""
        self._forget_all_but(frozenset(self._streamed()))
        self._requested.clear()
        await self._read_requested()
        self._wake_waiters(is_reading=True)
        with suppress(TimeoutError):
            async with asyncio.timeout(POLL_INTERVAL_S):
                await self._requested.wait()

    async def _stop_waiters(self) -> None:
        self._wake_waiters(is_reading=False)

    def _day_of(self, symbol: str) -> _Day:
        day = self._days.get(symbol)
        if day is None:
            day = self._days[symbol] = _Day(symbol, self._recent.get(symbol, {}).values())
            self._requested.set()
        return day

    async def _read_requested(self) -> None:
        while (now_us := self._now_us()) and (symbol := self._next_unread()) is not None:
            began_s = time.monotonic()
            await self._read_day(symbol, now_us)
            self._wake_waiters(is_reading=True)
            await asyncio.sleep(max(PAUSE_S, PAUSE_RATIO * (time.monotonic() - began_s)))

    def _next_unread(self) -> str | None:
        now_s = time.monotonic()
        for symbol, day in self._days.items():
            if not day.is_read and day.due_s <= now_s:
                return symbol
        return None

    async def _read_day(self, symbol: str, now_us: int) -> None:
        since_us = now_us - DAY_US - MINUTE_US
        candles = await self._history.call(
            lambda connection: read_candles(
                connection,
                symbol,
                max(since_us, listed_from_us(connection, symbol)),
                now_us + DAY_US,
            )
        )
        if (day := self._days.get(symbol)) is not None and not day.is_read:
            day.put_stored(candles)

    def _forget_all_but(self, streamed: Set[str]) -> None:
        for known in (self._days, self._recent, self._traded):
            for symbol in known.keys() - streamed:
                del known[symbol]

    def _wake_waiters(self, *, is_reading: bool) -> None:
        """Wake the requests that wait for a day."""
        self._is_reading = is_reading
        self._changed.set()
        self._changed = asyncio.Event()
