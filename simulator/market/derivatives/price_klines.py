"""Klines of mark price, index price and premium index.

A kline covers the values at the whole seconds from its open time to its close time: open is the
first, close the last, high and low are over all of them. A client that aggregates the frames of
`markPrice@1s` by their event time has the same klines of mark and index price. The premium index
has a value every five seconds. The exchange's `count` is the number of values: 60 and
12 in a full minute.
"""

from collections.abc import Callable
from typing import Literal, NamedTuple

import numpy as np

from simulator.clock import DAY_US, SECOND_US
from simulator.market.derivatives.prices import (
    PREMIUM_STEP_US,
    index_prices,
    mark_prices,
    premium_indexes,
)
from simulator.market.history import History
from simulator.market.intervals import Interval
from simulator.market.noise import IntArray

PriceName = Literal["mark", "index", "premium"]
PRICE_NAMES: tuple[PriceName, ...] = ("mark", "index", "premium")
_VALUES: dict[PriceName, Callable[..., IntArray]] = {
    "mark": mark_prices,
    "index": index_prices,
    "premium": premium_indexes,
}
_CHUNK_US = 20 * DAY_US  # 14 MB for each column of values


class PriceKline(NamedTuple):
    """One kline of a price; prices in 10^-8."""

    open_time_us: int
    close_time_us: int
    open: int
    high: int
    low: int
    close: int
    value_count: int


def price_klines(
    history: History,
    name: PriceName,
    interval: Interval,
    first_us: int,
    last_us: int,
    *,
    view_us: int,
    seed: int,
) -> list[PriceKline]:
    """Return the klines that open in `first_us … last_us`, with the values up to `view_us`.

    A contract has values from its listing to its delisting, also in halts. Klines without values
    are omitted.
    """
    begin_us = max(interval.open_of(first_us), history.start_us)
    stop_us = min(interval.next_open(interval.open_of(last_us)), view_us + 1)
    found: list[PriceKline] = []
    while begin_us < stop_us:
        chunk_stop_us = min(stop_us, begin_us + _CHUNK_US)
        for kline in _chunk(history, name, interval, begin_us, chunk_stop_us, seed):
            if found and found[-1].open_time_us == kline.open_time_us:
                kline = _joined(found.pop(), kline)
            found.append(kline)
        begin_us = chunk_stop_us
    return found


def _chunk(
    history: History, name: PriceName, interval: Interval, begin_us: int, stop_us: int, seed: int
) -> list[PriceKline]:
    step_us = PREMIUM_STEP_US if name == "premium" else SECOND_US
    times = np.arange(-(-begin_us // step_us) * step_us, stop_us, step_us, dtype=np.int64)
    times = times[history.calendar.listed_mask(times)]
    if len(times) == 0:
        return []
    values = _VALUES[name](history, times, seed=seed)
    opens = interval.opens_of(times)
    starts = np.flatnonzero(np.append(True, opens[1:] != opens[:-1]))
    ends = np.append(starts[1:], len(times)) - 1
    columns = (
        opens[starts], values[starts], np.maximum.reduceat(values, starts),
        np.minimum.reduceat(values, starts), values[ends], ends - starts + 1,
    )  # fmt: skip
    return [
        PriceKline(open_us, interval.next_open(open_us) - 1, *rest)
        for open_us, *rest in zip(*(column.tolist() for column in columns), strict=True)
    ]


def _joined(first: PriceKline, second: PriceKline) -> PriceKline:
    return first._replace(
        high=max(first.high, second.high),
        low=min(first.low, second.low),
        close=second.close,
        value_count=first.value_count + second.value_count,
    )
