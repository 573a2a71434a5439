"""Prices of the day of every symbol, from the minutes that are over and the open one.

What was traded before this process began is read from the table, symbol by symbol, in the
background.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable

import structlog

from include.backoff import Backoff
from include.domain.candles import Candle
from include.domain.day_prices import DayOfMinutes, DayPrices
from include.domain.live_bars import is_of_another
from include.domain.timeframes import DAY_US, MINUTE_US
from include.errors import PermanentError, TransientError
from include.store.candles import read_candles
from include.store.unbuilt_bars import listed_from_us
from streamer.serving.history import History

log = structlog.get_logger(__name__)

LOOK_S = 2.0
"""How often symbols that joined or left are looked for."""
PAUSE_S = 0.01
"""Between two symbols, at least: the past is not in a hurry."""
PAUSE_RATIO = 4
"""So many times as long as a symbol took is paused: what is live has the processor."""
BACKOFF = Backoff(first_s=0.5, most_s=60.0, least_s=0.1)


class Prices:
    """The day of each symbol.

    Args:
        streamed: the symbols.
        newest: the newest minute of a symbol, open or not; None where none is in memory.
        now_us: the exchange's time.
    """

    def __init__(
        self,
        history: History,
        *,
        streamed: Callable[[], Iterable[str]],
        newest: Callable[[str], Candle | None],
        now_us: Callable[[], int],
    ) -> None:
        self._history = history
        self._streamed = streamed
        self._newest = newest
        self._now_us = now_us
        self._days: dict[str, DayOfMinutes] = {}
        self._waiting: dict[str, list[Candle]] = {}
        """Minutes of symbols without a day. To make one takes a quarter of a millisecond, and a
        minute ends for all symbols at once."""
        self._read: set[str] = set()
        self._traded: dict[str, Candle] = {}
        """The newest minute with trades, by symbol: another instrument may be given a ticker."""

    def settled(self, candle: Candle) -> None:
        """A minute is over, or was found to be something else."""
        if candle.last_trade_id is not None:
            before = self._traded.get(candle.symbol)
            if before is not None and is_of_another(before, candle):
                self._waiting.pop(candle.symbol, None)
                if candle.symbol in self._days:
                    self._days[candle.symbol] = DayOfMinutes(candle.symbol)
            if before is None or candle.open_time_us >= before.open_time_us:
                self._traded[candle.symbol] = candle
        day = self._days.get(candle.symbol)
        if day is None:
            self._waiting.setdefault(candle.symbol, []).append(candle)
        else:
            day.put(candle)

    def of(self, symbol: str) -> DayPrices | None:
        """The last 24 hours of a symbol; None where nothing is known of it."""
        newest = self._newest(symbol)
        if newest is not None:
            self.settled(newest)  # it is, as far as it has come
        is_known = symbol in self._days or symbol in self._waiting
        return self._day(symbol).prices() if is_known else None

    def is_whole(self, symbol: str) -> bool:
        """Whether what was traded before this process began is in it."""
        return symbol in self._read

    async def run(self) -> None:
        """Read the past of symbols as they join; until cancelled."""
        failures = 0
        while True:
            streamed = frozenset(self._streamed())
            for symbol in {*self._days, *self._waiting} - streamed:
                for known in (self._days, self._waiting, self._traded):
                    known.pop(symbol, None)
                self._read.discard(symbol)
            wait_s = 0.0
            for symbol in sorted(streamed - self._read):
                began_s = time.monotonic()
                self._day(symbol)
                try:
                    if not wait_s:
                        await self._look_back(symbol)
                        failures = 0
                except (TransientError, PermanentError, TimeoutError) as error:
                    failures += 1
                    wait_s = BACKOFF.wait_s(failures, error)
                    log.warning(
                        "prices_not_read",
                        error=str(error) or "timeout",
                        retry_in_s=round(wait_s, 1),
                    )
                took_s = time.monotonic() - began_s
                await asyncio.sleep(max(PAUSE_S, PAUSE_RATIO * took_s))
            await asyncio.sleep(wait_s or LOOK_S)

    def _day(self, symbol: str) -> DayOfMinutes:
        """The day of a symbol, with the minutes that waited for it."""
        day = self._days.get(symbol)
        if day is None:
            day = self._days[symbol] = DayOfMinutes(symbol)
            for candle in self._waiting.pop(symbol, ()):
                day.put(candle)
        return day

    async def _look_back(self, symbol: str) -> None:
        now_us = self._now_us()
        if not now_us:
            return
        since_us = now_us - DAY_US - MINUTE_US
        candles = await self._history.call(
            lambda connection: read_candles(
                connection,
                symbol,
                max(since_us, listed_from_us(connection, symbol)),
                now_us + DAY_US,
            )
        )
        day = self._day(symbol)
        for candle in candles:
            if not day.has(candle.open_time_us):  # what came live is newer than the table
                day.put(candle)
        self._read.add(symbol)
