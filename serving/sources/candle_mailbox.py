"""Minutes received from other processes, until the live bars take them."""

from __future__ import annotations

from dataclasses import replace

from include.domain.timeframes import MINUTE_US
from streamer.hub.mailbox import Mailbox, TimeRange
from streamer.hub.subscription import BATCH_UPDATES, Batch, CandleUpdate, Key

MAX_WAITING = 50_000
"""Minutes that may wait; reads of the past pause long before that."""
MAX_WAITING_PAST = 10_000
"""Minutes that may wait before reads of the past pause."""


class CandleMailbox(Mailbox[Key, CandleUpdate, str, TimeRange]):
    """The newest state of each minute that has changed; ``Changes`` of the live bars.

    Args:
        has_snapshot: False if ``end_snapshot`` will mark the end of the present states.
    """

    def __init__(self, *, max_waiting: int = MAX_WAITING, has_snapshot: bool = True) -> None:
        super().__init__(lambda: max_waiting)
        self._streamed: frozenset[str] | None = None
        """The streamed symbols, if they have changed."""
        self._has_snapshot = has_snapshot

    def publish(self, update: CandleUpdate) -> None:
        """Add a minute's new state; if the mailbox is full, the oldest minute is missed."""
        key = (update.candle.symbol, update.candle.open_time_us)
        before = self._items.get(key)
        if before is not None and before.is_revision and not update.is_revision:
            update = replace(update, is_revision=True)
        self.enqueue(key, update)

    def report_missed_minutes(self, symbol: str, start_us: int, end_us: int) -> None:
        """Report minutes whose states will not come."""
        self.report_missed(symbol, TimeRange(start_us, end_us))

    def report_streamed(self, streamed: frozenset[str]) -> None:
        """Report which symbols are streamed."""
        self._streamed = streamed
        self.wake()

    def end_snapshot(self) -> None:
        """Mark all present states as enqueued."""
        self._has_snapshot = True
        self.wake()

    async def room_for_past(self) -> None:
        """Wait until minutes that were read from the table may be added."""
        await self.room(MAX_WAITING_PAST)

    async def receive(self) -> Batch | None:
        """Wait until something changed; None once closed and empty."""
        if not await self.ready():
            return None
        updates = [update for _, update in self.take(BATCH_UPDATES)]
        streamed, self._streamed = self._streamed, None
        is_cut = self.waiting > 0 or not self._has_snapshot
        return Batch(updates, self.take_missed(), streamed, is_cut=is_cut)

    def _missed_by_eviction(self, key: Key, item: CandleUpdate) -> tuple[str, TimeRange]:
        symbol, open_time_us = key
        return symbol, TimeRange(open_time_us, open_time_us + MINUTE_US)
