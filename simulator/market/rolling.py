"""Statistics of moving windows: 24-hour tickers, shorter windows, average prices."""

from typing import NamedTuple

import numpy as np

from simulator.clock import MINUTE_US
from simulator.market.history import History
from simulator.market.klines import NO_ID, KlineColumns, aggregate_trades, join_klines
from simulator.market.noise import IntArray
from simulator.market.trades.columns import TradeColumns

AVERAGE_PRICE_MINUTES = 5


class WindowStats(NamedTuple):
    """Statistics of a window, in instrument units; flat at the last price without trades.

    Attributes:
        open_us, close_us: the window, both ends inclusive.
        previous_close: price of the last trade before the window, or the window's first price.
        first_id, last_id: trade ids, −1 without trades.
    """

    open_us: int
    close_us: int
    open: int
    high: int
    low: int
    last: int
    volume: int
    quote_volume: int
    trade_count: int
    first_id: int
    last_id: int
    previous_close: int


class LastTrade(NamedTuple):
    """The last fill up to a time, in instrument units."""

    time_us: int
    agg_id: int
    price: int
    quantity: int


def last_trade(history: History, time_us: int) -> LastTrade:
    """Return the last fill at or before a time, or the listing's first."""
    trades = history.minute(time_us // MINUTE_US).until(time_us)
    if len(trades) == 0:
        agg_id, _ = history.ids_before(time_us // MINUTE_US)
        if agg_id == history.first_agg_id:
            trades = history.minute(history.start_minute).between(0, 1)
        else:
            trades = history.minute(history.minute_of_agg(agg_id - 1))
    fill = int(trades.slot_start[-1] + trades.fills[-1]) - 1
    return LastTrade(
        int(trades.time_us[-1]),
        int(trades.agg_id[-1]),
        int(trades.price[-1]),
        int(trades.slot_quantity[fill]),
    )


def window_stats(history: History, open_us: int, close_us: int) -> WindowStats:
    """Aggregate the trades with `open_us <= time <= close_us`, which must span a minute or more.

    Trades of an earlier instrument of the same symbol are excluded.
    """
    listed_us = history.listed_since_us(close_us)
    begin_us = max(open_us, listed_us)
    first_whole = -(-begin_us // MINUTE_US)
    parts = []
    if first_whole * MINUTE_US > begin_us:
        parts.append(_aggregate_part(history.minute(first_whole - 1), begin_us, first_whole))
    last = close_us // MINUTE_US
    if first_whole <= last:
        parts.append(history.kline_columns(first_whole, last + 1, view_us=close_us))
    klines = join_klines(parts)
    traded = np.flatnonzero(klines.trade_count)
    before = last_trade(history, begin_us - 1).price if begin_us > listed_us else None
    if len(traded) == 0:
        price = last_trade(history, close_us).price
        return WindowStats(
            open_us, close_us, price, price, price, price, 0, 0, 0, NO_ID, NO_ID,
            price if before is None else before,
        )  # fmt: skip
    first, final = int(traded[0]), int(traded[-1])
    opening = int(klines.open[first])
    return WindowStats(
        open_us=open_us,
        close_us=close_us,
        open=opening,
        high=int(klines.high[traded].max()),
        low=int(klines.low[traded].min()),
        last=int(klines.close[final]),
        volume=_exact_sum(klines.volume),
        quote_volume=_exact_sum(klines.quote_volume),
        trade_count=int(klines.trade_count.sum()),
        first_id=int(klines.first_id[first]),
        last_id=int(klines.last_id[final]),
        previous_close=opening if before is None else before,
    )


def _aggregate_part(trades: TradeColumns, begin_us: int, next_minute: int) -> KlineColumns:
    """Return one kline of a minute's trades from a time on."""
    part = trades.between(int(np.searchsorted(trades.time_us, begin_us)), len(trades))
    return aggregate_trades(
        part,
        first_open_us=(next_minute - 1) * MINUTE_US,
        count=1,
        step_us=MINUTE_US,
        previous_close=0,
    )


def average_price(history: History, time_us: int, *, decimals: int) -> int:
    """Return the volume-weighted mean price of the last five minutes, in units of 10^-`decimals`.

    Without trades, return the last price.
    """
    stats = window_stats(history, time_us - AVERAGE_PRICE_MINUTES * MINUTE_US, time_us)
    return weighted_price(history, stats, decimals=decimals)


def weighted_price(history: History, stats: WindowStats, *, decimals: int) -> int:
    """Return the mean price in units of 10^-`decimals` (at least the price's).

    It is quote volume over volume; on COIN-M the value of the contracts over the base amount.
    """
    instrument = history.instrument
    scale = int(10 ** (decimals - instrument.price_decimals))
    if stats.volume == 0:
        return stats.last * scale
    if instrument.contract_size is not None:
        value = stats.volume * instrument.contract_size * 10**instrument.quote_decimals
        return int(value * 10**decimals // stats.quote_volume)
    return stats.quote_volume * instrument.quote_divisor * scale // stats.volume


def percent_change(stats: WindowStats) -> int:
    """Return the change from open to last in thousandths of a percent, truncated towards zero."""
    change = stats.last - stats.open
    size = abs(change) * 100_000 // stats.open
    return -size if change < 0 else size


def _exact_sum(values: IntArray) -> int:
    """Return a sum that may exceed 63 bits."""
    return (int((values >> 32).sum()) << 32) + int((values & 0xFFFFFFFF).sum())
