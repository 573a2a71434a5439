"""Streams in a halt, after a delisting, and after a ticker reuse."""

import itertools
import json
from collections.abc import Callable
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

import pytest

from simulator.clock import DAY_US, MINUTE_US, SECOND_US, to_us
from simulator.market.hours.calendar import TradingCalendar
from simulator.market.instruments import MarketName, select_instruments
from simulator.market.market import SimulatedMarket
from simulator.streams.feeds.catalogue import open_feed

Frame = dict[str, Any]
START = to_us(datetime(2026, 2, 1, tzinfo=UTC))
NOON = to_us(datetime(2026, 2, 3, 12, 0, 3, 456_000, tzinfo=UTC))
HALT_US = NOON + 7_130_000
RESUME_US = HALT_US + 40 * SECOND_US + 77_000
BACK_US = NOON // MINUTE_US * MINUTE_US + 5 * MINUTE_US
DEPTHS: list[tuple[MarketName, str]] = [
    ("spot", "depth@100ms"), ("spot", "depth"), ("spot", "depth5@100ms"), ("um", "depth@0ms"),
    ("um", "depth"), ("spot", "bookTicker"), ("um", "bookTicker"),
]  # fmt: skip
ENDING: list[tuple[MarketName, str]] = [
    *DEPTHS,
    *(("spot", kind) for kind in ("trade", "aggTrade", "miniTicker", "ticker", "ticker_1h")),
    *(("um", kind) for kind in ("ticker", "markPrice@1s", "forceOrder")),
]


def changed(
    name: MarketName, change: Callable[[TradingCalendar], TradingCalendar]
) -> SimulatedMarket:
    """Return a market of BTCUSDT whose calendar differs from the halt on."""
    market = SimulatedMarket(select_instruments(name, ["BTCUSDT"], seed=1), seed=1, start_us=START)
    history = market.history("BTCUSDT")
    assert market.book("BTCUSDT").book_at(RESUME_US).update_id > 0  # cached values are invalidated
    history.change(change(history.calendar), from_us=HALT_US)
    return market


def halted(name: MarketName) -> SimulatedMarket:
    return changed(name, lambda calendar: calendar.halted(HALT_US, RESUME_US))


def frames(
    market: SimulatedMarket, name: str, *, until_us: int = NOON + 60 * SECOND_US
) -> list[tuple[int, Any]]:
    feed = open_feed(market, name, NOON, seed=1)
    assert feed is not None
    due = itertools.takewhile(lambda frame: frame[0] < until_us, feed)
    return [(due_us, json.loads(text)) for due_us, render in due for text in render(1_000)]


@pytest.mark.parametrize(("market", "kind"), DEPTHS)
def test_halted_book_is_silent(market: MarketName, kind: str) -> None:
    dues = [due_us for due_us, _ in frames(halted(market), f"btcusdt@{kind}")]
    period_us = SECOND_US + 10_000  # the frame of the period in which the halt started is still due
    assert not [due for due in dues if HALT_US + period_us < due < RESUME_US]
    assert min(dues) < HALT_US
    assert max(dues) > RESUME_US


@pytest.mark.parametrize("kind", ["depth@100ms", "depth"])
def test_spot_ids_have_no_gap_across_a_halt(kind: str) -> None:
    found = [frame for _, frame in frames(halted("spot"), f"btcusdt@{kind}")]
    assert all(later["U"] == earlier["u"] + 1 for earlier, later in pairwise(found))


@pytest.mark.parametrize("kind", ["depth@0ms", "depth", "depth@500ms"])
def test_futures_ids_have_no_gap_across_a_halt(kind: str) -> None:
    found = [frame for _, frame in frames(halted("um"), f"btcusdt@{kind}")]
    assert all(later["pu"] == earlier["u"] for earlier, later in pairwise(found))


@pytest.mark.parametrize("market", ["spot", "um"])
def test_diffs_connect_the_books_before_and_after_a_halt(market: MarketName) -> None:
    book = halted(market).book("BTCUSDT")
    first, last = book.step_at(HALT_US - SECOND_US), book.step_at(RESUME_US + SECOND_US)
    levels = {price: quantity for price, quantity in book.state(first).bids.tolist()}
    for step in range(first + 1, last + 1):
        change = book.changes(step)
        for price, quantity in [] if change is None else change.bids.tolist():
            levels[price] = quantity
            if not quantity:
                del levels[price]
    assert levels == {price: quantity for price, quantity in book.state(last).bids.tolist()}


def test_book_ticker_does_not_change_in_a_halt() -> None:
    book = halted("spot").book("BTCUSDT")
    best = [book.best_at(HALT_US + wait_us)[1:] for wait_us in (200_000, SECOND_US, 39 * SECOND_US)]
    assert best[0] == best[1] == best[2]


@pytest.mark.parametrize(("market", "kind"), ENDING)
def test_streams_of_a_delisted_symbol_end(market: MarketName, kind: str) -> None:
    delisted = changed(market, lambda calendar: calendar.delisted(HALT_US))
    found = frames(delisted, f"btcusdt@{kind}", until_us=NOON + 10 * DAY_US)
    assert not [due for due, _ in found if due > HALT_US + 3 * SECOND_US]


@pytest.mark.parametrize(
    ("market", "name"),
    [
        ("spot", "!miniTicker@arr"), ("um", "!bookTicker"), ("um", "!forceOrder@arr"),
        ("um", "!markPrice@arr@1s"),
    ],
)  # fmt: skip
def test_arrays_end_when_no_symbol_is_left(market: MarketName, name: str) -> None:
    delisted = changed(market, lambda calendar: calendar.delisted(HALT_US))
    found = frames(delisted, name, until_us=NOON + 10 * DAY_US)
    assert not [due for due, _ in found if due > HALT_US + 6 * SECOND_US]


def test_mark_prices_continue_in_a_halt() -> None:
    seconds = [due_us // SECOND_US for due_us, _ in frames(halted("um"), "btcusdt@markPrice@1s")]
    assert {later - earlier for earlier, later in pairwise(seconds)} == {1}


@pytest.mark.parametrize("market", ["spot", "um"])
def test_reused_name_has_the_book_and_statistics_of_the_new_instrument(
    market: MarketName,
) -> None:
    back = changed(market, lambda calendar: calendar.delisted(HALT_US).relisted(BACK_US))
    book, history = back.book("BTCUSDT"), back.history("BTCUSDT")
    before, after = book.best_at(HALT_US), book.best_at(BACK_US + 1)
    assert after.ask * 4 < before.bid * 3  # it starts at most at two thirds of the price
    first = history.minute(BACK_US // MINUTE_US)
    assert abs(int(first.price[0]) - after.ask) * 100 < after.ask
    found = frames(back, "btcusdt@ticker", until_us=BACK_US + 30 * SECOND_US)
    of_new = [frame for due_us, frame in found if due_us > BACK_US + 2 * SECOND_US]
    assert of_new
    assert all(float(frame["h"]) * 4 < float(found[0][1]["c"]) * 3 for frame in of_new)
    assert {frame["F"] for frame in of_new} == {int(first.first_id[0])}


@pytest.mark.parametrize(
    ("market", "name"),
    [("spot", "btcusdt@ticker"), ("spot", "!miniTicker@arr"), ("um", "!bookTicker")],
)
def test_halt_of_years_is_skipped_quickly(
    market: MarketName, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Feeds run in the event loop, so skipping must not take its time."""
    resume_us = HALT_US + 3_000 * DAY_US
    paused = changed(market, lambda calendar: calendar.halted(HALT_US, resume_us))
    asked = 0
    next_open = TradingCalendar.next_open

    def counted(self: TradingCalendar, time_us: int) -> int | None:
        nonlocal asked
        asked += 1
        return next_open(self, time_us)

    monkeypatch.setattr(TradingCalendar, "next_open", counted)
    feed = open_feed(paused, name, HALT_US + MINUTE_US, seed=1)
    assert feed is not None
    due_us, _ = next(feed)
    assert resume_us <= due_us <= resume_us + 10 * SECOND_US
    assert asked < 1_000
