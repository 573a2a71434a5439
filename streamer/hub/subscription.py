"""Candle changes for one reader of the hub, at its own pace."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Protocol

from include.domain.candles import Candle, CandleCandidate, Source, Status
from include.domain.merge import order_key
from include.domain.timeframes import MINUTE_US
from streamer.candles.minutes import Minute
from streamer.hub.mailbox import Mailbox, TimeRange

BATCH_UPDATES = 500
"""Maximum updates of one batch; building them blocks the event loop for a few ms."""

Key = tuple[str, int]
"""Symbol and open time in µs."""


@dataclass(frozen=True, slots=True)
class CandleUpdate:
    """The state of one symbol's minute.

    Attributes:
        is_closed: the minute has ended by the exchange's clock.
        status: None while late trades or the closed kline may still change the candle.
        source: None as long as the status.
        is_revision: the reader has received other values with a status before, or may have, if the
            minute is older than the hub remembers.
        has_quotes: False if the quote volumes cannot be aggregated and await the closed kline.
    """

    candle: Candle
    is_closed: bool
    status: Status | None = None
    source: Source | None = None
    is_revision: bool = False
    has_quotes: bool = True


def closed_update(candidate: CandleCandidate, *, is_revision: bool = False) -> CandleUpdate:
    """Return a closed minute as readers receive it."""
    return CandleUpdate(
        candidate.candle,
        is_closed=True,
        status=candidate.status,
        source=candidate.source,
        is_revision=is_revision,
    )


@dataclass(frozen=True, slots=True)
class Batch:
    """Changes since the previous batch, in the order of their publication.

    Attributes:
        missed: minutes whose states were evicted, by symbol.
        streamed: all streamed symbols, if the reader wants them and they have changed; otherwise
            None. Updates of symbols not in it were made before those were dropped.
        is_cut: more changes were waiting than the batch holds.
    """

    updates: list[CandleUpdate]
    missed: Mapping[str, tuple[int, int]]
    streamed: frozenset[str] | None = None
    is_cut: bool = False

    def __bool__(self) -> bool:
        return bool(self.updates or self.missed) or self.streamed is not None


Values = tuple[Decimal | int, ...]

FORGOTTEN: Values = ()
"""Placeholder for values that are no longer remembered; equal to no candle's."""


class Changes(Protocol):
    """Changes of minutes: a subscription of this process's hub, or of another process."""

    async def receive(self) -> Batch | None:
        """Wait until something changes; None after the end."""

    def unsubscribe(self) -> None:
        """Unsubscribe."""


@dataclass(frozen=True, slots=True)
class ClosedCandle:
    """A closed candle to be delivered to a reader.

    Attributes:
        before: values of the closed candle that the reader received before; None for the first.
    """

    candidate: CandleCandidate
    before: Values | None = None


@dataclass(slots=True)
class DeliveryCounts:
    """Totals over all subscriptions.

    Attributes:
        delivered: updates that readers received.
        conflated: changes of a candle whose previous change had not been received yet.
        missed: candles that were evicted before they were received.
    """

    delivered: int = 0
    conflated: int = 0
    missed: int = 0


class Subscription(Mailbox[Key, "Minute | ClosedCandle", str, TimeRange]):
    """Candle changes of some symbols, or of all, for one reader. Iterate it, or call ``receive``.

    ``Hub.subscribe`` creates it.

    Args:
        capacity: candles that may wait for the reader.
        has_quotes: whether the quote volumes of a symbol can be aggregated.
        on_unsubscribe: called when the reader unsubscribes.
        streamed: the subscribed symbols that are streamed now; None if the reader does not want
            them reported.
    """

    def __init__(
        self,
        symbols: frozenset[str] | None,
        *,
        capacity: Callable[[], int],
        has_quotes: Callable[[str], bool],
        on_unsubscribe: Callable[[Subscription], None],
        streamed: Callable[[], frozenset[str]] | None = None,
    ) -> None:
        super().__init__(capacity, on_unsubscribe=on_unsubscribe)
        self.symbols = symbols
        """Subscribed symbols; None for all, including those listed later."""
        self.delivered = 0
        self._has_quotes = has_quotes
        self._streamed = streamed
        self._is_streamed_new = streamed is not None
        if self._is_streamed_new:
            self.wake()
        self._delivered: dict[str, tuple[int, int]] = {}
        """Open time and last trade id of the last open state delivered, by symbol."""

    async def receive(self, limit: int = BATCH_UPDATES) -> Batch | None:
        """Wait until something changes.

        Args:
            limit: maximum updates of the batch; the rest waits for the next.

        Returns:
            The changes; None once everything was received and the streamer has stopped, or the
            reader has unsubscribed.
        """
        while await self.ready():
            if batch := self.drain(limit):
                return batch
        return None

    def drain(self, limit: int = BATCH_UPDATES) -> Batch:
        """Return the changes so far, without waiting; empty if there are none."""
        updates = [
            update
            for (symbol, _), state in self.take(limit)
            if (update := self._update(symbol, state)) is not None
        ]
        self.delivered += len(updates)
        is_new, self._is_streamed_new = self._is_streamed_new, False
        streamed = self._streamed() if is_new and self._streamed is not None else None
        return Batch(updates, self.take_missed(), streamed, is_cut=self.waiting > 0)

    def enqueue_closed(self, key: Key, state: ClosedCandle) -> None:
        """Add a closed candle, unless a more authoritative one waits."""
        waiting = self._items.get(key)
        if isinstance(waiting, ClosedCandle):
            if order_key(state.candidate) <= order_key(waiting.candidate):
                self.conflated += 1
                return
            state = ClosedCandle(state.candidate, waiting.before)
        self.enqueue(key, state)

    def report_streamed(self) -> None:
        """Deliver the streamed symbols to the reader again, because they have changed."""
        if self._streamed is not None:
            self._is_streamed_new = True
            self.wake()

    def _missed_by_eviction(self, key: Key, item: Minute | ClosedCandle) -> tuple[str, TimeRange]:
        symbol, open_time_us = key
        return symbol, TimeRange(open_time_us, open_time_us + MINUTE_US)

    def _update(self, symbol: str, state: Minute | ClosedCandle) -> CandleUpdate | None:
        """Return the current state; None if the reader has received it already."""
        if isinstance(state, ClosedCandle):
            candidate = state.candidate
            return closed_update(
                candidate, is_revision=state.before not in (None, candidate.candle.values)
            )
        candle = state.shown(symbol)
        if candle is None:
            return None
        last_id = -1 if candle.last_trade_id is None else candle.last_trade_id
        before_us, before_id = self._delivered.get(symbol, (0, -1))
        if before_us == state.open_time_us and last_id < before_id and not state.is_closed:
            return None  # after a disconnect, until a kline passes what was aggregated before
        self._delivered[symbol] = (state.open_time_us, last_id)
        return CandleUpdate(candle, is_closed=state.is_closed, has_quotes=self._has_quotes(symbol))

    async def __aiter__(self) -> AsyncIterator[Batch]:
        while (batch := await self.receive()) is not None:
            yield batch
