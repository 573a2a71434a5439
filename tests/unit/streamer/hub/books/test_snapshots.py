"""Snapshots are requested at a bounded pace, and again until one can be used."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from include.binance.streams.depth import DepthUpdate
from include.domain.books.order_book import BookSnapshot
from include.errors import PermanentError, TransientError
from streamer.hub.books import snapshots as module
from streamer.hub.books.live_books import LiveBooks
from streamer.hub.books.snapshots import BookSnapshots

AT_MS = 1_723_161_255_208


def books_of(count: int, suffix: str = "") -> LiveBooks:
    books = LiveBooks()
    for number in range(count):
        update = DepthUpdate(AT_MS, "any", 1, 2, [("99", "1")], [("101", "1")])
        books.add(f"S{number}USDT{suffix}", update)
    return books


async def run_until(requests: BookSnapshots, holds: Callable[[], bool]) -> None:
    task = asyncio.create_task(requests.run())
    try:
        async with asyncio.timeout(20):
            while not holds():
                await asyncio.sleep(0.01)
    finally:
        task.cancel()
        await asyncio.wait({task})


async def test_each_book_gets_a_snapshot_and_the_answers_failed_before_do_not_count() -> None:
    books = books_of(3)
    answers: dict[str, list[BookSnapshot | Exception]] = {
        "S0USDT": [BookSnapshot(2, [], [], None, None)],
        "S1USDT": [TransientError("away"), BookSnapshot(3, [], [], None, None)],
        "S2USDT": [BookSnapshot(1, [], [], None, None), BookSnapshot(2, [], [], None, None)],
    }

    def fetch(symbol: str) -> BookSnapshot:
        answer = answers[symbol].pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    requests = BookSnapshots(books, fetch, interval_s=0.01)
    await run_until(requests, lambda: all(one.book for one in books.synced_books))
    assert requests.requested == 5
    assert [one.stale for one in books.synced_books] == [0, 0, 1]


def test_requests_to_a_market_are_spread_after_a_burst() -> None:
    books = books_of(20)
    for one in list(books_of(20, ".P").synced_books):
        books.add(one.symbol, DepthUpdate(AT_MS, "any", 1, 2, [], []))
    requests = BookSnapshots(books, lambda _: BookSnapshot(2, [], [], None, None), burst=3)

    def due(now_s: float) -> int:
        count = 0
        while requests._take_due(now_s) is not None:
            count += 1
        return count

    assert due(100.0) == 6  # three of each market
    assert due(100.0 + module.INTERVAL_S / 2) == 0
    assert due(100.0 + module.INTERVAL_S) == 2
    assert due(100.0 + 60 * module.INTERVAL_S) == 6


async def test_refusal_for_good_is_tried_again_later() -> None:
    books = books_of(1)

    def fetch(_: str) -> BookSnapshot:
        raise PermanentError("unknown symbol")

    requests = BookSnapshots(books, fetch)
    await run_until(requests, lambda: bool(requests._not_before_s))
    (book,) = books.synced_books
    assert book.needs_snapshot
    now_s = asyncio.get_running_loop().time()
    assert requests._take_due(now_s + module.GIVEN_UP_S - 5) is None
    assert requests._take_due(now_s + module.GIVEN_UP_S + 5) is not None
