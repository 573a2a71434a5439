"""Live bars of every timeframe, built from the minutes of the hub.

A changed minute marks each bar that contains it, at a cost that does not depend on the number of
readers. A bar is joined from its parts when a reader receives it. Longer bars of a symbol stay in
memory while they have subscribers.

Call it from the event loop's own thread.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from functools import partial

import structlog

from include.backoff import Backoff, RetryLoop
from include.domain.candles import Candle
from include.domain.live_bars import HOUR, BarPart, SymbolBars, reach_of
from include.domain.timeframes import Timeframe
from include.errors import PermanentError, TransientError
from serving.bars.reused_tickers import ReusedTickers
from serving.bars.subscription import BarSubscription, BarUpdate
from streamer.hub.subscription import Batch, CandleUpdate, Changes
from streamer.runtime.threads import in_thread

log = structlog.get_logger(__name__)

MINUTES_KEPT = 10
"""Minutes remembered of each symbol: longer than a write to the table can be late."""
READS_AT_ONCE = 4
"""Concurrent reads of PostgreSQL for newly subscribed bars."""
MAX_READ_S = 60.0
CANCEL_TIMEOUT_S = 1.0
POLL_INTERVAL_S = 60.0
"""Fallback poll; task completion normally wakes us."""
BACKOFF = Backoff(first_s=0.5, max_s=30.0, min_s=0.05)

Parts = tuple[Sequence[Candle], Sequence[BarPart], Sequence[BarPart]]
"""Minutes, hours and days."""


class LiveBars:
    """Passes changed minutes, and the bars that contain them, to subscriptions.

    Args:
        changes: subscribes to all symbols; the present states come first.
        read_parts: reads the parts of a symbol's newest bars, as of the newest minute given (µs);
            blocking.
        is_always_on: subscribe even without readers.
        on_dropped: called with symbols that are no longer streamed.
    """

    def __init__(
        self,
        changes: Callable[[], Changes],
        read_parts: Callable[[str, int], Parts],
        *,
        is_always_on: bool = False,
        on_dropped: Callable[[Iterable[str]], None] = lambda _symbols: None,
    ) -> None:
        self._changes = changes
        self._read_parts = read_parts
        self._is_always_on = is_always_on
        self._on_dropped = on_dropped
        self._streamed: frozenset[str] | None = None
        """Streamed symbols; None if the source does not report them: symbols then stay."""
        self.on_streamed_changed: set[Callable[[frozenset[str], frozenset[str]], None]] = set()
        """Called with the symbols that were dropped and those that were added."""
        self._subscriptions: list[BarSubscription] = []
        self._states: dict[str, dict[int, CandleUpdate]] = {}
        self._bars: dict[str, SymbolBars] = {}
        self._by_symbol: dict[str, list[BarSubscription]] = {}
        """Bars by symbol, for symbols with a minute in memory."""
        self._to_read: dict[str, None] = {}
        """Symbols whose longer bars are subscribed but not in memory, in the order of request."""
        self._reading: set[str] = set()
        self._not_read = ""
        """Symbol of the last read that failed."""
        self._read_for: dict[str, set[int]] = {}
        """Hours (µs) older than those in memory whose minutes changed, by symbol."""
        self._tickers = ReusedTickers()
        self._is_watched = asyncio.Event()
        if is_always_on:
            self._is_watched.set()
        self._has_requests = asyncio.Event()
        self._is_over = False
        self._has_begun = False
        """Whether the initial states have all come."""
        self._conflated_before = 0
        """Counts of readers that have unsubscribed."""

    @property
    def subscribers(self) -> int:
        """Readers at present."""
        return len(self._subscriptions)

    @property
    def conflated(self) -> int:
        """Changes of bars that newer ones replaced before readers received them."""
        return self._conflated_before + sum(one.conflated for one in self._subscriptions)

    @property
    def symbols(self) -> frozenset[str]:
        """Symbols with a minute in memory."""
        return frozenset(self._states)

    def knows(self, symbol: str) -> bool:
        """Whether a minute of a symbol is in memory."""
        return symbol in self._states

    def newest(self, symbol: str) -> CandleUpdate | None:
        """The newest minute of a symbol; None if none is in memory."""
        states = self._states.get(symbol)
        return states[max(states)] if states else None

    def since_us(self, symbol: str) -> int:
        """Open time of the present instrument's first minute; 0 if it began before this process."""
        return self._tickers.since_us(symbol)

    # --- for readers

    def subscribe(
        self,
        symbols: Iterable[str] | None,
        timeframes: Sequence[Timeframe],
        *,
        closed_only: bool = False,
        reports_streamed: bool = False,
    ) -> BarSubscription:
        """Subscribe to bars; the present ones come first.

        Args:
            symbols: None for all.
            closed_only: leave open bars out.
            reports_streamed: report also which of the symbols are streamed.
        """
        wanted = None if symbols is None else frozenset(symbols)
        subscription = BarSubscription(
            wanted,
            timeframes,
            closed_only=closed_only,
            bar=self._bar,
            count_symbols=lambda: len(self._states),
            on_unsubscribe=self._leave,
            reports_streamed=reports_streamed,
        )
        if self._streamed is not None:
            subscription.report_streamed(self._streamed)
        self._subscriptions.append(subscription)
        self._is_watched.set()
        if self._is_over:
            subscription.close()
        for symbol in self._states if wanted is None else wanted & self._states.keys():
            self._send_present(subscription, symbol)
        return subscription

    def add_symbols(self, subscription: BarSubscription, symbols: Iterable[str]) -> None:
        """Add symbols to a subscription; their present bars come first."""
        if subscription.symbols is None:
            return
        fresh = frozenset(symbols) - subscription.symbols
        subscription.symbols |= fresh
        for symbol in sorted(fresh & self._states.keys()):
            self._send_present(subscription, symbol)

    def remove_symbols(self, subscription: BarSubscription, symbols: Iterable[str]) -> None:
        """Remove symbols from a subscription."""
        if subscription.symbols is None:
            return
        for symbol in subscription.symbols & frozenset(symbols):
            self._forget(subscription, symbol)
        subscription.symbols -= frozenset(symbols)

    def is_snapshot_complete(self, subscription: BarSubscription) -> bool:
        """Whether the present state of all subscribed bars was enqueued for the reader."""
        return self._has_begun and not (
            subscription.has_longer_bars
            and any(
                subscription.symbols is None or symbol in subscription.symbols
                for symbol in (*self._to_read, *self._reading)
            )
        )

    # --- works

    async def run(self) -> None:
        """Process changes while there are subscriptions; until cancelled or the source ends."""
        works = [asyncio.ensure_future(self._read()) for _ in range(READS_AT_ONCE)]
        works.append(asyncio.ensure_future(self._follow()))
        try:
            done: set[asyncio.Future[None]] = set()
            while not done:
                done, _ = await asyncio.wait(
                    works, timeout=POLL_INTERVAL_S, return_when=asyncio.FIRST_COMPLETED
                )
            for one in done:
                one.result()  # raises what ended it
        finally:
            for one in works:
                one.cancel()
            await asyncio.wait(works, timeout=CANCEL_TIMEOUT_S)

    async def _follow(self) -> None:
        while not self._is_over:
            await self._is_watched.wait()
            await self._process_changes()

    async def _process_changes(self) -> None:
        changes = self._changes()
        try:
            while self._subscriptions or self._is_always_on:
                batch = await changes.receive()
                if batch is None:
                    self._is_over = True
                    for subscription in self._subscriptions:
                        subscription.close()
                    return
                self._apply(batch)
            self._is_watched.clear()
            for known in (self._states, self._by_symbol, self._bars, self._read_for):
                known.clear()
            self._streamed = None
            self._has_begun = False
        finally:
            changes.unsubscribe()

    def _apply(self, batch: Batch) -> None:
        if batch.streamed is not None:
            self._set_streamed(batch.streamed)
        for symbol, (start_us, end_us) in batch.missed.items():
            for subscription in self._subscriptions:
                subscription.report_missed_minutes(symbol, start_us, end_us)
            if symbol in self._bars:
                self._request_read(symbol)
        for update in batch.updates:
            self._apply_update(update)
        if not self._has_begun and not batch.is_cut:
            self._has_begun = True
            for subscription in self._subscriptions:
                subscription.report_snapshot_end()

    def _set_streamed(self, streamed: frozenset[str]) -> None:
        """Remember the streamed symbols, and forget all others."""
        before, self._streamed = self._streamed, streamed
        if dropped := self._states.keys() - streamed:
            for symbol in dropped:
                for subscription in self._by_symbol.pop(symbol, ()):
                    subscription.freeze(symbol)  # reads the bars
                for known in (self._states, self._bars, self._read_for, self._to_read):
                    known.pop(symbol, None)
            log.info("symbols_dropped", count=len(dropped), some=sorted(dropped)[:10])
            self._on_dropped(dropped)
        for subscription in self._subscriptions:
            subscription.report_streamed(streamed)
        if before is not None and before != streamed:
            for callback in list(self.on_streamed_changed):
                callback(before - streamed, streamed - before)

    def _apply_update(self, update: CandleUpdate) -> None:
        candle = update.candle
        symbol, open_time_us = candle.symbol, candle.open_time_us
        if self._streamed is not None and symbol not in self._streamed:
            for subscription in self._wanting(symbol):
                subscription.enqueue_minute(update)  # made before the symbol was dropped
            return
        states = self._states.get(symbol)
        if states is None:
            states = self._states[symbol] = {}
            for subscription in self._wanting(symbol):
                self._send_present(subscription, symbol)
        states[open_time_us] = update
        if len(states) > MINUTES_KEPT:
            removed = states.pop(min(states))
            if not removed.has_quotes and self._bars.pop(symbol, None) is not None:
                self._request_read(symbol)  # its quote volumes are known in the table only
            elif symbol in self._reading:
                self._request_read(
                    symbol
                )  # the read in progress may be older than the removed minute
        bars = self._bars.get(symbol)
        if self._tickers.note(candle) and bars is not None:
            bars = self._bars[symbol] = SymbolBars(open_time_us)
        if bars is not None and open_time_us < self.since_us(symbol):
            bars = None  # of the previous instrument: bars of this one do not change
        if bars is not None and not bars.put(candle, is_closed=update.is_closed):
            self._read_for.setdefault(symbol, set()).add(HOUR.open_time_us(open_time_us))
            self._request_read(symbol)
            bars = None
        for subscription in self._by_symbol.get(symbol, ()):
            subscription.enqueue_minute(update)
            if bars is not None:
                subscription.mark_bars(symbol, open_time_us)

    def _wanting(self, symbol: str) -> list[BarSubscription]:
        return [one for one in self._subscriptions if one.symbols is None or symbol in one.symbols]

    def _send_present(self, subscription: BarSubscription, symbol: str) -> None:
        """Give a new subscription the present states of a symbol."""
        self._by_symbol.setdefault(symbol, []).append(subscription)
        for _, update in sorted(self._states.get(symbol, {}).items()):
            subscription.enqueue_minute(update)
        if subscription.has_longer_bars and (bars := self._bars.get(symbol)) is not None:
            subscription.mark_newest_bars(symbol, bars.newest_us)
        elif subscription.has_longer_bars:
            self._request_read(symbol)

    def _leave(self, subscription: BarSubscription) -> None:
        if subscription not in self._subscriptions:
            return
        self._subscriptions.remove(subscription)
        self._conflated_before += subscription.conflated
        for symbol in list(self._states if subscription.symbols is None else subscription.symbols):
            self._forget(subscription, symbol)

    def _forget(self, subscription: BarSubscription, symbol: str) -> None:
        if subscription in (watching := self._by_symbol.get(symbol, [])):
            watching.remove(subscription)
        subscription.remove(symbol)
        if not self._is_wanted(symbol):
            self._bars.pop(symbol, None)
            self._read_for.pop(symbol, None)

    def _bar(self, symbol: str, timeframe: Timeframe, open_time_us: int) -> BarUpdate | None:
        """A bar as it is now; None if it is not in memory."""
        try:
            bars = self._bars.get(symbol)
            bar = None if bars is None else bars.bar(timeframe, open_time_us)
        except ValueError:
            bar = None
        if bar is None:
            return None
        end_us = timeframe.next_open_us(open_time_us)
        return BarUpdate(
            timeframe.name,
            bar.candle,
            minute_count=bar.minute_count,
            is_closed=bar.is_closed,
            has_quotes=all(
                state.has_quotes
                for one, state in self._states.get(symbol, {}).items()
                if open_time_us <= one < end_us
            ),
        )

    # --- what the table has

    def _request_read(self, symbol: str) -> None:
        self._to_read[symbol] = None
        self._has_requests.set()

    async def _read(self) -> None:
        loop = RetryLoop(
            BACKOFF,
            retry_on=(TransientError, PermanentError, TimeoutError),
            on_retry=lambda **fields: log.warning("bars_not_read", symbol=self._not_read, **fields),
            timeout_text=f"timed out after {MAX_READ_S:g} s",
        )
        await loop.run(self._read_next)

    async def _read_next(self) -> None:
        """Read the past of the next requested symbol; an error requests it again."""
        while True:
            await self._has_requests.wait()
            self._to_read = {one: None for one in self._to_read if self._is_wanted(one)}
            symbol = next((one for one in self._to_read if one not in self._reading), None)
            if symbol is None:
                self._has_requests.clear()
                continue
            del self._to_read[symbol]
            if states := self._states.get(symbol):  # else its first minute will trigger the read
                break
        newest_us = max(states)
        self._reading.add(symbol)
        try:
            async with asyncio.timeout(MAX_READ_S):
                parts = await in_thread(
                    partial(self._read_parts, symbol, newest_us), name="bars_read"
                )
        except (TransientError, PermanentError, TimeoutError):
            self._not_read = symbol
            self._request_read(symbol)
            raise
        finally:
            self._reading.discard(symbol)
            if symbol in self._to_read:
                self._has_requests.set()  # reads run one at a time
        self._install(symbol, newest_us, parts)

    def _is_wanted(self, symbol: str) -> bool:
        return any(one.has_longer_bars for one in self._by_symbol.get(symbol, ()))

    def _install(self, symbol: str, newest_us: int, parts: Parts) -> None:
        if not self._is_wanted(symbol):
            return
        bars = self._tickers.bars(symbol, newest_us, *parts)
        for open_time_us, update in sorted(self._states.get(symbol, {}).items()):
            if open_time_us >= self.since_us(symbol):
                bars.put(update.candle, is_closed=update.is_closed)
        self._bars[symbol] = bars
        first_us = reach_of(bars.newest_us).days_from_us
        changed = sorted(one for one in self._read_for.pop(symbol, ()) if one >= first_us)
        for subscription in self._by_symbol[symbol]:
            for hour_us in changed:
                subscription.mark_bars_of_hour(symbol, hour_us)
            subscription.mark_newest_bars(symbol, bars.newest_us)
