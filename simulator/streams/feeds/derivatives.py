"""Streams of futures alone: mark prices and liquidations.

A mark price frame belongs to a whole second and is sent 0 to 13 ms after it, all symbols together.
The frame of a funding time still names this funding time, as recorded.
"""

import heapq
import itertools
from collections.abc import Iterator

from simulator.clock import MINUTE_US, SECOND_US
from simulator.market.derivatives.liquidations import Liquidation
from simulator.market.derivatives.series import DerivativeSeries
from simulator.market.history import History
from simulator.market.market import SimulatedMarket
from simulator.market.noise import derive_key, hash_counter
from simulator.streams.feeds.trades import DueFrame
from simulator.streams.hub import Render
from simulator.wire.derivatives import force_order_payload, mark_price_payload

_FORCE_ORDER_DELAY_US = 5_000
_MAX_DELAY_MS = 13
_MS = 1_000


def mark_delay_us(seed: int, time_us: int) -> int:
    """Return how long after its second a frame is sent: two in five without delay, as recorded."""
    drawn = hash_counter(derive_key(seed, "mark price delay"), time_us // SECOND_US)
    return 0 if drawn % 5 < 2 else (1 + (drawn >> 8) % _MAX_DELAY_MS) * _MS


def mark_price_feed(
    series: DerivativeSeries, period_us: int, from_us: int, *, seed: int
) -> Iterator[DueFrame]:
    """Yield `markPrice` frames of one symbol, after whole periods."""
    history = series.history
    for time_us in itertools.count(from_us // period_us * period_us, period_us):
        if history.calendar.next_open(time_us) is None and not has_mark(history, time_us):
            return
        due_us = time_us + mark_delay_us(seed, time_us)
        if due_us >= from_us and has_mark(history, time_us):
            yield due_us, _render_mark(series, time_us, due_us)


def all_mark_prices_feed(
    market: SimulatedMarket, period_us: int, from_us: int, *, seed: int
) -> Iterator[DueFrame]:
    """Yield arrays of all symbols' mark prices; every second they are two frames."""
    every = [market.derivatives(symbol) for symbol in market]
    return some_mark_prices_feed(every, period_us, from_us, seed=seed, is_split=True)


def some_mark_prices_feed(
    every: list[DerivativeSeries],
    period_us: int,
    from_us: int,
    *,
    seed: int,
    is_split: bool = False,
) -> Iterator[DueFrame]:
    """Yield arrays of the mark prices of contracts.

    Args:
        is_split: arrays of every second are two frames.
    """
    for time_us in itertools.count(from_us // period_us * period_us, period_us):
        due_us = time_us + mark_delay_us(seed, time_us)
        listed = [series for series in every if has_mark(series.history, time_us)]
        is_halved = is_split and period_us == SECOND_US
        half = -(-len(listed) // 2) if is_halved else len(listed)
        parts = [part for part in (listed[:half], listed[half:]) if part]
        if parts and due_us >= from_us:
            yield due_us, _render_mark_arrays(parts, time_us, due_us)
        elif all(series.history.calendar.next_open(time_us) is None for series in every):
            return


def has_mark(history: History, time_us: int) -> bool:
    """Whether there is a contract; a halt does not stop its mark price."""
    return history.calendar.state(time_us) in ("trading", "halted")


def force_order_feed(series: DerivativeSeries, from_us: int) -> Iterator[DueFrame]:
    """Yield `forceOrder` frames: the last liquidation of each second, after its end."""
    minute = max(series.history.start_minute, (from_us - 2 * SECOND_US) // MINUTE_US)
    while (found := series.next_liquidation_minute(minute)) is not None:
        for order in series.liquidations(found):
            due_us = (order.time_us // SECOND_US + 1) * SECOND_US + _FORCE_ORDER_DELAY_US
            if due_us >= from_us:
                yield due_us, _render_force_order(series.history, order, due_us)
        minute = found + 1


def all_force_orders_feed(market: SimulatedMarket, from_us: int) -> Iterator[DueFrame]:
    """Yield `!forceOrder@arr`: liquidations of all symbols, one frame each."""
    feeds = [force_order_feed(market.derivatives(symbol), from_us) for symbol in market]
    return heapq.merge(*feeds, key=lambda frame: frame[0])


def _marks(part: list[DerivativeSeries], time_us: int, event_us: int) -> list[str]:
    return [
        mark_price_payload(series.history.instrument, series.mark_price(time_us), event_us=event_us)
        for series in part
    ]


def _render_mark_arrays(parts: list[list[DerivativeSeries]], time_us: int, event_us: int) -> Render:
    return lambda _unit_us: [f"[{','.join(_marks(part, time_us, event_us))}]" for part in parts]


def _render_mark(series: DerivativeSeries, time_us: int, event_us: int) -> Render:
    return lambda _unit_us: _marks([series], time_us, event_us)


def _render_force_order(history: History, order: Liquidation, due_us: int) -> Render:
    return lambda _unit_us: [force_order_payload(history.instrument, order, event_us=due_us)]
