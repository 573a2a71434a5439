"""Bounded queue of one subscriber, in which a newer state of a key replaces an older one.

A subscriber that is slower than the market receives the newest state of each key instead of a queue
of old ones, and is notified of the ranges that were evicted. Pure asyncio, no threads: call it from
the event loop's own thread.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Hashable
from itertools import islice
from types import TracebackType
from typing import Any, Generic, NamedTuple, Protocol, Self, TypeVar


class Missed(Protocol):
    """Items that a subscriber did not receive; missed items of one topic are joined."""

    def union(self, other: Any, /) -> Self:
        """Cover both."""


class TimeRange(NamedTuple):
    """A half-open range of time in µs."""

    start_us: int
    end_us: int

    def union(self, other: tuple[int, int], /) -> TimeRange:
        """Cover both, and everything between them."""
        return TimeRange(min(self[0], other[0]), max(self[1], other[1]))


Key = TypeVar("Key", bound=Hashable)
Item = TypeVar("Item")
Topic = TypeVar("Topic", bound=Hashable)
"""Key by which missed items are grouped, such as a symbol."""
MissedT = TypeVar("MissedT", bound=Missed)


class Mailbox(Generic[Key, Item, Topic, MissedT]):
    """Items that wait for one subscriber, in the order in which their keys were first enqueued.

    Subclasses define the items. Leaving the context unsubscribes.

    Attributes:
        conflated: number of items that newer ones of the same key replaced before delivery.
        evicted: number of items dropped because the mailbox was full.

    Args:
        capacity: items that may wait; may change between calls. None: unbounded, for bounded sets
            of keys.
        on_unsubscribe: called with the mailbox when its subscriber unsubscribes.
    """

    def __init__(
        self,
        capacity: Callable[[], int] | None,
        *,
        on_unsubscribe: Callable[[Any], None] | None = None,
    ) -> None:
        self.conflated = 0
        self.evicted = 0
        self._capacity = capacity
        self._on_unsubscribe = on_unsubscribe
        self._items: dict[Key, Item] = {}
        self._missed: dict[Topic, MissedT] = {}
        self._oldest: deque[Key] = deque()
        """Keys in order, so that a run of evictions does not search the dict each time."""
        self._changed = asyncio.Event()
        self._taken = asyncio.Event()
        self._is_signalled = False
        self._is_closed = False
        self._has_more = False

    @property
    def waiting(self) -> int:
        """Number of waiting items."""
        return len(self._items)

    # --- for the publisher

    def enqueue(self, key: Key, item: Item) -> None:
        """Add an item; it replaces a waiting one of its key, in the same place."""
        items = self._items
        if key in items:
            self.conflated += 1
        elif self._capacity is not None and len(items) >= self._capacity():
            self._evict_oldest()
        items[key] = item
        self._changed.set()

    def report_missed(self, topic: Topic, missed: MissedT) -> None:
        """Add to the items that the subscriber did not receive."""
        known = self._missed.get(topic)
        self._missed[topic] = missed if known is None else known.union(missed)
        self._changed.set()

    def discard(self, is_unwanted: Callable[[Key], bool]) -> None:
        """Remove waiting items by their keys."""
        for key in [one for one in self._items if is_unwanted(one)]:
            del self._items[key]
        self._oldest.clear()

    def wake(self) -> None:
        """Wake the subscriber although no item arrived."""
        self._is_signalled = True
        self._changed.set()

    def close(self) -> None:
        """End the subscription; the subscriber still receives waiting items, then the end."""
        self._is_closed = True
        self._changed.set()
        self._taken.set()

    async def room(self, below: int) -> None:
        """Wait until fewer items wait, or the mailbox is closed."""
        while len(self._items) >= below and not self._is_closed:
            self._taken.clear()
            await self._taken.wait()

    # --- for the subscriber

    async def ready(self) -> bool:
        """Wait for items, missed ranges or a wake-up; False once closed and empty.

        After a batch that did not empty the mailbox, other tasks run first: a backlog of any length
        must not block the event loop.
        """
        if self._has_more:
            await asyncio.sleep(0)
        while not (self._items or self._missed or self._is_signalled):
            if self._is_closed:
                return False
            self._changed.clear()
            await self._changed.wait()
        return True

    async def changed(self) -> None:
        """Wait until the publisher does anything."""
        self._changed.clear()
        await self._changed.wait()

    def take(self, limit: int) -> list[tuple[Key, Item]]:
        """Remove and return the oldest items, without waiting."""
        items = self._items
        self._oldest.clear()
        self._is_signalled = False
        self._has_more = len(items) > limit
        if self._has_more:
            oldest = list(islice(items.items(), limit))
            for key, _ in oldest:
                del items[key]
        else:
            oldest = list(items.items())
            items.clear()
        self._taken.set()
        return oldest

    def take_missed(self) -> dict[Topic, MissedT]:
        """Remove and return the missed items, by topic."""
        missed, self._missed = self._missed, {}
        return missed

    def unsubscribe(self) -> None:
        """Unsubscribe; a pending receive gets the waiting items, then the end."""
        if self._on_unsubscribe is not None:
            self._on_unsubscribe(self)
        self.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.unsubscribe()

    # --- inside

    def _evict_oldest(self) -> None:
        if not self._oldest:
            self._oldest.extend(self._items)
        key = self._oldest.popleft()
        self.evicted += 1
        self.report_missed(*self._missed_by_eviction(key, self._items.pop(key)))

    def _missed_by_eviction(self, key: Key, item: Item) -> tuple[Topic, MissedT]:
        """Return what the subscriber misses when an item is evicted."""
        raise NotImplementedError
