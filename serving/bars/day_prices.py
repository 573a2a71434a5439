"""Prices of the last 24 hours, for the symbols that readers request.

A symbol's day takes tens of kilobytes, so it is built on the first request only: from the newest
minutes in memory and, in the background, from the table.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterable, Set
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

import structlog

from include.backoff import Backoff, RetryLoop
from include.domain.candles import Candle
from include.domain.day_prices import DayOfMinutes, DayPrices
from include.domain.live_bars import is_of_another
from include.domain.ranges import Ranges, common, minutes_in, ranges_of, united, without
from include.domain.timeframes import DAY_US, MINUTE_US, minute_of
from include.errors import PermanentError, TransientError
from include.store.candles.day_minutes import (
    StoredDay,
    changed_minutes,
    current_snapshot,
    read_ranges,
    read_stored_day,
)
from serving.read_pool import ReadPool
from streamer.hub.subscription import CandleUpdate

log = structlog.get_logger(__name__)

RECENT = 4
"""Minutes remembered of each symbol: those that the table may not have yet."""
POLL_INTERVAL_S = 2.0
"""Interval at which dropped symbols are removed and changed minutes are read again."""
WAIT_S = 2.0
"""Maximum wait of a response for minutes from before this process started."""
PAUSE_S = 0.01
"""Minimum pause between two symbols: reading the past is not urgent."""
PAUSE_RATIO = 4
"""Pause after each symbol, as a multiple of the time its read took, to leave the CPU to live data.
"""
SYMBOLS_A_TURN = 10
"""Days that are summed before the event loop may run other tasks."""
MAX_CHANGED = 60
"""Changed minutes of a symbol that are read one by one; of more, the whole day is read."""
CHANGES_A_TURN = 500
"""Changed ranges of one query, and of one turn of the event loop."""
BACKOFF = Backoff(first_s=0.5, max_s=60.0, min_s=0.1)


@dataclass(frozen=True, slots=True)
class DayAnswer:
    """The prices of one symbol's day.

    Attributes:
        missing_minutes: minutes of the 24 hours that are neither known nor excused by an outage or
            a later listing; None before the table was read.
    """

    prices: DayPrices
    missing_minutes: int | None

    @property
    def is_whole(self) -> bool:
        """Whether each minute is included, or needs no row."""
        return self.missing_minutes == 0


class _Day:
    """The day of one requested symbol.

    Attributes:
        start_us: minutes before belong to an earlier listing.
        is_read: minutes from before this process started are included.
        must_read: the table has changed in more than a few minutes, or was not read yet.
        changed: minutes to read again once they are old enough.
    """

    def __init__(self, symbol: str, recent: Iterable[CandleUpdate], start_us: int = 0) -> None:
        self.minutes = DayOfMinutes(symbol)
        self.start_us = start_us
        self.is_read = False
        self.must_read = True
        self.changed: Ranges = []
        self._excused: Ranges = [(0, start_us)]
        for update in recent:
            self.put(update)

    def put(self, update: CandleUpdate) -> None:
        """Add or replace a minute."""
        self.minutes.put(update.candle, has_quotes=update.has_quotes)

    def replace(self, stored: StoredDay, recent: Iterable[CandleUpdate]) -> None:
        """Take all minutes from the table; minutes in memory stay until they are read once more."""
        self.start_us = max(self.start_us, stored.listed_us)
        self._excused = united([(0, self.start_us), *stored.excused])
        self.minutes = DayOfMinutes(self.minutes.symbol)
        own = [update for update in recent if update.candle.open_time_us >= self.start_us]
        for candle in stored.candles:
            if candle.open_time_us >= self.start_us:
                self.minutes.put(candle)
        for update in own:
            self.put(update)
        self.is_read, self.must_read = True, False
        self.changed = ranges_of(sorted(update.candle.open_time_us for update in own))

    def note_changed(self, ranges: Ranges) -> None:
        """Remember minutes that have changed in the table."""
        self.changed = united([*self.changed, *ranges])
        self.must_read = self.must_read or minutes_in(self.changed) > MAX_CHANGED

    def take_changed(self) -> Ranges:
        """Return the changed minutes that are no longer in memory, and forget them."""
        settled_us = self.minutes.newest_us - RECENT * MINUTE_US
        since_us = max(self.start_us, self.minutes.newest_us - DAY_US + MINUTE_US)
        due = common(self.changed, [(since_us, max(since_us, settled_us))])
        self.changed = without(self.changed, [(0, max(since_us, settled_us))])
        return due

    def missing_minutes(self) -> int | None:
        """Return the number of minutes that are neither known nor excused."""
        if not self.is_read:
            return None
        return minutes_in(without(self.minutes.unknown(), self._excused))


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
        newest: Callable[[str], CandleUpdate | None],
        now_us: Callable[[], int],
    ) -> None:
        self._history = history
        self._streamed = streamed
        self._newest = newest
        self._now_us = now_us
        self._days: dict[str, _Day] = {}
        self._recent: dict[str, dict[int, CandleUpdate]] = {}
        """The newest minutes of all symbols, by open time."""
        self._traded: dict[str, Candle] = {}
        """The newest minute with trades, by symbol; reveals a ticker that was reused."""
        self._seen: str | None = None
        """Position in the change log up to which the days are current; None: read all again."""
        self._is_reading = False
        """Whether the table could be read the last time."""
        self._requested = asyncio.Event()
        self._changed = asyncio.Event()
        """Set, and replaced by a new event, after each read of a day."""

    def candle_closed(self, update: CandleUpdate) -> None:
        """Add a minute that was closed or revised."""
        candle = update.candle
        symbol, open_time_us = candle.symbol, candle.open_time_us
        if candle.last_trade_id is not None:
            before = self._traded.get(symbol)
            if before is not None and is_of_another(before, candle):
                self._recent.pop(symbol, None)
                if symbol in self._days:
                    self._days[symbol] = _Day(symbol, (), start_us=open_time_us)
            if before is None or open_time_us >= before.open_time_us:
                self._traded[symbol] = candle
        recent = self._recent.setdefault(symbol, {})
        recent[open_time_us] = update
        if len(recent) > RECENT:
            del recent[min(recent)]
        if (day := self._days.get(symbol)) is not None:
            day.put(update)

    async def of(self, symbols: Iterable[str]) -> list[DayAnswer]:
        """Return the last 24 hours of the streamed symbols among these.

        The first request of a symbol waits up to two seconds for the table.
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
                found.append(DayAnswer(prices, day.missing_minutes()))
        return found

    async def run(self) -> None:
        """Read the past of requested symbols, until cancelled."""
        loop = RetryLoop(
            BACKOFF,
            retry_on=(TransientError, PermanentError, TimeoutError),
            on_failure=self._on_failure,
            on_retry=partial(log.warning, "prices_not_read"),
            timeout_text="timeout",
        )
        self._wake_waiters(is_reading=True)
        try:
            await loop.run(self._read_and_wait)
        finally:
            self._wake_waiters(is_reading=False)

    async def _read_and_wait(self) -> None:
        """Read what has changed in the table once, then wait for further requests."""
        self._forget_all_but(frozenset(self._streamed()))
        self._requested.clear()
        if self._days and (now_us := self._now_us()):
            await self._find_changed(now_us)
            await self._read_changed()
            await self._read_days(now_us)
        self._wake_waiters(is_reading=True)
        with suppress(TimeoutError):
            async with asyncio.timeout(POLL_INTERVAL_S):
                await self._requested.wait()

    async def _on_failure(self) -> None:
        """Read everything again later: another server may answer then, with another change log."""
        self._seen = None
        self._wake_waiters(is_reading=False)

    def _day_of(self, symbol: str) -> _Day:
        day = self._days.get(symbol)
        if day is None:
            day = self._days[symbol] = _Day(symbol, self._recent.get(symbol, {}).values())
            self._requested.set()
        return day

    async def _find_changed(self, now_us: int) -> None:
        """Note the minutes that have changed in the table since the last time."""
        if (seen := self._seen) is None:
            self._seen = await self._history.call(current_snapshot)
            for day in self._days.values():
                day.must_read = True
            return
        symbols, start_us = list(self._days), now_us - DAY_US - MINUTE_US
        self._seen, changed = await self._history.call(
            lambda connection: changed_minutes(connection, symbols, start_us, now_us + DAY_US, seen)
        )
        for symbol, ranges in changed.items():
            if (known := self._days.get(symbol)) is not None:
                known.note_changed(ranges)

    async def _read_changed(self) -> None:
        """Read changed minutes again; of a day with other changes than rows, the whole day."""
        due = [
            (symbol, *span)
            for symbol, day in self._days.items()
            if not day.must_read
            for span in day.take_changed()
        ]
        for first in range(0, len(due), CHANGES_A_TURN):
            ranges = due[first : first + CHANGES_A_TURN]
            candles = await self._history.call(partial(read_ranges, ranges=ranges))
            lacking = Counter({one: minutes_in([(start, end)]) for one, start, end in ranges})
            for candle in candles:
                lacking[candle.symbol] -= 1
                if (day := self._days.get(candle.symbol)) is not None:
                    day.minutes.put(candle)
            for symbol in +lacking:
                if symbol in self._days:
                    self._days[symbol].must_read = True  # deleted, or an outage

    async def _read_days(self, now_us: int) -> None:
        while (symbol := self._next_unread()) is not None:
            began_s = time.monotonic()
            await self._read_day(symbol, now_us)
            self._wake_waiters(is_reading=True)
            await asyncio.sleep(max(PAUSE_S, PAUSE_RATIO * (time.monotonic() - began_s)))

    def _next_unread(self) -> str | None:
        return next((symbol for symbol, day in self._days.items() if day.must_read), None)

    async def _read_day(self, symbol: str, now_us: int) -> None:
        newest_us = self._days[symbol].minutes.newest_us
        is_known = newest_us >= 0
        latest_us = newest_us if is_known else minute_of(now_us) - RECENT * MINUTE_US
        start_us = latest_us - DAY_US
        stored = await self._read_from(symbol, start_us, now_us)
        last_us = stored.candles[-1].open_time_us if stored.candles else latest_us
        if not is_known and last_us < latest_us:  # halted: its day ends with the newest minute
            stored = await self._read_from(symbol, last_us - DAY_US, now_us)
        if (day := self._days.get(symbol)) is not None:
            day.replace(stored, self._recent.get(symbol, {}).values())

    async def _read_from(self, symbol: str, start_us: int, now_us: int) -> StoredDay:
        return await self._history.call(
            lambda connection: read_stored_day(connection, symbol, start_us, now_us + DAY_US)
        )

    def _forget_all_but(self, streamed: Set[str]) -> None:
        for known in (self._days, self._recent, self._traded):
            for symbol in known.keys() - streamed:
                del known[symbol]

    def _wake_waiters(self, *, is_reading: bool) -> None:
        """Wake the requests that wait for a day."""
        self._is_reading = is_reading
        self._changed.set()
        self._changed = asyncio.Event()
