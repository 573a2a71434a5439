"""The live order books of this process, and their readers.

Who receives diffs (raw capture, or a feed that readers need) passes them on here. Call it from the
event loop's own thread.
"""

from __future__ import annotations

from collections.abc import Iterable

from include.binance.streams.depth import DepthUpdate
from include.binance.streams.messages import microseconds
from include.counts import counted
from include.domain.books.order_book import BookSnapshot, OrderBook
from streamer.hub.books.synced_book import BookDiff, BookEvents, Receipt, SyncedBook
from streamer.hub.ticks import BOOK_LEVELS, BookSubscription, BookUpdate
from streamer.hub.trade_hub import FullError, TickHub

MAX_BOOKS = 500
"""Books that are kept; each takes about a megabyte."""


class LiveBooks(TickHub[BookSubscription]):
    """Keeps a book for each symbol whose diffs arrive, and passes changes to its subscriptions.

    Args:
        max_books: symbols whose books are kept or wanted by readers.

    Attributes:
        recorder: receives snapshots and losses of books, for raw capture; None without it.
    """

    def __init__(self, *, max_books: int = MAX_BOOKS) -> None:
        super().__init__(lambda done: BookSubscription(self.read, done))
        self.recorder: BookEvents | None = None
        self._max_books = max_books
        self._books: dict[str, SyncedBook] = {}

    @property
    def synced_books(self) -> Iterable[SyncedBook]:
        """The books whose diffs arrive, known or not."""
        return self._books.values()

    def book(self, symbol: str) -> OrderBook | None:
        """Return the live book of a symbol; None while it is unknown or its diffs do not arrive.

        The same object changes with each diff: read it at once, or take its ``top``.
        """
        found = self._books.get(symbol)
        return None if found is None else found.book

    def read(self, symbol: str, levels: int = BOOK_LEVELS) -> BookUpdate:
        """Return the best levels of a symbol's book as it is now."""
        found = self._books.get(symbol)
        if found is None or found.book is None:
            return BookUpdate(symbol, 0 if found is None else found.event_us, None)
        return BookUpdate(symbol, found.event_us, found.book.top(levels))

    def subscribe(
        self, symbols: Iterable[str] = (), *, levels: int = BOOK_LEVELS
    ) -> BookSubscription:
        """Subscribe to the books of symbols.

        Raises:
            FullError: more symbols than can be kept.
        """
        subscription = super().subscribe()
        subscription.levels = levels
        self.add_symbols(subscription, symbols)
        return subscription

    # --- for the sources of diffs

    def add(self, symbol: str, update: DepthUpdate) -> Receipt:
        """Handle a diff of a symbol, in the order of arrival."""
        found = self._books.get(symbol)
        if found is None:
            found = self._books[symbol] = SyncedBook(symbol, self)
        return found.add(
            BookDiff(
                update.previous_update_id,
                update.last_update_id,
                microseconds(update.event_time),
                update.bids,
                update.asks,
            )
        )

    def last_update_id(self, symbol: str) -> int | None:
        """Return the id of the last diff of a symbol; None before the first."""
        found = self._books.get(symbol)
        return None if found is None else found.last_seen_id

    def drop(self, symbol: str) -> None:
        """Forget the book of a symbol whose diffs no longer arrive."""
        if self._books.pop(symbol, None) is not None:
            self.book_changed(symbol)

    # --- BookEvents

    def book_lost(self, symbol: str, from_us: int, to_us: int, reason: str) -> None:
        """Pass on that a book is unknown."""
        if self.recorder is not None:
            self.recorder.book_lost(symbol, from_us, to_us, reason)

    def book_snapshot(self, symbol: str, snapshot: BookSnapshot, source: str, at_us: int) -> None:
        """Pass on a snapshot."""
        if self.recorder is not None:
            self.recorder.book_snapshot(symbol, snapshot, source, at_us)

    def book_changed(self, symbol: str) -> None:
        """Notify the subscriptions of a symbol."""
        for subscription in self._by_symbol.get(symbol, ()):
            subscription.publish(symbol)

    # --- inside

    def _make_room(self, count: int, added: frozenset[str]) -> None:
        wanted = len(self._by_symbol) + count
        if wanted > self._max_books:
            raise FullError(
                f"order books of {counted(wanted, 'symbol')} are requested; should be "
                f"{self._max_books} at most"
            )

    def _publish_newest(self, subscription: BookSubscription, symbol: str) -> None:
        subscription.publish(symbol)
