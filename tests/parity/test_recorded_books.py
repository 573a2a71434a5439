"""Order books rebuilt from recorded frames, against the exchange's own best bid and ask."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from pathlib import Path

import pytest

from include.binance.rest.depth import DEPTH_ANSWER, book_snapshot_of
from include.binance.streams.book_tickers import BookTicker
from include.binance.streams.depth import DepthUpdate, decode_book_frame
from include.domain.books.order_book import (
    BookSnapshot,
    DiffOutcome,
    LevelText,
    OrderBook,
    price_units,
)

pytestmark = pytest.mark.recorded

SNAPSHOT_LEVELS = 1_000


def frames(files: list[Path]) -> Iterator[BookSnapshot | DepthUpdate | BookTicker]:
    """Yield the frames of some files, and the REST answers among them."""
    for file in files:
        with gzip.open(file, "rb") as lines:
            for line in lines:
                text = line.split(b" ", 1)[1].strip()
                if b'"stream"' not in text[:20]:
                    answer = DEPTH_ANSWER.decode(text)
                    yield book_snapshot_of(answer, symbol="", limit=SNAPSHOT_LEVELS)
                    continue
                frame = decode_book_frame(text)
                if isinstance(frame, DepthUpdate | BookTicker):
                    yield frame


def same(level: LevelText | None, price: str, quantity: str) -> bool:
    return level is not None and (price_units(level[0]), price_units(level[1])) == (
        price_units(price),
        price_units(quantity),
    )


@pytest.mark.parametrize(
    ("folder", "diffs", "tickers"),
    [
        ("ws-spot-20240808", 6_493, 1_072),
        ("ws-usdm-vs-klines-20240808", 6_547, 629),
        ("ws-usdm-markprice-20230404", 16_110, 1_565),
        ("ws-coinm-20240808", 44_772, 1_885),
    ],
)
def test_rebuilt_book_equals_each_recorded_book_ticker(
    recorded_data: Path, folder: str, diffs: int, tickers: int
) -> None:
    """At every update id that both have; no diff is missing, and the book never crosses."""
    files = sorted((recorded_data / folder).glob("btcusd*.gz"))
    best: dict[int, BookTicker] = {}
    tops: dict[int, tuple[LevelText | None, LevelText | None]] = {}
    waiting: list[DepthUpdate] = []
    book: OrderBook | None = None
    outcomes = dict.fromkeys(DiffOutcome, 0)

    def apply(update: DepthUpdate) -> None:
        assert book is not None
        outcome = book.apply(
            update.previous_update_id, update.last_update_id, update.bids, update.asks
        )
        outcomes[outcome] += 1
        if outcome is DiffOutcome.APPLIED:
            tops[update.last_update_id] = (book.best_bid, book.best_ask)

    for frame in frames(files):
        if isinstance(frame, BookTicker):
            best[frame.update_id] = frame
        elif isinstance(frame, BookSnapshot):
            if book is None:
                book = OrderBook(frame)
                for update in waiting:
                    apply(update)
        elif book is None:
            waiting.append(frame)
        else:
            apply(frame)

    both = sorted(best.keys() & tops.keys())
    different = [
        number
        for number in both
        if not (
            same(tops[number][0], best[number].bid_price, best[number].bid_quantity)
            and same(tops[number][1], best[number].ask_price, best[number].ask_quantity)
        )
    ]
    assert outcomes[DiffOutcome.BREAK] == 0
    assert different == []
    assert (outcomes[DiffOutcome.APPLIED], len(both)) == (diffs, tickers)
