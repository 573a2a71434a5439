"""The order book: snapshots, diffs and book tickers, in any order of queries."""

import functools
from datetime import UTC, datetime
from itertools import pairwise

import numpy as np
import pytest

from simulator.clock import MINUTE_US, to_us
from simulator.market.book.book import BookSnapshot, OrderBook
from simulator.market.history import History
from simulator.market.instruments import MarketName, select_instruments
from simulator.market.market import SimulatedMarket
from simulator.market.noise import IntArray

START = to_us(datetime(2026, 2, 1, tzinfo=UTC))
NOON = to_us(datetime(2026, 2, 3, 11, 59, 58, tzinfo=UTC))
SYMBOLS: tuple[tuple[MarketName, str], ...] = (
    ("spot", "BTCUSDT"), ("spot", "PEPEUSDT"), ("spot", "COSUSDT"), ("spot", "BIFIUSDT"),
    ("um", "BTCUSDT"), ("um", "KEEPUSDT"),
)  # fmt: skip
each_symbol = pytest.mark.parametrize(("market", "symbol"), SYMBOLS)


@functools.cache
def history_of(market: MarketName, symbol: str) -> History:
    listed = select_instruments(market, [symbol], seed=1)
    return SimulatedMarket(listed, seed=1, start_us=START).history(symbol)


def book_of(market: MarketName, symbol: str) -> OrderBook:
    """Return a new book without cached values."""
    return OrderBook(history_of(market, symbol), seed=1)


def applied(levels: IntArray, changed: IntArray) -> dict[int, int]:
    """Apply a diff to a map of price to quantity, as a client does."""
    book = {price: quantity for price, quantity in levels.tolist()}
    for price, quantity in changed.tolist():
        if quantity:
            book[price] = quantity
        else:
            del book[price]  # only existing levels are removed
    return book


def as_dict(levels: IntArray) -> dict[int, int]:
    return {price: quantity for price, quantity in levels.tolist()}


def is_same(first: BookSnapshot, second: BookSnapshot) -> bool:
    return (
        first.update_id == second.update_id
        and np.array_equal(first.bids, second.bids)
        and np.array_equal(first.asks, second.asks)
    )


@each_symbol
def test_levels_are_sorted_unique_positive_and_do_not_cross(
    market: MarketName, symbol: str
) -> None:
    book = book_of(market, symbol)
    instrument = book.instrument
    for hours in range(0, 40, 7):
        state = book.book_at(NOON - hours * 60 * MINUTE_US)
        assert (np.diff(state.bids[:, 0]) < 0).all()
        assert (np.diff(state.asks[:, 0]) > 0).all()
        assert state.bids[-1, 0] > 0
        assert state.bids[0, 0] < state.asks[0, 0]
        for side in (state.bids, state.asks):
            assert len(side) > 500
            assert (side[:, 1] > 0).all()
            assert (side[:, 0] % instrument.tick == 0).all()
            assert (side[:, 1] % instrument.step == 0).all()


def test_busy_listing_has_thousands_of_levels() -> None:
    state = book_of("spot", "BTCUSDT").book_at(NOON)
    assert min(len(state.bids), len(state.asks)) > 2_000


@each_symbol
def test_last_price_is_the_best_bid_or_the_best_ask(market: MarketName, symbol: str) -> None:
    book, history = book_of(market, symbol), history_of(market, symbol)
    for number in range(12):
        time_us = NOON + number * 7_310_000
        state = book.book_at(time_us)
        agg_id = history.agg_id_from(state.time_us + 1)
        last = history.orders_by_id(agg_id - 1, agg_id)
        place = state.bids if last.buyer_is_maker[0] else state.asks
        assert int(last.price[0]) == int(place[0, 0])


@each_symbol
def test_changes_applied_to_a_state_give_the_next_one(market: MarketName, symbol: str) -> None:
    book = book_of(market, symbol)
    first = book.step_at(NOON)
    before = book.state(first)
    changed_steps = 0
    is_busy = book.instrument.orders_per_day >= 5_000
    for step in range(first + 1, first + (50 if is_busy else 120)):
        after = book.state(step)
        change = book.changes(step)
        if change is None:
            assert after.update_id == before.update_id
            assert is_same(after, before)
        else:
            changed_steps += 1
            assert change.previous_update_id == before.update_id
            assert change.previous_update_id < change.first_update_id <= change.last_update_id
            assert change.last_update_id == after.update_id
            assert applied(before.bids, change.bids) == as_dict(after.bids)
            assert applied(before.asks, change.asks) == as_dict(after.asks)
        before = after
    assert changed_steps >= 2


def test_update_ids_of_spot_are_contiguous_and_those_of_futures_skip() -> None:
    spot, um = book_of("spot", "BTCUSDT"), book_of("um", "BTCUSDT")
    first = spot.step_at(NOON)
    chain = [change for step in range(first, first + 50) if (change := spot.changes(step))]
    assert all(b.first_update_id == a.last_update_id + 1 for a, b in pairwise(chain))
    first = um.step_at(NOON)
    chain = [change for step in range(first, first + 50) if (change := um.changes(step))]
    assert all(b.previous_update_id == a.last_update_id for a, b in pairwise(chain))
    assert any(b.first_update_id > a.last_update_id + 1 for a, b in pairwise(chain))


@each_symbol
def test_diff_over_several_steps_equals_single_diffs(market: MarketName, symbol: str) -> None:
    book = book_of(market, symbol)
    begin = book.step_at(NOON)
    end = begin + 50
    change = book.changes(end, since=begin)
    assert change is not None
    before, after = book.state(begin), book.state(end)
    assert applied(before.bids, change.bids) == as_dict(after.bids)
    assert applied(before.asks, change.asks) == as_dict(after.asks)
    singles = [single for step in range(begin + 1, end + 1) if (single := book.changes(step))]
    assert change.first_update_id == singles[0].first_update_id
    assert change.last_update_id == singles[-1].last_update_id


@each_symbol
def test_book_does_not_depend_on_the_order_of_requests(market: MarketName, symbol: str) -> None:
    forward, backward = book_of(market, symbol), book_of(market, symbol)
    steps = [forward.step_at(NOON) + number * 37 for number in range(12)]
    states = [forward.state(step) for step in steps]
    for step, state in reversed(list(zip(steps, states, strict=True))):
        assert is_same(backward.state(step), state)


@each_symbol
def test_top_is_the_start_of_all_levels(market: MarketName, symbol: str) -> None:
    book = book_of(market, symbol)
    for number in range(10):
        step = book.step_at(NOON) + number * 211
        for levels in (1, 5, 20, 300):
            top, state = book.top(step, levels), book.state(step)
            assert top.update_id == state.update_id
            assert np.array_equal(top.bids, state.bids[:levels])
            assert np.array_equal(top.asks, state.asks[:levels])


@each_symbol
def test_book_tickers_ascend_in_time_and_id_and_end_in_the_step(
    market: MarketName, symbol: str
) -> None:
    book, history = book_of(market, symbol), history_of(market, symbol)
    first = book.step_at(NOON)
    updates = []
    for step in range(first, first + 600):
        within = list(book.best_updates(step))
        if within:
            state = book.state(step) if step % 50 == 0 else book.top(step, 1)
            last = within[-1]
            assert last.update_id == state.update_id
            assert (last.bid, last.ask) == (state.bids[0, 0], state.asks[0, 0])
            if last.time_us == step * book.step_us and book.changes(step) is not None:
                assert [last.bid, last.bid_quantity] == state.bids[0].tolist()
                assert [last.ask, last.ask_quantity] == state.asks[0].tolist()
        updates += within
    assert all(a.update_id < b.update_id and a.time_us <= b.time_us for a, b in pairwise(updates))
    assert all(update.bid < update.ask for update in updates)
    begin = history.agg_id_from((first - 1) * book.step_us + 1)
    end = history.agg_id_from((first + 599) * book.step_us + 1)
    by_orders = [update for update in updates if update.time_us % book.step_us]
    assert len(by_orders) <= end - begin <= len(updates)


@each_symbol
def test_book_ticker_includes_orders_up_to_its_time(market: MarketName, symbol: str) -> None:
    book, history = book_of(market, symbol), history_of(market, symbol)
    for agg_id in range(history.agg_id_from(NOON), history.agg_id_from(NOON) + 5):
        order = history.orders_by_id(agg_id, agg_id + 1)
        best = book.best_at(int(order.time_us[0]))
        shares = history.agg_id_from(int(order.time_us[0]) + 1) - 1 > agg_id
        if not shares:  # no later order has the same time
            assert int(order.price[0]) == (best.bid if order.buyer_is_maker[0] else best.ask)


@each_symbol
def test_step_is_found_by_an_update_id(market: MarketName, symbol: str) -> None:
    book = book_of(market, symbol)
    step = book.step_at(NOON)
    while book.update_id(step) == book.update_id(step - 1):
        step += 1
    assert book.step_of(book.update_id(step)) == step
    assert book.step_of(book.update_id(step) + 1) > step
    assert book.step_of(book.update_id(step - 1) + 1) == step


def test_before_the_listing_there_is_no_book() -> None:
    book = book_of("spot", "BTCUSDT")
    assert book.book_at(START).update_id > 0
    with pytest.raises(ValueError, match="BTCUSDT is not listed at"):
        book.book_at(START - 1)
