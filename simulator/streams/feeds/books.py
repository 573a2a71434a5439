"""Streams of the order book: book tickers, partial depth, diff depth."""

from collections.abc import Iterator

from simulator.clock import SECOND_US
from simulator.market.book.book import BookTicker, OrderBook
from simulator.market.market import SimulatedMarket
from simulator.streams.feeds.trades import DueFrame
from simulator.streams.hub import Render
from simulator.wire.books import (
    book_ticker_payload,
    depth_update_payload,
    partial_depth_payload,
)

_TICKER_DELAY_US = 1_000
_DEPTH_DELAY_US = 8_000
_ALL_TICKERS_PERIOD_US = 5 * SECOND_US


def book_ticker_feed(book: OrderBook, from_us: int) -> Iterator[DueFrame]:
    """Yield `bookTicker` frames due from `from_us` on: one per order, one per change of levels."""
    begin_us = max(from_us - _TICKER_DELAY_US, book.start_us)
    step = book.step_at(begin_us)
    while (moving := book.next_moving_step(step)) is not None:
        step = moving
        for best in book.best_updates(step):
            due_us = best.time_us + _TICKER_DELAY_US
            if due_us >= from_us:
                yield due_us, _render_best(book, best, due_us)
        step += 1


def depth_feed(book: OrderBook, period_us: int, from_us: int) -> Iterator[DueFrame]:
    """Yield diff depth frames: the changes of each period, none if nothing changed."""
    for step, since in _periods(book, period_us, from_us):
        previous_id, _, last_id = book.update_ids(step, since=since)
        if previous_id < last_id:
            yield step * book.step_us + _DEPTH_DELAY_US, _render_change(book, step, since)


def partial_depth_feed(
    book: OrderBook, levels: int, period_us: int, from_us: int
) -> Iterator[DueFrame]:
    """Yield the best levels after each period in which the book changed."""
    for step, since in _periods(book, period_us, from_us):
        ids = book.update_ids(step, since=since)
        if ids[0] < ids[2]:
            yield step * book.step_us + _DEPTH_DELAY_US, _render_top(book, levels, step, ids)


def all_book_tickers_feed(market: SimulatedMarket, from_us: int) -> Iterator[DueFrame]:
    """Yield USD-M's `!bookTicker`: every 5 s the book tickers of all symbols whose book changed."""
    books = [market.book(symbol) for symbol in market]
    time_us = -(-from_us // _ALL_TICKERS_PERIOD_US) * _ALL_TICKERS_PERIOD_US
    while True:
        changed = [
            book
            for book in books
            if time_us - _ALL_TICKERS_PERIOD_US >= book.start_us
            and book.update_id(book.step_at(time_us - _ALL_TICKERS_PERIOD_US))
            < book.update_id(book.step_at(time_us))
        ]
        if changed:
            yield time_us, _render_all(changed, time_us)
        moves_us = [
            step * book.step_us
            for book in books
            if (step := book.next_moving_step(time_us // book.step_us)) is not None
        ]
        if not moves_us:
            return
        # Skip a pause of all symbols.
        next_us = -(-min(moves_us) // _ALL_TICKERS_PERIOD_US) * _ALL_TICKERS_PERIOD_US
        time_us = max(time_us + _ALL_TICKERS_PERIOD_US, next_us)


def _periods(book: OrderBook, period_us: int, from_us: int) -> Iterator[tuple[int, int]]:
    """Yield steps that end a period, with the step that ended the previous one."""
    steps = period_us // book.step_us
    begin_us = max(from_us - _DEPTH_DELAY_US, book.start_us)
    first = -(-begin_us // period_us) * steps
    if (first - steps) * book.step_us < book.start_us:
        first += steps
    step = first
    # A period in which a pause starts has frames too, otherwise ids would be skipped.
    while (moving := book.next_moving_step(step - steps + 1)) is not None:
        step = max(step, -(-moving // steps) * steps)
        yield step, step - steps
        step += steps


def _render_best(book: OrderBook, best: BookTicker, due_us: int) -> Render:
    return lambda unit_us: [
        book_ticker_payload(book.instrument, best, event_us=due_us, unit_us=unit_us)
    ]


def _render_all(books: list[OrderBook], time_us: int) -> Render:
    return lambda unit_us: [
        book_ticker_payload(
            book.instrument, book.best_at(time_us), event_us=time_us, unit_us=unit_us
        )
        for book in books
    ]


def _render_change(book: OrderBook, step: int, since: int) -> Render:
    def render(unit_us: int) -> list[str]:
        change = book.changes(step, since=since)
        if change is None:
            return []
        event_us = change.time_us + _DEPTH_DELAY_US
        return [depth_update_payload(book.instrument, change, event_us=event_us, unit_us=unit_us)]

    return render


def _render_top(book: OrderBook, levels: int, step: int, ids: tuple[int, int, int]) -> Render:
    def render(unit_us: int) -> list[str]:
        top = book.top(step, levels)
        event_us = top.time_us + _DEPTH_DELAY_US
        return [
            partial_depth_payload(book.instrument, top, ids, event_us=event_us, unit_us=unit_us)
        ]

    return render
