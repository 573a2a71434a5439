"""What one reader of the hub is told, at its own pace."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from decimal import Decimal
from itertools import islice
from types import TracebackType
from typing import Protocol

from include.domain.candles import Candle, CandleCandidate, Source, Status
from include.domain.merge import order_key
from include.domain.timeframes import MINUTE_US
from streamer.candles.minutes import Minute

BATCH_UPDATES = 500
"""Most updates of one batch: built in a few milliseconds, in which nothing else moves."""

Key = tuple[str, int]
"""Symbol and open time in µs."""
Ranges = dict[str, tuple[int, int]]
"""Half-open ranges of minutes in µs, by symbol."""


@dataclass(frozen=True, slots=True)
class CandleUpdate:
    """The state of one symbol's minute.

    Attributes:
        is_closed: the minute is over by the exchange's clock.
        status: how sure the candle is; None while it is not settled.
        source: what a settled one rests on.
        is_revision: the reader was told a settled candle with other values before, or may have
            been where the minute is older than the hub remembers.
        has_quotes: False where the quote volumes cannot be folded and await the exchange's word.
    """

    candle: Candle
    is_closed: bool
    status: Status | None = None
    source: Source | None = None
    is_revision: bool = False
    has_quotes: bool = True


@dataclass(frozen=True, slots=True)
class Batch:
    """What changed since the last one, in the order in which it began to wait.

    Attributes:
        missed: minutes whose states had to leave before they were taken.
        streamed: all symbols that are told of, where that is to be told and has changed; None
            otherwise. Updates of others were made before they were dropped.
        is_cut: more was waiting than is told here.
    """

    updates: list[CandleUpdate]
    missed: Ranges
    streamed: frozenset[str] | None = None
    is_cut: bool = False

    def __bool__(self) -> bool:
        return bool(self.updates or self.missed) or self.streamed is not None


Values = tuple[Decimal | int, ...]

FORGOTTEN: Values = ()
"""In place of values that nobody remembers; equal to none."""


class Changes(Protocol):
    """Changes of minutes: a subscription of the hub, or of another process."""

    async def next(self) -> Batch | None:
        """Wait until something changed; None once nothing will."""

    def leave(self) -> None:
        """Want no more."""


@dataclass(frozen=True, slots=True)
class Settled:
    """A settled candle on its way to a reader.

    Attributes:
        before: values of the settled candle that the reader was told before; None for the first.
    """

    offer: CandleCandidate
    before: Values | None = None


@dataclass(slots=True)
class Tally:
    """What became of changes, over all subscriptions.

    Attributes:
        told: updates that readers have taken.
        conflated: changes of a candle whose last change had not been taken yet.
        missed: candles that had to leave before they were taken.
    """

    told: int = 0
    conflated: int = 0
    missed: int = 0


class Subscription:
    """One reader's view of some symbols, or of all. Iterate it, or call ``next``.

    Leaving it (it is a context manager) ends it. ``Hub.subscribe`` makes it.

    Args:
        max_waiting: candles that may wait for the reader.
        has_quotes: whether the quote volumes of a symbol can be folded.
        on_leave: told when the reader wants no more.
        streamed: those of the symbols that are told of at present; None where the reader does not
            want to know.
    """

    def __init__(
        self,
        symbols: frozenset[str] | None,
        *,
        tally: Tally,
        max_waiting: Callable[[], int],
        has_quotes: Callable[[str], bool],
        on_leave: Callable[[Subscription], None],
        streamed: Callable[[], frozenset[str]] | None = None,
    ) -> None:
        self.symbols = symbols
        """None: all, those listed later as well."""
        self._tally = tally
        self._max_waiting = max_waiting
        self._has_quotes = has_quotes
        self._on_leave = on_leave
        self._streamed = streamed
        self._is_streamed_new = streamed is not None
        self._waiting: dict[Key, Minute | Settled] = {}
        self._missed: Ranges = {}
        self._told: dict[str, tuple[int, int]] = {}
        """By symbol: open time and last trade id of the last state told that was not settled."""
        self._wake = asyncio.Event()
        self._is_over = False
        self._was_cut = False

    @property
    def waiting(self) -> int:
        """Candles that changed and were not taken yet."""
        return len(self._waiting)

    async def next(self, most: int = BATCH_UPDATES) -> Batch | None:
        """Wait until something changed.

        Args:
            most: updates of the batch; what is beyond waits for the next.

        Returns:
            The changes; None once the streamer has stopped, or the subscription was left, and
            all is told.
        """
        if self._was_cut:
            await asyncio.sleep(0)  # a backlog of any length must not hold up the streamer
        while not (batch := self.take(most)):
            if self._is_over and not self._waiting:
                return None
            if not self._waiting:
                self._wake.clear()
                await self._wake.wait()
        return batch

    def take(self, most: int = BATCH_UPDATES) -> Batch:
        """What changed so far, without waiting; empty where nothing did."""
        self._was_cut = len(self._waiting) > most
        taken = list(islice(self._waiting.items(), most))
        for key, _ in taken:
            del self._waiting[key]
        updates = [
            update for (symbol, _), state in taken if (update := self._update(symbol, state))
        ]
        missed, self._missed = self._missed, {}
        self._tally.told += len(updates)
        is_new, self._is_streamed_new = self._is_streamed_new, False
        streamed = self._streamed() if is_new and self._streamed is not None else None
        return Batch(updates, missed, streamed, is_cut=self._was_cut)

    def put(self, key: Key, state: Minute | Settled) -> None:
        """A candle has changed."""
        waiting = self._waiting.get(key)
        if waiting is not None:
            self._tally.conflated += 1
            if isinstance(waiting, Settled) and isinstance(state, Settled):
                if order_key(state.offer) <= order_key(waiting.offer):
                    return
                state = Settled(state.offer, waiting.before)
        elif len(self._waiting) >= self._max_waiting():
            self._drop(next(iter(self._waiting)))
        self._waiting[key] = state
        self._wake.set()

    def note_streamed(self) -> None:
        """Symbols are told of that were not, or no longer."""
        if self._streamed is not None:
            self._is_streamed_new = True
            self._wake.set()

    def leave(self) -> None:
        """End the subscription; a reader that waits gets what is left, then None."""
        self._on_leave(self)
        self.end()

    def end(self) -> None:
        """Nothing will come any more."""
        self._is_over = True
        self._wake.set()

    def _drop(self, key: Key) -> None:
        """Forget the candle that has waited longest, and remember that."""
        del self._waiting[key]
        symbol, open_time_us = key
        start_us, end_us = self._missed.get(symbol, (open_time_us, open_time_us))
        self._missed[symbol] = (min(start_us, open_time_us), max(end_us, open_time_us + MINUTE_US))
        self._tally.missed += 1

    def _update(self, symbol: str, state: Minute | Settled) -> CandleUpdate | None:
        """The state as it is now; None where there is nothing to tell."""
        if isinstance(state, Settled):
            offer = state.offer
            return CandleUpdate(
                offer.candle,
                is_closed=True,
                status=offer.status,
                source=offer.source,
                is_revision=state.before not in (None, offer.candle.values),
            )
        candle = state.shown(symbol)
        if candle is None:
            return None
        last_id = -1 if candle.last_trade_id is None else candle.last_trade_id
        told_us, told_id = self._told.get(symbol, (0, -1))
        if told_us == state.open_time_us and last_id < told_id and not state.is_closed:
            return None  # after a cut, until a kline frame has passed what was folded before
        self._told[symbol] = (state.open_time_us, last_id)
        return CandleUpdate(candle, is_closed=state.is_closed, has_quotes=self._has_quotes(symbol))

    async def __aiter__(self) -> AsyncIterator[Batch]:
        while (batch := await self.next()) is not None:
            yield batch

    def __enter__(self) -> Subscription:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.leave()
