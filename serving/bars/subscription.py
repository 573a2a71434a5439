"""What one reader is told of bars, at its own pace."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from types import TracebackType

from include.domain.candles import Candle, Source, Status
from include.domain.timeframes import HOUR_US, TIMEFRAMES, Timeframe
from streamer.hub.subscription import CandleUpdate

BATCH_UPDATES = 200
"""Most bars of one batch: joined and written in a few milliseconds, in which nothing else moves."""
MIN_WAITING = 1_000
BARS_IN_HAND = 10
"""Bars that may wait for a reader, of a symbol and timeframe."""
BARS_REMEMBERED = 2
"""Of a symbol and timeframe, with which a reader is told what is new alone."""
MINUTE = TIMEFRAMES["1m"].name

Key = tuple[str, str, int]
"""Symbol, timeframe, open time in µs."""


@dataclass(frozen=True, slots=True)
class BarUpdate:
    """The state of one bar.

    Attributes:
        minute_count: minutes that are there.
        is_closed: its last minute is over.
        status, source: how sure a settled minute is; None for anything else.
        is_revision: it was told before as closed, with other values, or may have been where it
            is older than what is remembered of this reader.
        has_quotes: False where the quote volumes cannot be known yet.
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
class Missed:
    """Bars of a symbol whose states were not told: open times in µs, half open."""

    symbol: str
    timeframe: str
    start_us: int
    end_us: int


@dataclass(frozen=True, slots=True)
class Bars:
    """What changed since the last one, in the order in which it began to wait.

    Attributes:
        streamed: those of the watched symbols that are streamed, where that is to be told and has
            changed; None otherwise.
    """

    updates: list[BarUpdate]
    missed: list[Missed]
    streamed: frozenset[str] | None = None

    def __bool__(self) -> bool:
        return bool(self.updates or self.missed) or self.streamed is not None


@dataclass(slots=True)
class _Told:
    """What a reader was told last of a symbol's bars of a timeframe, by open time."""

    bars: dict[int, BarUpdate] = field(default_factory=dict)
    forgotten_until_us: int = 0
    """Bars that opened before this may have been told."""

    def note(self, update: BarUpdate) -> None:
        self.bars[update.candle.open_time_us] = update
        if len(self.bars) > BARS_REMEMBERED:
            oldest_us = min(self.bars)
            del self.bars[oldest_us]
            self.forgotten_until_us = max(self.forgotten_until_us, oldest_us + 1)


class BarSubscription:
    """One reader's view of bars. Take them by ``next``; leaving the context ends it.

    ``Board.watch`` makes it.

    Args:
        symbols: None for all.
        bar: a bar of more than a minute as it stands; None where it is not in memory.
        symbols_of_all: how many symbols there are.
        on_leave: told when the reader wants no more.
        tells_streamed: tell also which of the symbols are streamed.
    """

    def __init__(
        self,
        symbols: frozenset[str] | None,
        timeframes: Sequence[Timeframe],
        *,
        closed_only: bool,
        bar: Callable[[str, Timeframe, int], BarUpdate | None],
        symbols_of_all: Callable[[], int],
        on_leave: Callable[[BarSubscription], None],
        tells_streamed: bool = False,
    ) -> None:
        self.symbols = symbols
        self._coarse = [one for one in timeframes if one.name != MINUTE]
        self._has_minutes = any(one.name == MINUTE for one in timeframes)
        self._by_name = {one.name: one for one in timeframes}
        self._closed_only = closed_only
        self._bar = bar
        self._symbols_of_all = symbols_of_all
        self._on_leave = on_leave
        self._tells_streamed = tells_streamed
        self._streamed: frozenset[str] | None = None
        """All that are streamed; None until that is known."""
        self._told_streamed: frozenset[str] | None = None
        self._is_streamed_new = False
        self._is_begun_new = False
        self._waiting: dict[Key, CandleUpdate | BarUpdate | None] = {}
        """None: as it stands when it is taken."""
        self._missed: dict[tuple[str, str], tuple[int, int]] = {}
        self._told: dict[tuple[str, str], _Told] = {}
        self._wake = asyncio.Event()
        self._is_over = False
        self._was_cut = False
        self.conflated = 0
        """Changes of a bar whose last change had not been taken yet."""

    @property
    def has_coarse(self) -> bool:
        """Whether bars of more than a minute are watched."""
        return bool(self._coarse)

    @property
    def waiting(self) -> int:
        """Bars that changed and were not taken yet."""
        return len(self._waiting)

    # --- for the board

    def put_minute(self, update: CandleUpdate) -> None:
        """A minute has changed."""
        if not self._has_minutes or (self._closed_only and not update.is_closed):
            return
        key = (update.candle.symbol, MINUTE, update.candle.open_time_us)
        waiting = self._waiting.get(key)
        if waiting is not None and waiting.is_revision and not update.is_revision:
            update = replace(update, is_revision=True)
        self._put(key, update)

    def mark(self, symbol: str, minute_us: int) -> None:
        """The bars that hold a minute have changed."""
        for timeframe in self._coarse:
            self._put((symbol, timeframe.name, timeframe.open_time_us(minute_us)), None)

    def mark_hour(self, symbol: str, hour_us: int) -> None:
        """The bars that hold a whole hour have changed."""
        for timeframe in self._coarse:
            if timeframe.width_us is None or timeframe.width_us >= HOUR_US:
                self._put((symbol, timeframe.name, timeframe.open_time_us(hour_us)), None)

    def mark_all(self, symbol: str, newest_us: int) -> None:
        """All bars in memory may have changed: the newest, and those before them."""
        for timeframe in self._coarse:
            newest = timeframe.open_time_us(newest_us)
            self._put((symbol, timeframe.name, timeframe.open_time_us(newest - 1)), None)
            self._put((symbol, timeframe.name, newest), None)

    def miss(self, symbol: str, start_us: int, end_us: int) -> None:
        """States of minutes in this range were lost before they came here."""
        if self._has_minutes and (self.symbols is None or symbol in self.symbols):
            self._note_missed(symbol, MINUTE, start_us, end_us)
            self._wake.set()

    def put_streamed(self, streamed: frozenset[str]) -> None:
        """These symbols are streamed, of all that there are."""
        if self._tells_streamed:
            self._streamed, self._is_streamed_new = streamed, True
            self._wake.set()

    def note_begun(self) -> None:
        """All was put that there was in the beginning; who waits for that is woken once."""
        if self._tells_streamed:
            self._is_begun_new = True
            self._wake.set()

    def forget(self, symbol: str) -> None:
        """Nothing of a symbol is wanted any more."""
        for key in [one for one in self._waiting if one[0] == symbol]:
            del self._waiting[key]
        self.drop(symbol)

    def drop(self, symbol: str) -> None:
        """A symbol is streamed no longer; what waits of it is still told, as it stands now."""
        marks = [key for key, state in self._waiting.items() if state is None and key[0] == symbol]
        for key in marks:
            if (update := self._tell(key, None)) is None:
                del self._waiting[key]
            else:
                self._waiting[key] = update
        for timeframe in self._by_name:
            self._told.pop((symbol, timeframe), None)

    def end(self) -> None:
        """Nothing will come any more."""
        self._is_over = True
        self._wake.set()

    # --- for the reader

    async def next(self, most: int = BATCH_UPDATES) -> Bars | None:
        """Wait until something changed; None once all is told and nothing will come.

        Empty where nothing changed, but the beginning is complete now.
        """
        if self._was_cut:
            await asyncio.sleep(0)  # a backlog of any length must not hold up the rest
        while not (bars := self.take(most)):
            if self._waiting:
                await asyncio.sleep(0)
                continue
            if self._is_over:
                return None
            if self._is_begun_new:
                break
            self._wake.clear()
            await self._wake.wait()
        self._is_begun_new = self._is_begun_new and bool(self._waiting)
        return bars

    def take(self, most: int = BATCH_UPDATES) -> Bars:
        """What changed so far, without waiting; empty where nothing did."""
        self._was_cut = len(self._waiting) > most
        taken = list(islice(self._waiting.items(), most))
        for key, _ in taken:
            del self._waiting[key]
        updates = [told for key, state in taken if (told := self._tell(key, state)) is not None]
        missed = [Missed(*key, *bounds) for key, bounds in self._missed.items()]
        self._missed = {}
        return Bars(updates, missed, self._take_streamed())

    def leave(self) -> None:
        """End it; a reader that waits gets what is left, then None."""
        self._on_leave(self)
        self.end()

    def __enter__(self) -> BarSubscription:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.leave()

    # --- inside

    def _take_streamed(self) -> frozenset[str] | None:
        if not self._is_streamed_new or self._streamed is None:
            return None
        self._is_streamed_new = False
        streamed = self._streamed if self.symbols is None else self._streamed & self.symbols
        if streamed == self._told_streamed:
            return None
        self._told_streamed = streamed
        return streamed

    def _put(self, key: Key, state: CandleUpdate | None) -> None:
        if key in self._waiting:
            self.conflated += 1
        elif len(self._waiting) >= self._max_waiting():
            first = next(iter(self._waiting))
            del self._waiting[first]
            symbol, name, open_time_us = first
            end_us = TIMEFRAMES[name].next_open_us(open_time_us)
            self._note_missed(symbol, name, open_time_us, end_us)
        self._waiting[key] = state
        self._wake.set()

    def _max_waiting(self) -> int:
        symbols = self._symbols_of_all() if self.symbols is None else len(self.symbols)
        return max(BARS_IN_HAND * symbols * len(self._by_name), MIN_WAITING)

    def _note_missed(self, symbol: str, name: str, start_us: int, end_us: int) -> None:
        known = self._missed.get((symbol, name), (start_us, end_us))
        self._missed[symbol, name] = (min(known[0], start_us), max(known[1], end_us))

    def _tell(self, key: Key, state: CandleUpdate | BarUpdate | None) -> BarUpdate | None:
        """The state as it is now; None where the reader knows it."""
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
        told = self._told.setdefault((symbol, name), _Told())
        before = told.bars.get(open_time_us)
        if before is not None:
            if replace(before, is_revision=False) == update:
                return None
            if before.is_closed and before.candle.values != update.candle.values:
                update = replace(update, is_revision=True)
        elif update.is_closed and open_time_us < told.forgotten_until_us:
            update = replace(update, is_revision=True)
        told.note(update)
        return update
