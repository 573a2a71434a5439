"""Streams of COIN-M about prices: by pair, and klines of mark and index price.

The exchange documents updates of klines every 250 ms. Prices here change on whole seconds, so each
second has one frame, and the first second after a kline also sends it closed.
"""

import itertools
import re
from collections.abc import Iterator

import numpy as np

from simulator.clock import SECOND_US
from simulator.market.derivatives.price_klines import PriceKline, PriceName
from simulator.market.derivatives.series import DerivativeSeries
from simulator.market.intervals import UM_INTERVALS, Interval, parse_interval
from simulator.market.market import SimulatedMarket
from simulator.streams.feeds.derivatives import has_mark, mark_delay_us, some_mark_prices_feed
from simulator.streams.feeds.trades import DueFrame
from simulator.streams.hub import Render
from simulator.wire.derivatives import index_price_payload, price_kline_payload

_PRICE = re.compile(r"(?P<name>markPrice|indexPrice)(?P<each>@1s)?\Z")
_KLINE = re.compile(r"(?P<name>mark|index)PriceKline_(?P<interval>\w+)\Z")
_PERIOD_US = 3 * SECOND_US


def open_coin_prices(
    market: SimulatedMarket, name: str, kind: str, from_us: int, *, seed: int
) -> Iterator[DueFrame] | None:
    """Return the feed of a stream of a pair, or of klines of a price; None for another stream.

    Args:
        name: symbol or pair in capitals.
        kind: the stream's name after the `@`.
    """
    contracts = [one for one in market.instruments if one.pair == name]
    kline = _KLINE.match(kind)
    if kline is not None:
        is_mark = kline["name"] == "mark"
        known = name in market if is_mark else bool(contracts)
        if kline["interval"] not in UM_INTERVALS or not known:
            return None
        symbol = name if is_mark else _index_symbol(market, name)
        price: PriceName = "mark" if is_mark else "index"
        series, interval = market.derivatives(symbol), parse_interval(kline["interval"])
        return price_kline_feed(series, price, interval, from_us, seed=seed)
    found = _PRICE.match(kind)
    if found is None or not contracts:
        return None
    period_us = SECOND_US if found["each"] else _PERIOD_US
    if found["name"] == "markPrice":
        every = [market.derivatives(one.symbol) for one in contracts]
        return some_mark_prices_feed(every, period_us, from_us, seed=seed)
    series = market.derivatives(_index_symbol(market, name))
    return _index_prices(series, period_us, from_us, seed=seed)


def _index_symbol(market: SimulatedMarket, pair: str) -> str:
    """Return the contract that stands for the index of a pair: the one that lives longest."""
    contracts = [one for one in market.instruments if one.pair == pair]
    return next((one for one in contracts if not one.is_dated), contracts[-1]).symbol


def _index_prices(
    series: DerivativeSeries, period_us: int, from_us: int, *, seed: int
) -> Iterator[DueFrame]:
    for time_us in _seconds(series, from_us, period_us):
        due_us = time_us + mark_delay_us(seed, time_us)
        if due_us >= from_us:
            yield due_us, _render_index(series, time_us, due_us)


def price_kline_feed(
    series: DerivativeSeries, price: PriceName, interval: Interval, from_us: int, *, seed: int
) -> Iterator[DueFrame]:
    """Yield klines of mark or index price: the open one each second, and each closed one."""
    running: PriceKline | None = None
    for time_us in _seconds(series, from_us, SECOND_US):
        due_us = time_us + mark_delay_us(seed, time_us)
        open_us = interval.open_of(time_us)
        if open_us == time_us:
            closed = series.klines(price, interval, time_us - 1, time_us - 1, view_us=time_us - 1)
            if closed and due_us >= from_us:
                yield (
                    due_us,
                    _render_kline(series, price, closed[-1], interval, time_us - 1, due_us),
                )
        if running is not None and running.open_time_us == open_us:
            running = _with_value(running, _value(series, price, time_us))
        else:
            running = series.klines(price, interval, open_us, open_us, view_us=time_us)[-1]
        if due_us >= from_us:
            yield due_us, _render_kline(series, price, running, interval, time_us, due_us)


def _seconds(series: DerivativeSeries, from_us: int, period_us: int) -> Iterator[int]:
    """Yield the times of the values of a contract."""
    history = series.history
    for time_us in itertools.count(from_us // period_us * period_us, period_us):
        if has_mark(history, time_us):
            yield time_us
        elif history.calendar.next_open(time_us) is None:
            return


def _value(series: DerivativeSeries, price: PriceName, time_us: int) -> int:
    times = np.array([time_us], dtype=np.int64)
    (value,) = series.mark_prices(times) if price == "mark" else series.index_prices(times)
    return value


def _with_value(kline: PriceKline, value: int) -> PriceKline:
    return kline._replace(
        high=max(kline.high, value),
        low=min(kline.low, value),
        close=value,
        value_count=kline.value_count + 1,
    )


def _render_index(series: DerivativeSeries, time_us: int, event_us: int) -> Render:
    pair = series.history.instrument.pair
    return lambda _unit_us: [
        index_price_payload(pair, _value(series, "index", time_us), event_us=event_us)
    ]


def _render_kline(
    series: DerivativeSeries,
    price: PriceName,
    kline: PriceKline,
    interval: Interval,
    last_us: int,
    event_us: int,
) -> Render:
    return lambda _unit_us: [
        price_kline_payload(
            series.history.instrument,
            price,
            kline,
            interval=interval.name,
            last_us=last_us,
            event_us=event_us,
        )
    ]
