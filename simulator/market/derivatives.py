"""Mark price, index price, funding, settlement price and liquidations of a contract.

The index is the price path that trades of the perpetual contract follow; the mark price adds a slow
premium of at most 0.05 %. About one taker order in 128 counts as a liquidation.
"""

from typing import NamedTuple

import numpy as np

from simulator.clock import MINUTE_US, SECOND_US
from simulator.market.history import History
from simulator.market.noise import derive_key, hash_counter, hash_counters, take_bits

MARK_DECIMALS = 8
FUNDING_PERIOD_US = 8 * 60 * MINUTE_US
_SETTLED_US = 60 * MINUTE_US
_PREMIUM_PERIOD_US = 10 * MINUTE_US
_MAX_PREMIUM = 50_000  # parts per 10^8
_AVERAGED_US = (0, 10 * SECOND_US, 20 * SECOND_US, 30 * SECOND_US)
_LIQUIDATIONS = 7  # one order in 2^7


class MarkPrice(NamedTuple):
    """Prices and funding rate in units of 10^-8.

    Attributes:
        average: mean of the mark prices of the last half minute.
        settle: the estimated settle price.
    """

    time_us: int
    mark: int
    average: int
    index_price: int
    settle: int
    funding_rate: int
    next_funding_us: int


class Liquidation(NamedTuple):
    """A liquidation order, filled immediately; in instrument units.

    Attributes:
        time_us: time of the trade.
        bankruptcy_price: limit of the order.
        last_quantity: quantity of its last fill.
    """

    time_us: int
    is_sell: bool
    bankruptcy_price: int
    average_price: int
    quantity: int
    last_quantity: int


def mark_price(history: History, time_us: int, *, seed: int) -> MarkPrice:
    """Return mark price and funding at a time."""
    instrument = history.instrument
    labels = (instrument.market, instrument.symbol)
    premium_key = derive_key(seed, *labels, "premium")
    listed_us = history.listed_since_us(time_us)
    moments = [max(time_us - ago_us, listed_us) for ago_us in _AVERAGED_US]
    marks = [_mark(history, premium_key, moment) for moment in moments]
    index = history.index_price(time_us, decimals=MARK_DECIMALS)
    next_funding_us = (time_us // FUNDING_PERIOD_US + 1) * FUNDING_PERIOD_US
    drawn = hash_counter(derive_key(seed, *labels, "funding"), next_funding_us)
    # Mostly the 0.01 % of interest alone, otherwise a rate within ±0.03 %.
    rate = 10_000 if drawn & 1 else (drawn >> 8) % 60_001 - 30_000
    average = sum(marks) // len(marks)
    return MarkPrice(time_us, marks[0], average, index, index, rate, next_funding_us)


def delivery_price(history: History, delivery_us: int) -> int:
    """Return the settlement price (10^-8) of a dated contract: the mean index of the last hour.

    That it is the mean of an hour is an assumption.
    """
    return history.average_index_price(
        delivery_us - _SETTLED_US, delivery_us, decimals=MARK_DECIMALS
    )


def _mark(history: History, premium_key: int, time_us: int) -> int:
    fair = history.fair_price(time_us, decimals=MARK_DECIMALS)
    premium = _between(premium_key, time_us, _PREMIUM_PERIOD_US)
    return fair + fair * (premium * 2 * _MAX_PREMIUM // (1 << 16) - _MAX_PREMIUM) // 10**8


def _between(key: int, time_us: int, period_us: int) -> int:
    """Return sixteen random bits, interpolated between those of whole periods."""
    number, phase = divmod(time_us, period_us)
    left, right = hash_counter(key, number) & 0xFFFF, hash_counter(key, number + 1) & 0xFFFF
    return (left * (period_us - phase) + right * phase) // period_us


def liquidations(history: History, minute: int, *, seed: int) -> list[Liquidation]:
    """Return the last liquidation of each second of a minute; seconds without one are omitted."""
    trades = history.minute(minute)
    instrument = history.instrument
    key = derive_key(seed, instrument.market, instrument.symbol, "liquidations")
    drawn = hash_counters(key, trades.agg_id)
    chosen = np.flatnonzero(take_bits(drawn, low=0, count=_LIQUIDATIONS) == 0)
    by_second = {int(trades.time_us[row]) // SECOND_US: int(row) for row in chosen}
    found = []
    for row in by_second.values():
        price, is_sell = int(trades.price[row]), bool(trades.buyer_is_maker[row])
        ticks = price // 500 // instrument.tick * (1 + int(drawn[row] >> np.uint64(8)) % 4)
        distance = max(1, ticks) * instrument.tick
        limit = max(instrument.tick, price - distance) if is_sell else price + distance
        last = int(trades.slot_quantity[int(trades.slot_start[row] + trades.fills[row]) - 1])
        found.append(
            Liquidation(
                int(trades.time_us[row]), is_sell, limit, price, int(trades.quantity[row]), last
            )
        )
    return found
