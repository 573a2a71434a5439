"""Streams of rolling statistics: a frame in every second in which a symbol changed."""

from collections.abc import Callable, Iterator

import numpy as np

from simulator.clock import DAY_US, MINUTE_US, SECOND_US
from simulator.market.book.book import OrderBook
from simulator.market.history import History
from simulator.market.market import SimulatedMarket
from simulator.market.noise import derive_key
from simulator.market.rolling import (
    AVERAGE_PRICE_MINUTES,
    WindowStats,
    last_trade,
    window_stats,
)
from simulator.streams.feeds.trades import DueFrame
from simulator.streams.hub import Render
from simulator.wire.payloads import US_PER_MS
from simulator.wire.tickers import (
    average_price_payload,
    mini_ticker_payload,
    ticker_payload,
    window_ticker_payload,
)

WINDOWS_US = {"1h": 60 * MINUTE_US, "4h": 240 * MINUTE_US, "1d": DAY_US}
_ALL_PHASE_US = 137_000

# (close of the window, unit of time) -> payload
_Payload = Callable[[int, int], str]


def mini_ticker_feed(history: History, from_us: int) -> Iterator[DueFrame]:
    """Yield `miniTicker` frames due from `from_us` on."""
    return _after_orders(history, from_us, mini_ticker_of(history))


def ticker_feed(history: History, book: OrderBook, from_us: int) -> Iterator[DueFrame]:
    """Yield `ticker` frames due from `from_us` on; on spot also if only the book changed."""
    payload = ticker_of(history, book)
    if history.instrument.market != "spot":
        return _after_orders(history, from_us, payload)
    return _after_book_turns(history, book, from_us, payload)


def window_ticker_feed(history: History, window: str, from_us: int) -> Iterator[DueFrame]:
    """Yield `ticker_1h`, `ticker_4h` or `ticker_1d` frames due from `from_us` on."""
    return _after_orders(history, from_us, window_ticker_of(history, window))


def average_price_feed(history: History, from_us: int) -> Iterator[DueFrame]:
    """Yield `avgPrice` frames due from `from_us` on."""

    def payload(close_us: int, unit_us: int) -> str:
        stats = window_stats(history, close_us - AVERAGE_PRICE_MINUTES * MINUTE_US, close_us)
        last = last_trade(history, close_us)
        return average_price_payload(history, stats, last, event_us=close_us, unit_us=unit_us)

    return _after_orders(history, from_us, payload)


def all_tickers_feed(
    market: SimulatedMarket, payload_of: Callable[[History], _Payload], from_us: int
) -> Iterator[DueFrame]:
    """Yield arrays of the payloads of all symbols with a trade in each second."""
    members = [(market.history(symbol), payload_of(market.history(symbol))) for symbol in market]
    number = -(-(from_us - _ALL_PHASE_US) // SECOND_US)
    while True:
        close_us = number * SECOND_US + _ALL_PHASE_US
        changed = [
            payload
            for history, payload in members
            if history.has_order(close_us - SECOND_US + 1, close_us)
        ]
        if changed:
            yield close_us, _render_array(changed, close_us)
            number += 1
            continue
        opens_us = _next_open([history for history, _ in members], close_us)
        if opens_us is None:
            return
        number = max(number + 1, -(-(opens_us - _ALL_PHASE_US) // SECOND_US))


def _render_array(payloads: list[_Payload], close_us: int) -> Render:
    def render(unit_us: int) -> list[str]:
        return [f"[{','.join(payload(close_us, unit_us) for payload in payloads)}]"]

    return render


def _render(payload: _Payload, close_us: int) -> Render:
    return lambda unit_us: [payload(close_us, unit_us)]


def mini_ticker_of(history: History) -> _Payload:
    """Return a function of a symbol's `24hrMiniTicker` payload at a time."""
    return lambda close_us, unit_us: mini_ticker_payload(
        history, _last_day(history, close_us), event_us=close_us, unit_us=unit_us
    )


def ticker_of(history: History, book: OrderBook) -> _Payload:
    """Return a function of a symbol's `24hrTicker` payload at a time."""
    return lambda close_us, unit_us: ticker_payload(
        history,
        _last_day(history, close_us),
        last_trade(history, close_us),
        book.best_at(close_us),
        event_us=close_us,
        unit_us=unit_us,
    )


def window_ticker_of(history: History, window: str) -> _Payload:
    """Return a function of a window ticker's payload; the window opens on a minute."""

    def payload(close_us: int, unit_us: int) -> str:
        open_us = (close_us - WINDOWS_US[window]) // MINUTE_US * MINUTE_US
        stats = window_stats(history, open_us, close_us)
        return window_ticker_payload(history, stats, window, event_us=close_us, unit_us=unit_us)

    return payload


def _last_day(history: History, close_us: int) -> WindowStats:
    return window_stats(history, close_us - DAY_US, close_us)


def _phase_us(history: History) -> int:
    """Return when in a second a symbol's statistics are due, on the millisecond."""
    instrument = history.instrument
    key = derive_key(0, instrument.market, instrument.symbol, "tickers")
    return key % (SECOND_US // US_PER_MS) * US_PER_MS


def _next_open(histories: list[History], time_us: int) -> int | None:
    """Return when the first of the symbols trades, from a time on; None if all have ended."""
    opens_us = [history.calendar.next_open(time_us) for history in histories]
    return min((open_us for open_us in opens_us if open_us is not None), default=None)


def _after_orders(history: History, from_us: int, payload: _Payload) -> Iterator[DueFrame]:
    """Yield a frame at the end of each of the symbol's seconds that has an order."""
    phase_us = _phase_us(history)
    sent_us = from_us - 1
    minute = max(history.start_minute, (from_us - SECOND_US) // MINUTE_US)
    while (traded := history.next_traded_minute(minute)) is not None:
        times_us = history.minute(traded).time_us
        ends_us = np.unique(-(-(times_us - phase_us) // SECOND_US) * SECOND_US + phase_us)
        for close_us in ends_us.tolist():
            if close_us > sent_us:
                sent_us = close_us
                yield close_us, _render(payload, close_us)
        minute = traded + 1


def _after_book_turns(
    history: History, book: OrderBook, from_us: int, payload: _Payload
) -> Iterator[DueFrame]:
    """Yield a frame at the end of each second in which the book changed."""
    phase_us = _phase_us(history)
    number = -(-(max(from_us, history.start_us + SECOND_US) - phase_us) // SECOND_US)
    # Skip a pause: the book does not change in it.
    while (open_us := _next_open([history], (number - 1) * SECOND_US + phase_us)) is not None:
        number = max(number, -(-(open_us - phase_us) // SECOND_US))
        close_us = number * SECOND_US + phase_us
        before = book.update_id(book.step_at(close_us - SECOND_US))
        if before < book.update_id(book.step_at(close_us)):
            yield close_us, _render(payload, close_us)
        number += 1
