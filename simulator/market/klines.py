"""Klines: aggregation of trades, and roll-up of minutes to longer intervals.

This is the oracle of the project's tests, so it shares no code with the product. Values are
integers in the instrument's units. Sums above the minute are exact: two halves of 32 bits are
summed and joined as Python integers.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from simulator.market.intervals import Interval
from simulator.market.noise import IntArray
from simulator.market.trades.columns import TradeColumns

NO_ID = -1


class Kline(NamedTuple):
    """One kline in instrument units; `first_id` and `last_id` are −1 without trades."""

    open_time_us: int
    close_time_us: int  # last µs of the kline
    open: int
    high: int
    low: int
    close: int
    volume: int
    quote_volume: int
    trade_count: int
    taker_buy_volume: int
    taker_buy_quote_volume: int
    first_id: int
    last_id: int


@dataclass(frozen=True, slots=True)
class KlineColumns:
    """Consecutive klines of equal length as int64 columns."""

    open_time_us: IntArray
    open: IntArray
    high: IntArray
    low: IntArray
    close: IntArray
    volume: IntArray
    quote_volume: IntArray
    trade_count: IntArray
    taker_buy_volume: IntArray
    taker_buy_quote_volume: IntArray
    first_id: IntArray
    last_id: IntArray

    def __len__(self) -> int:
        return len(self.open_time_us)

    def columns(self) -> tuple[IntArray, ...]:
        """Return all columns in the order of the fields."""
        return (
            self.open_time_us, self.open, self.high, self.low, self.close, self.volume,
            self.quote_volume, self.trade_count, self.taker_buy_volume, self.taker_buy_quote_volume,
            self.first_id, self.last_id,
        )  # fmt: skip

    def between(self, start: int, stop: int) -> "KlineColumns":
        """Return rows `start … stop - 1`."""
        return KlineColumns(*(column[start:stop] for column in self.columns()))


def join_klines(parts: Sequence[KlineColumns]) -> KlineColumns:
    """Concatenate klines."""
    if len(parts) == 1:
        return parts[0]
    columns = zip(*(part.columns() for part in parts), strict=True)
    return KlineColumns(*(np.concatenate(column) for column in columns))


def aggregate_trades(
    trades: TradeColumns, *, first_open_us: int, count: int, step_us: int, previous_close: int
) -> KlineColumns:
    """Aggregate trades to `count` klines of `step_us`; an empty one is flat at the previous close.

    Args:
        previous_close: price of the last trade before `trades`, in price units.
    """
    opens = first_open_us + np.arange(count, dtype=np.int64) * step_us
    edges = np.searchsorted(trades.time_us, np.append(opens, first_open_us + count * step_us))
    traded = np.flatnonzero(edges[1:] > edges[:-1])
    starts = edges[:-1][traded]
    ends = edges[1:][traded] - 1

    def summed(values: IntArray) -> IntArray:
        result = np.zeros(count, dtype=np.int64)
        if len(traded):
            result[traded] = np.add.reduceat(values[: edges[-1]], starts)
        return result

    def placed(values: IntArray, default: IntArray) -> IntArray:
        result = default.copy()
        result[traded] = values
        return result

    last_traded = np.zeros(count, dtype=np.int64) - 1
    last_traded[traded] = np.arange(len(traded))
    last_traded = np.maximum.accumulate(last_traded)
    closes = np.append(trades.price[ends], previous_close)
    close = closes[last_traded]  # index −1 is `previous_close`
    flat = close
    no_id = np.full(count, NO_ID, dtype=np.int64)
    price = trades.price[: edges[-1]]
    taker_buys = ~trades.buyer_is_maker
    return KlineColumns(
        open_time_us=opens,
        open=placed(trades.price[starts], flat),
        high=placed(np.maximum.reduceat(price, starts), flat) if len(traded) else flat,
        low=placed(np.minimum.reduceat(price, starts), flat) if len(traded) else flat,
        close=close,
        volume=summed(trades.quantity),
        quote_volume=summed(trades.quote),
        trade_count=summed(trades.fills),
        taker_buy_volume=summed(trades.quantity * taker_buys),
        taker_buy_quote_volume=summed(trades.quote * taker_buys),
        first_id=placed(trades.first_id[starts], no_id),
        last_id=placed(trades.last_id[ends], no_id),
    )


def to_klines(klines: KlineColumns, step_us: int) -> list[Kline]:
    """Return the rows of columns that need no roll-up."""
    opens, *values = (column.tolist() for column in klines.columns())
    closes = (klines.open_time_us + (step_us - 1)).tolist()
    return [Kline(*row) for row in zip(opens, closes, *values, strict=True)]


def roll_up(klines: KlineColumns, interval: Interval) -> list[Kline]:
    """Roll minutes up to longer klines. Minutes without trades set no open, high or low."""
    if len(klines) == 0:
        return []
    bucket = interval.opens_of(klines.open_time_us)
    starts = np.flatnonzero(np.append(True, bucket[1:] != bucket[:-1]))
    ends = np.append(starts[1:], len(klines)) - 1
    opens = bucket[starts].tolist()
    empty = klines.trade_count == 0
    greatest = np.iinfo(np.int64).max
    first_traded = np.minimum.reduceat(
        np.where(empty, len(klines), np.arange(len(klines))), starts
    ).tolist()
    last_traded = np.maximum.reduceat(np.where(empty, -1, np.arange(len(klines))), starts).tolist()
    highs = np.maximum.reduceat(np.where(empty, -1, klines.high), starts).tolist()
    lows = np.minimum.reduceat(np.where(empty, greatest, klines.low), starts).tolist()
    closes = klines.close[ends].tolist()
    volumes = _exact_sums(klines.volume, starts)
    quote_volumes = _exact_sums(klines.quote_volume, starts)
    counts = _exact_sums(klines.trade_count, starts)
    buy_volumes = _exact_sums(klines.taker_buy_volume, starts)
    buy_quote_volumes = _exact_sums(klines.taker_buy_quote_volume, starts)
    rows = []
    for number, open_us in enumerate(opens):
        close = closes[number]
        close_us = interval.next_open(open_us) - 1
        is_empty = last_traded[number] < 0
        first, last = first_traded[number], last_traded[number]
        rows.append(
            Kline(
                open_time_us=open_us,
                close_time_us=close_us,
                open=close if is_empty else int(klines.open[first]),
                high=close if is_empty else highs[number],
                low=close if is_empty else lows[number],
                close=close,
                volume=volumes[number],
                quote_volume=quote_volumes[number],
                trade_count=counts[number],
                taker_buy_volume=buy_volumes[number],
                taker_buy_quote_volume=buy_quote_volumes[number],
                first_id=NO_ID if is_empty else int(klines.first_id[first]),
                last_id=NO_ID if is_empty else int(klines.last_id[last]),
            )
        )
    return rows


def _exact_sums(values: IntArray, starts: IntArray) -> list[int]:
    high = np.add.reduceat(values >> 32, starts).tolist()
    low = np.add.reduceat(values & 0xFFFFFFFF, starts).tolist()
    return [(upper << 32) + lower for upper, lower in zip(high, low, strict=True)]
