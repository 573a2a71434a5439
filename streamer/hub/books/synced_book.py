"""Keep the order book of one symbol equal to the exchange's.

::

    waits for a snapshot ──request──► buffers diffs ──snapshot──► live
            ▲                                                      │
            └────────────── a diff does not follow ◄───────────────┘

Diffs are buffered from the request on, so that none is missing between the snapshot and the first
diff after it. A snapshot that is older than the diffs (a server behind the stream) is requested
again. A live book whose known levels run out gets a new snapshot, too, and stays live meanwhile.
"""

from __future__ import annotations

from collections import deque
from enum import Enum
from typing import NamedTuple, Protocol

from include.domain.books.order_book import (
    BookSnapshot,
    DiffOutcome,
    LevelText,
    OrderBook,
)
from include.domain.timeframes import MINUTE_US
from include.errors import RejectedInputError

CHECKPOINT_LEVELS = 1_000
"""Levels a side of a checkpoint."""
MIN_KNOWN_LEVELS = 100
"""A side with fewer known levels needs a new snapshot, unless all its levels are known."""
MAX_BUFFERED_DIFFS = 3_000
"""Diffs buffered during a request: five minutes at 100 ms."""
RESTART_AFTER_US = 60_000_000
"""A diff with an old id and a time this much later shows that the ids began again, as where a
ticker passed to another instrument."""


class BookDiff(NamedTuple):
    """One diff: ids, event time and levels; times in µs."""

    previous_update_id: int
    last_update_id: int
    event_us: int
    bids: list[LevelText]
    asks: list[LevelText]


NO_SNAPSHOT = "no snapshot yet"
"""Reason for which a book is unknown although its diffs arrive."""


class Receipt(Enum):
    """What became of a diff that arrived."""

    NEW = "new"
    REPEATED = "repeated"
    REFUSED = "refused"
    """Its content is impossible: a price of zero, or the best bid would not be below the best ask.
    """


class BookEvents(Protocol):
    """Receives what happens to a symbol's book; event times in µs."""

    def book_lost(self, symbol: str, from_us: int, to_us: int, reason: str) -> None:
        """The book is unknown between two event times; a further call continues the range."""

    def book_snapshot(self, symbol: str, snapshot: BookSnapshot, source: str, at_us: int) -> None:
        """From this event time on, the book is this snapshot and the diffs after it."""

    def book_changed(self, symbol: str) -> None:
        """A live book changed, became live, or is not live any more."""


class SyncedBook:
    """The book of one symbol, from its diffs and requested snapshots.

    Attributes:
        book: None while it is unknown.
        event_us: event time of the last diff; 0 before the first.
        last_seen_id: last update id of the stream, also while the book is unknown; None at first
            and after a diff that was refused.
        needs_snapshot: whether a snapshot should be requested.
        breaks: times that a diff did not follow.
        refused: diffs and snapshots with impossible content.
        stale: snapshots that were older than the diffs.
    """

    def __init__(self, symbol: str, events: BookEvents) -> None:
        self.symbol = symbol
        self.book: OrderBook | None = None
        self.event_us = 0
        self.needs_snapshot = True
        self.breaks = 0
        self.refused = 0
        self.stale = 0
        self._events = events
        self.last_seen_id: int | None = None
        self._buffer: deque[BookDiff] | None = None
        """Diffs since a request; None without a request."""
        self._seen_before_request: int | None = None
        self._received: BookSnapshot | None = None
        """A snapshot that is stored with the first diff after it."""
        self._lost_since_us: int | None = None
        """Event time since which the book is unknown and this has not been passed on."""

    @property
    def is_current(self) -> bool:
        """Whether the book is at the stream's last update, not ahead of it."""
        return self.book is not None and self.book.last_update_id == self.last_seen_id

    def add(self, diff: BookDiff) -> Receipt:
        """Handle a diff in the order of arrival."""
        last_seen = self.last_seen_id
        if last_seen is not None and diff.last_update_id <= last_seen:
            if diff.event_us < self.event_us + RESTART_AFTER_US:
                return Receipt.REPEATED
            self._lose(diff.event_us, "the exchange's ids began again")
        elif last_seen is not None and diff.previous_update_id > last_seen:
            self.breaks += 1
            self._lose(diff.event_us, "update ids are missing")
        if diff.event_us // MINUTE_US > self.event_us // MINUTE_US:
            self._begin_minute(diff.event_us - diff.event_us % MINUTE_US)
        if self._buffer is not None:
            if len(self._buffer) >= MAX_BUFFERED_DIFFS:
                self._buffer = None  # the request hangs; its answer will not be used
                self.needs_snapshot = True
            else:
                self._buffer.append(diff)
        if self.book is not None and not self._apply(diff):
            return Receipt.REFUSED
        self.last_seen_id = diff.last_update_id
        self.event_us = diff.event_us
        if self.book is not None:
            self._events.book_changed(self.symbol)
        return Receipt.NEW

    def request_sent(self) -> None:
        """Buffer diffs from now on: a snapshot is being requested."""
        self.needs_snapshot = False
        self._buffer = deque()
        self._seen_before_request = self.last_seen_id

    def request_failed(self) -> None:
        """Stop buffering: the snapshot is to be requested again."""
        self._buffer = None
        self.needs_snapshot = True

    def snapshot_received(self, snapshot: BookSnapshot) -> bool:
        """Continue from the answer to the request.

        Returns:
            False if it cannot be used; it is to be requested again.
        """
        buffer, self._buffer = self._buffer, None
        if buffer is None:
            return False  # the stream broke meanwhile
        seen = self._seen_before_request
        if seen is not None and snapshot.last_update_id < seen:
            self.stale += 1
            self.needs_snapshot = True
            return False
        try:
            book = OrderBook(snapshot)
            first_us = _replay(book, buffer)
        except RejectedInputError:
            self.refused += 1
            self.needs_snapshot = True
            return False
        if first_us is None:
            self.stale += 1
            self.needs_snapshot = True
            return False
        self.book = book
        self._received = snapshot
        if first_us:
            self._store_received(first_us)
        self._events.book_changed(self.symbol)
        return True

    # --- inside

    def _apply(self, diff: BookDiff) -> bool:
        """Apply a diff to the live book; False if it was refused."""
        assert self.book is not None  # noqa: S101 - by the caller
        try:
            outcome = self.book.apply(
                diff.previous_update_id, diff.last_update_id, diff.bids, diff.asks
            )
        except RejectedInputError:
            self.refused += 1
            self._lose(diff.event_us, "a diff was refused")
            return False
        if outcome is DiffOutcome.APPLIED:
            if self._received is not None:
                self._store_received(diff.event_us)
        elif outcome is DiffOutcome.BREAK:  # the snapshot was older than the stream
            self.stale += 1
            self._lose(diff.event_us, "the snapshot was older than the stream")
        return True

    def _store_received(self, at_us: int) -> None:
        """Pass the snapshot on, with the event time of the first diff after it.

        Before that diff the stream's book is older than the snapshot.
        """
        snapshot, self._received = self._received, None
        if snapshot is not None:
            self._events.book_snapshot(self.symbol, snapshot, "rest", at_us)
        self._pass_loss(at_us, NO_SNAPSHOT)
        self._lost_since_us = None

    def _begin_minute(self, at_us: int) -> None:
        """Pass the book on, as it is at the start of a minute, or that it is not known."""
        self._pass_loss(at_us, NO_SNAPSHOT)
        if self.book is None or not self.is_current:
            return  # ahead of the stream: not the book of this minute
        snapshot = self.book.snapshot(CHECKPOINT_LEVELS)
        self._events.book_snapshot(self.symbol, snapshot, "checkpoint", at_us)
        is_short = (
            known < MIN_KNOWN_LEVELS and not is_whole
            for known, is_whole in zip(self.book.known_levels, self.book.is_whole, strict=True)
        )
        if any(is_short) and self._buffer is None:
            self.needs_snapshot = True

    def _lose(self, to_us: int, reason: str) -> None:
        """Drop the book: it is unknown since the last diff."""
        had_book = self.book is not None
        if had_book and self._lost_since_us is None:
            self._lost_since_us = self.event_us
        self._pass_loss(to_us, reason)
        self.book = self._received = self._buffer = self.last_seen_id = None
        self.needs_snapshot = True
        if had_book:
            self._events.book_changed(self.symbol)

    def _pass_loss(self, to_us: int, reason: str) -> None:
        since_us = self._lost_since_us
        if since_us is not None and since_us < to_us:
            self._events.book_lost(self.symbol, since_us, to_us, reason)
            self._lost_since_us = to_us


def _replay(book: OrderBook, diffs: deque[BookDiff]) -> int | None:
    """Apply buffered diffs; return the event time of the first one applied, 0 if none was.

    Returns:
        None if a diff does not follow.
    """
    first_us = 0
    for diff in diffs:
        outcome = book.apply(diff.previous_update_id, diff.last_update_id, diff.bids, diff.asks)
        if outcome is DiffOutcome.BREAK:
            return None
        if outcome is DiffOutcome.APPLIED:
            first_us = first_us or diff.event_us
    return first_us
