"""Due times of frames, with the recorded delays of the exchange.

- Trades: event time 1 ms after the trade. Spot aggTrades: mostly 1–9 ms, sometimes up to 45 ms.
USD-M aggTrades: in bundles of 100 ms, sent 100 ms after the bundle's end (150 ms on average).
- Kline updates are triggered by trades: the first trade at least 2 s (spot; 1 s for `1s`) or 250 ms
(USD-M) after the last update triggers one, 1 ms after the trade, often before its aggTrade. If
that trade is one of several fills, the update may end inside it.
- A kline closes with the next trade after it or, without one, about 2 s after its end.

Everything is a function of seed, symbol and minute, independent of listeners.
"""

import bisect
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from simulator.clock import MINUTE_US, SECOND_US
from simulator.market.history import History
from simulator.market.instruments import MarketName
from simulator.market.noise import IntArray, derive_key, hash_counter, hash_counters, take_bits
from simulator.market.trades.columns import TradeColumns

_BUNDLE_US = 100_000
_BUNDLE_DELAY_US = 100_000
_TRADE_DELAY_US = 1_000
_CLOSE_DELAY_US = 400
_UPDATE_DELAY_US = 1_000
_SILENT_CLOSE_US = 2_000_000
_SILENT_SECOND_CLOSE_US = 900_000


def agg_trades_due(market: MarketName, trades: TradeColumns) -> IntArray:
    """Return the event time (µs) of each aggTrade, ascending."""
    if market != "spot":
        return (trades.time_us // _BUNDLE_US + 1) * _BUNDLE_US + _BUNDLE_DELAY_US
    drawn = hash_counters(0x5EED, trades.agg_id)
    delay = 1_000 + take_bits(drawn, low=0, count=13)
    slow = take_bits(drawn, low=13, count=4) == 0
    delay[slow] += take_bits(drawn, low=17, count=15)[slow]
    due: IntArray = np.maximum.accumulate(trades.time_us + delay)
    return due


def trades_due(trades: TradeColumns) -> IntArray:
    """Return the event time (µs) of the `trade` frames of each order."""
    return trades.time_us + _TRADE_DELAY_US


@dataclass(frozen=True, slots=True)
class KlineUpdate:
    """The open kline is due: with orders up to `row` of the minute, less `unsent_fills` fills."""

    due_us: int
    row: int
    unsent_fills: int


@dataclass(frozen=True, slots=True)
class KlineClose:
    """The kline that ended at `end_us` (exclusive) is due as closed."""

    due_us: int
    end_us: int


def kline_period_us(market: MarketName, interval: str) -> int:
    """Return the minimum time between two updates of an open kline."""
    if market != "spot":
        return 250_000
    return SECOND_US if interval == "1s" else 2 * SECOND_US


def kline_events(
    history: History, minute: int, *, interval: str, seed: int
) -> Iterator[KlineUpdate | KlineClose]:
    """Yield the kline events of a symbol that this minute triggers, in order of time.

    The close of the previous minute (for `1s`: of its last second) comes first, because this
    minute's first trade triggers it. Intervals above 1m have the events of 1m; the caller skips
    closes that do not end a kline.
    """
    market = history.instrument.market
    trades = history.minute(minute)
    times: list[int] = trades.time_us.tolist()
    period = kline_period_us(market, interval)
    label = "1s" if interval == "1s" else "1m"
    key = derive_key(seed, market, history.instrument.symbol, "klines", label)
    step = SECOND_US if interval == "1s" else MINUTE_US
    silent_us = _SILENT_SECOND_CLOSE_US if interval == "1s" else _SILENT_CLOSE_US
    for start_us in range(minute * MINUTE_US, (minute + 1) * MINUTE_US, step):
        drawn = hash_counter(key, start_us)
        first = bisect.bisect_left(times, start_us)
        stop = bisect.bisect_left(times, start_us + step)
        by_trade = times[first] + _CLOSE_DELAY_US if first < stop else start_us + step
        if history.has_klines(start_us - step, start_us):
            yield KlineClose(min(by_trade, start_us + silent_us + drawn % 16_000), start_us)
        phase_us = (drawn >> 16) % period if interval != "1s" else 0
        row = bisect.bisect_left(times, start_us + phase_us, first, stop)
        while row < stop:
            yield _update(trades, row, times[row], drawn)
            row = bisect.bisect_left(times, times[row] + period, row + 1, stop)


def _update(trades: TradeColumns, row: int, time_us: int, drawn: int) -> KlineUpdate:
    fills = int(trades.fills[row])
    # Half of the updates triggered by an order with several fills end inside it.
    inside = fills > 1 and (drawn >> (row % 30)) & 1
    unsent = 1 + (drawn >> 32) % (fills - 1) if inside else 0
    return KlineUpdate(time_us + _UPDATE_DELAY_US, row, unsent)
