"""Readers receive the newest book of each symbol, and that a book is unknown."""

from __future__ import annotations

import pytest

from include.binance.streams.depth import DepthUpdate
from include.domain.books.order_book import BookSnapshot
from streamer.hub.books.live_books import LiveBooks
from streamer.hub.trade_hub import FullError

AT_MS = 1_723_161_255_208


def update(first: int, last: int, quantity: str = "1") -> DepthUpdate:
    return DepthUpdate(AT_MS + last, "BTCUSDT", first, last, [("99", quantity)], [("101", "1")])


def synced() -> LiveBooks:
    books = LiveBooks()
    books.add("BTCUSDT", update(1, 2))
    (book,) = books.synced_books
    book.request_sent()
    book.snapshot_received(BookSnapshot(2, [("99", "1")], [("101", "1")], None, None))
    return books


async def test_reader_gets_the_newest_book_however_many_diffs_passed() -> None:
    books = synced()
    with books.subscribe(["BTCUSDT"], levels=5) as subscription:
        first = await subscription.receive()
        for number in range(3, 8):
            books.add("BTCUSDT", update(number, number, str(number)))
        then = await subscription.receive()
    assert first is not None
    assert then is not None
    assert [one.top.last_update_id for one in first.ticks if one.top] == [2]
    (found,) = then.ticks
    assert found.top is not None
    assert (found.top.last_update_id, found.top.bids) == (7, (("99", "7"),))
    assert found.event_us == (AT_MS + 7) * 1000
    assert subscription.conflated == 4


async def test_reader_is_notified_that_a_book_is_unknown() -> None:
    books = synced()
    subscription = books.subscribe(["BTCUSDT", "ETHUSDT"])
    subscription.drain()
    books.add("BTCUSDT", update(9, 9))
    (found,) = subscription.drain().ticks
    assert (found.symbol, found.top) == ("BTCUSDT", None)
    assert books.book("BTCUSDT") is None
    assert books.wanted == {"BTCUSDT", "ETHUSDT"}
    subscription.unsubscribe()
    assert books.wanted == frozenset()


def test_dropped_book_is_unknown() -> None:
    books = synced()
    assert books.book("BTCUSDT") is not None
    assert books.last_update_id("BTCUSDT") == 2
    books.drop("BTCUSDT")
    assert (books.book("BTCUSDT"), books.last_update_id("BTCUSDT")) == (None, None)
    assert books.read("BTCUSDT").top is None


def test_more_symbols_than_books_are_refused() -> None:
    books = LiveBooks(max_books=1)
    books.subscribe(["BTCUSDT"])
    with pytest.raises(FullError, match="order books of 2 symbols"):
        books.subscribe(["ETHUSDT"])
