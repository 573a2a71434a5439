"""Bar changes for one reader, at its own pace."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from include.domain.candles import Candle, Source, Status
from include.domain.timeframes import HOUR_US, TIMEFRAMES, Timeframe
from streamer.hub.mailbox import Mailbox, TimeRange
from streamer.hub.subscription import CandleUpdate

BATCH_UPDATES = 200
"""Bars of one batch at most: joined and encoded in a few ms, during which the loop is blocked."""
MIN_CAPACITY = 1_000
BARS_PER_SERIES = 10
"""Bars that may wait for a reader, of one symbol and timeframe; and in all, at least."""
BARS_REMEMBERED = 2
"""Delivered bars of a symbol and timeframe that are remembered, to deliver only changes."""
MINUTE = TIMEFRAMES["1m"].name

Key = tuple[str, str, int]
"""Symbol, timeframe, open time in µs."""


@dataclass(frozen=True, slots=True)
class BarUpdate:
    """The state of one bar.

    Attributes:
        minute_count: minutes that the bar holds so far.
        is_closed: its last minute is over.
        status, source: of a closed minute; None for anything else.
        is_revision: the reader received the bar as closed before, with other values, or may have,
            if the bar is older than what is remembered of this reader.
        has_quotes: False if the quote volumes are not known yet.
    """

    timeframe: str
    candle: Candle
    minute_count: int = 1
    is_closed: bool = False
    status: Status | None = None
    source: Source | None = None
    is_revision: bool = False
    has_quotes: bool = True


@dataclass(frozen=True, slots=True)
class MissedBars:
    """Bars of a symbol whose states the reader did not receive: open times in µs, half open."""

    symbol: str
    timeframe: str
    start_us: int
    end_us: int


@dataclass(frozen=True, slots=True)
class Bars:
    """Changes since the previous batch, in the order of their publication.

    Attributes:
        streamed: the subscribed symbols that are streamed, if the reader wants them and they
            have changed; else None.
    """

    updates: list[BarUpdate]
    missed: list[MissedBars]
    streamed: frozenset[str] | None = None

    def __bool__(self) -> bool:
        return bool(self.updates or self.missed) or self.streamed is not None


@dataclass(slots=True)
class _Delivered:
    """The bars of one symbol and timeframe that a reader received last, by open time."""

    bars: dict[int, BarUpdate] = field(default_factory=dict)
    forgotten_until_us: int = 0
    """The reader may have received bars that opened before this."""

    def note(self, update: BarUpdate) -> None:
        self.bars[update.candle.open_time_us] = update
        if len(self.bars) > BARS_REMEMBERED:
            oldest_us = min(self.bars)
            del self.bars[oldest_us]
            self.forgotten_until_us = max(self.forgotten_until_us, oldest_us + 1)


class BarSubscription(Mailbox[Key, "CandleUpdate | BarUpdate | None", tuple[str, str], TimeRange]):
    """Bar changes of some symbols, or of all, for one reader. ``LiveBars.subscribe`` makes it.

    A minute waits as its update; a longer bar waits as None and is joined when it is received.

    Args:
        symbols: None for all.
        bar: returns a longer bar as it is now; None if it is not in memory.
        count_symbols: returns how many symbols there are in all.
        on_unsubscribe: called when the reader wants nothing more.
        reports_streamed: report also which of the symbols are streamed.
    """

    def __init__(
        self,
        symbols: frozenset[str] | None,
        timeframes: Sequence[Timeframe],
        *,
        closed_only: bool,
        bar: Callable[[str, Timeframe, int], BarUpdate | None],
        count_symbols: Callable[[], int],
        on_unsubscribe: Callable[[BarSubscription], None],
        reports_streamed: bool = False,
    ) -> None:
        super().__init__(self._max_waiting, on_unsubscribe=on_unsubscribe)
        self.symbols = symbols
        self._longer = [one for one in timeframes if one.name != MINUTE]
        self._has_minutes = any(one.name == MINUTE for one in timeframes)
        self._by_name = {one.name: one for one in timeframes}
        self._closed_only = closed_only
        self._bar = bar
        self._count_symbols = count_symbols
        self._reports_streamed = reports_streamed
        self._streamed: frozenset[str] | None = None
        """All streamed symbols; None until they are known."""
        self._streamed_delivered: frozenset[str] | None = None
        self._is_streamed_new = False
        self._is_snapshot_new = False
        self._delivered: dict[tuple[str, str], _Delivered] = {}

    @property
    def has_longer_bars(self) -> bool:
        """Whether bars of more than a minute are subscribed."""
        return bool(self._longer)

    # --- for LiveBars

    def enqueue_minute(self, update: CandleUpdate) -> None:
        """Add a minute's new state."""
        if not self._has_minutes or (self._closed_only and not update.is_closed):
            return
        key = (update.candle.symbol, MINUTE, update.candle.open_time_us)
        waiting = self._items.get(key)
        if waiting is not None and waiting.is_revision and not update.is_revision:
            update = replace(update, is_revision=True)
        self.enqueue(key, update)

    def mark_bars(self, symbol: str, minute_us: int) -> None:
        """Mark the longer bars that hold a minute as changed."""
        for timeframe in self._longer:
            self.enqueue((symbol, timeframe.name, timeframe.open_time_us(minute_us)), None)

    def mark_bars_of_hour(self, symbol: str, hour_us: int) -> None:
        """Mark the bars that hold a whole hour as changed."""
        for timeframe in self._longer:
            if timeframe.width_us is None or timeframe.width_us >= HOUR_US:
                self.enqueue((symbol, timeframe.name, timeframe.open_time_us(hour_us)), None)

    def mark_newest_bars(self, symbol: str, newest_us: int) -> None:
        """Mark all bars in memory as changed: the newest of each timeframe and the one before."""
        for timeframe in self._longer:
            newest = timeframe.open_time_us(newest_us)
            self.enqueue((symbol, timeframe.name, timeframe.open_time_us(newest - 1)), None)
            self.enqueue((symbol, timeframe.name, newest), None)

    def report_missed_minutes(self, symbol: str, start_us: int, end_us: int) -> None:
        """Report minutes whose states were lost before they came here."""
        if self._has_minutes and (self.symbols is None or symbol in self.symbols):
            self.report_missed((symbol, MINUTE), TimeRange(start_us, end_us))

    def report_streamed(self, streamed: frozenset[str]) -> None:
        """Report the streamed symbols, out of all symbols."""
        if self._reports_streamed:
            self._streamed, self._is_streamed_new = streamed, True
            self.wake()

    def report_snapshot_end(self) -> None:
        """Wake the reader once everything known at the start has been enqueued."""
        if self._reports_streamed:
            self._is_snapshot_new = True
            self.wake()

    def remove(self, symbol: str) -> None:
        """Discard what waits of a symbol that the reader no longer wants."""
        self.discard(lambda key: key[0] == symbol)
        self.freeze(symbol)

    def freeze(self, symbol: str) -> None:
        """Fix the waiting bars of a symbol that is no longer streamed as they are now."""
        marks = [key for key, state in self._items.items() if state is None and key[0] == symbol]
        states = {key: self._update(key, None) for key in marks}
        self.discard(lambda key: key in states and states[key] is None)
        self._items |= {key: state for key, state in states.items() if state is not None}
        for timeframe in self._by_name:
            self._delivered.pop((symbol, timeframe), None)

    # --- for the reader

    async def receive(self, limit: int = BATCH_UPDATES) -> Bars | None:
        """Wait until something changed; None once everything was received and nothing will come.

        The batch is empty if nothing changed but the snapshot is complete now.
        """
        while await self.ready():
            bars = self.drain(limit)
            is_complete = self._is_snapshot_new and not self.waiting
            if bars or is_complete:
                self._is_snapshot_new = self._is_snapshot_new and not is_complete
                return bars
        return None

    def drain(self, limit: int = BATCH_UPDATES) -> Bars:
        """Take the changes so far, without waiting; empty if there are none."""
        updates = [
            update
            for key, state in self.take(limit)
            if (update := self._update(key, state)) is not None
        ]
        missed = [MissedBars(*key, *span) for key, span in self.take_missed().items()]
        return Bars(updates, missed, self._take_streamed())

    # --- inside

    def _missed_by_eviction(
        self, key: Key, item: CandleUpdate | BarUpdate | None
    ) -> tuple[tuple[str, str], TimeRange]:
        symbol, name, open_time_us = key
        end_us = TIMEFRAMES[name].next_open_us(open_time_us)
        return (symbol, name), TimeRange(open_time_us, end_us)

    def _take_streamed(self) -> frozenset[str] | None:
        if not self._is_streamed_new or self._streamed is None:
            return None
        self._is_streamed_new = False
        streamed = self._streamed if self.symbols is None else self._streamed & self.symbols
        if streamed == self._streamed_delivered:
            return None
        self._streamed_delivered = streamed
        return streamed

    def _max_waiting(self) -> int:
        symbols = self._count_symbols() if self.symbols is None else len(self.symbols)
        return max(BARS_PER_SERIES * symbols * len(self._by_name), MIN_CAPACITY)

    def _update(self, key: Key, state: CandleUpdate | BarUpdate | None) -> BarUpdate | None:
        """The state as it is now; None where the reader has it already."""
        symbol, name, open_time_us = key
        if isinstance(state, BarUpdate):
            return state
        if state is not None:
            return BarUpdate(
                name,
                state.candle,
                is_closed=state.is_closed,
                status=state.status,
                source=state.source,
                is_revision=state.is_revision,
                has_quotes=state.has_quotes,
            )
        update = self._bar(symbol, self._by_name[name], open_time_us)
        if update is None or (self._closed_only and not update.is_closed):
            return None
        delivered = self._delivered.setdefault((symbol, name), _Delivered())
        before = delivered.bars.get(open_time_us)
        if before is not None:
            if replace(before, is_revision=False) == update:
                return None
            if before.is_closed and before.candle.values != update.candle.values:
                update = replace(update, is_revision=True)
        elif update.is_closed and open_time_us < delivered.forgotten_until_us:
            update = replace(update, is_revision=True)
        delivered.note(update)
        return update
