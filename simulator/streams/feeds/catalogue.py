"""Finds the frames of a stream by its name."""

import functools
import re
from collections.abc import Iterator

from simulator.clock import SECOND_US
from simulator.market.derivatives.series import DerivativeSeries
from simulator.market.history import History
from simulator.market.intervals import SPOT_INTERVALS, UM_INTERVALS, parse_interval
from simulator.market.market import SimulatedMarket
from simulator.streams.feeds.books import (
    all_book_tickers_feed,
    book_ticker_feed,
    depth_feed,
    partial_depth_feed,
)
from simulator.streams.feeds.contracts import contract_info_feed, open_continuous_klines
from simulator.streams.feeds.derivatives import (
    all_force_orders_feed,
    all_mark_prices_feed,
    force_order_feed,
    mark_price_feed,
)
from simulator.streams.feeds.prices import open_coin_prices
from simulator.streams.feeds.tickers import (
    all_tickers_feed,
    average_price_feed,
    mini_ticker_feed,
    mini_ticker_of,
    ticker_feed,
    ticker_of,
    window_ticker_feed,
    window_ticker_of,
)
from simulator.streams.feeds.trades import DueFrame, agg_trade_feed, kline_feed, trade_feed

_US_PER_MS = 1_000
_DEPTH = re.compile(r"depth(5|10|20)?(?:@(\d+)ms)?\Z")
_WINDOW_TICKER = re.compile(r"ticker_(1h|4h|1d)\Z")
# Periods of the depth streams in ms; the first is the default. USD-M's 0 ms
# means real time, which is every step of its book.
_DEPTH_PERIODS = {"spot": (1_000, 100), "um": (250, 500, 100, 0), "cm": (250, 500, 100, 0)}
_MARK_PERIODS = {"": 3 * SECOND_US, "@1s": SECOND_US}


def open_feed(
    market: SimulatedMarket, name: str, from_us: int, *, seed: int
) -> Iterator[DueFrame] | None:
    """Return the feed of a stream by name, e.g. `btcusdt@kline_1m`; None for an unknown stream."""
    if name.startswith("!"):
        return _open_feed_of_all(market, name, from_us, seed)
    lower, _, kind = name.partition("@")
    if kind.startswith("continuousKline_"):
        return open_continuous_klines(market, lower, kind, from_us, seed=seed)
    symbol = lower.upper()
    if lower != lower.lower():
        return None
    if _is_coin(market):
        found = open_coin_prices(market, symbol, kind, max(from_us, market.start_us), seed=seed)
        if found is not None:
            return found
    if symbol not in market:
        return None
    history = market.history(symbol)
    from_us = max(from_us, history.start_us)
    if kind == "aggTrade":
        return agg_trade_feed(history, from_us)
    if kind == "trade":
        return trade_feed(history, from_us)
    if kind.startswith("kline_"):
        return _open_klines(market, history, kind, from_us, seed)
    if kind.startswith(("depth", "bookTicker")):
        return _open_book(market, symbol, kind, from_us)
    if kind == "miniTicker":
        return mini_ticker_feed(history, from_us)
    if kind == "ticker":
        return ticker_feed(history, market.book(symbol), from_us)
    if history.instrument.market == "spot":
        return _open_on_spot(history, kind, from_us)
    return _open_on_futures(market.derivatives(symbol), kind, from_us, seed)


def _is_coin(market: SimulatedMarket) -> bool:
    return bool(market.instruments) and market.instruments[0].market == "cm"


def _open_klines(
    market: SimulatedMarket, history: History, kind: str, from_us: int, seed: int
) -> Iterator[DueFrame] | None:
    interval_name, _, zone = kind.removeprefix("kline_").partition("@")
    offered = SPOT_INTERVALS if history.instrument.market == "spot" else UM_INTERVALS
    if interval_name not in offered or zone not in ("", "+08:00"):
        return None
    interval = parse_interval(interval_name, time_zone=zone or "0")
    return kline_feed(market, history, interval, interval_name, from_us, seed=seed)


def _open_book(
    market: SimulatedMarket, symbol: str, kind: str, from_us: int
) -> Iterator[DueFrame] | None:
    book = market.book(symbol)
    if kind == "bookTicker":
        return book_ticker_feed(book, from_us)
    found = _DEPTH.match(kind)
    if found is None:
        return None
    levels, period = found.groups()
    periods = _DEPTH_PERIODS[book.instrument.market]
    period_ms = periods[0] if period is None else int(period)
    if period_ms not in periods:
        return None
    period_us = period_ms * _US_PER_MS or book.step_us
    if levels is None:
        return depth_feed(book, period_us, from_us)
    return partial_depth_feed(book, int(levels), period_us, from_us)


def _open_on_spot(history: History, kind: str, from_us: int) -> Iterator[DueFrame] | None:
    if kind == "avgPrice":
        return average_price_feed(history, from_us)
    window = _WINDOW_TICKER.match(kind)
    return window_ticker_feed(history, window[1], from_us) if window is not None else None


def _open_on_futures(
    series: DerivativeSeries, kind: str, from_us: int, seed: int
) -> Iterator[DueFrame] | None:
    if kind == "forceOrder":
        return force_order_feed(series, from_us)
    if kind.startswith("markPrice") and (period := kind.removeprefix("markPrice")) in _MARK_PERIODS:
        return mark_price_feed(series, _MARK_PERIODS[period], from_us, seed=seed)
    return None


def _open_feed_of_all(
    market: SimulatedMarket, name: str, from_us: int, seed: int
) -> Iterator[DueFrame] | None:
    """Open a stream of all symbols; spot has retired `!ticker@arr` and `!bookTicker`."""
    if not market.instruments:
        return None
    from_us = max(from_us, market.start_us + SECOND_US)
    if name == "!miniTicker@arr":
        return all_tickers_feed(market, mini_ticker_of, from_us)
    if market.instruments[0].market == "spot":
        window = _WINDOW_TICKER.match(name.removeprefix("!").removesuffix("@arr"))
        if window is None or not name.endswith("@arr"):
            return None
        payload_of = functools.partial(window_ticker_of, window=window[1])
        return all_tickers_feed(market, payload_of, from_us)
    match name:
        case "!ticker@arr":
            return all_tickers_feed(
                market,
                lambda history: ticker_of(history, market.book(history.instrument.symbol)),
                from_us,
            )
        case "!bookTicker":
            return all_book_tickers_feed(market, from_us)
        case "!contractInfo":
            return contract_info_feed(market, from_us)
        case "!forceOrder@arr":
            return all_force_orders_feed(market, from_us)
        case "!markPrice@arr" | "!markPrice@arr@1s":
            period_us = _MARK_PERIODS[name.removeprefix("!markPrice@arr")]
            return all_mark_prices_feed(market, period_us, from_us, seed=seed)
    return None
