"""Liquidations of a contract: about one taker order in 128 is a liquidation."""

from typing import NamedTuple

import numpy as np

from simulator.clock import MINUTE_US, SECOND_US
from simulator.market.history import History
from simulator.market.noise import derive_key, hash_counters, take_bits

_LIQUIDATIONS = 7  # one order in 2^7


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


def liquidations(
    history: History, minute: int, *, seed: int, injected: tuple[Liquidation, ...] = ()
) -> list[Liquidation]:
    """Return the last liquidation of each second of a minute; seconds without one are omitted.

    Args:
        injected: liquidations of faults, of any minute; within a second they are the last ones.
    """
    trades = history.minute(minute)
    instrument = history.instrument
    key = derive_key(seed, instrument.market, instrument.symbol, "liquidations")
    drawn = hash_counters(key, trades.agg_id)
    chosen = np.flatnonzero(take_bits(drawn, low=0, count=_LIQUIDATIONS) == 0)
    by_second = {int(trades.time_us[row]) // SECOND_US: int(row) for row in chosen}
    found: dict[int, Liquidation] = {}
    for second, row in by_second.items():
        price, is_sell = int(trades.price[row]), bool(trades.buyer_is_maker[row])
        parts = 1 + int(drawn[row] >> np.uint64(8)) % 4
        last = int(trades.slot_quantity[int(trades.slot_start[row] + trades.fills[row]) - 1])
        found[second] = Liquidation(
            int(trades.time_us[row]),
            is_sell,
            bankruptcy_price(history, price, is_sell=is_sell, parts=parts),
            price,
            int(trades.quantity[row]),
            last,
        )
    found |= {
        one.time_us // SECOND_US: one for one in injected if one.time_us // MINUTE_US == minute
    }
    return [found[second] for second in sorted(found)]


def bankruptcy_price(history: History, price: int, *, is_sell: bool, parts: int) -> int:
    """Return a limit that is `parts` fifths of a percent worse than the price of the fill."""
    tick = history.instrument.tick
    distance = max(1, price // 500 // tick * parts) * tick
    return max(tick, price - distance) if is_sell else price + distance
