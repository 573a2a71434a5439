"""Streams of USD-M alone: mark prices and liquidations."""

import heapq
import itertools
from collections.abc import Iterator

from simulator.clock import MINUTE_US, SECOND_US
from simulator.market.derivatives import Liquidation, liquidations, mark_price
from simulator.market.history import History
from simulator.market.market import SimulatedMarket
from simulator.streams.feeds.trades import DueFrame
from simulator.streams.hub import Render
from simulator.wire.derivatives import force_order_payload, mark_price_payload

_FORCE_ORDER_DELAY_US = 5_000


def mark_price_feed(
    history: History, period_us: int, from_us: int, *, seed: int
) -> Iterator[DueFrame]:
    """Yield `markPrice` frames of one symbol, on whole periods."""
    for time_us in itertools.count(-(-from_us // period_us) * period_us, period_us):
        if history.calendar.next_open(time_us) is None and not _has_mark(history, time_us):
            return
        if _has_mark(history, time_us):
            yield time_us, _render_mark(history, time_us, seed)


def all_mark_prices_feed(
    market: SimulatedMarket, period_us: int, from_us: int, *, seed: int
) -> Iterator[DueFrame]:
    """Yield arrays of all symbols' mark prices; every second they are two frames."""
    histories = [market.history(symbol) for symbol in market]
    for time_us in itertools.count(-(-from_us // period_us) * period_us, period_us):
        listed = [history for history in histories if _has_mark(history, time_us)]
        half = -(-len(listed) // 2) if period_us == SECOND_US else len(listed)
        parts = [part for part in (listed[:half], listed[half:]) if part]
        if parts:
            yield time_us, _render_mark_arrays(parts, time_us, seed)
        elif all(history.calendar.next_open(time_us) is None for history in histories):
            return


def _has_mark(history: History, time_us: int) -> bool:
    """Whether there is a contract; a halt does not stop its mark price."""
    return history.calendar.state(time_us) in ("trading", "halted")


def force_order_feed(history: History, from_us: int, *, seed: int) -> Iterator[DueFrame]:
    """Yield `forceOrder` frames: the last liquidation of each second, after its end."""
    minute = max(history.start_minute, (from_us - 2 * SECOND_US) // MINUTE_US)
    while (traded := history.next_traded_minute(minute)) is not None:
        for order in liquidations(history, traded, seed=seed):
            due_us = (order.time_us // SECOND_US + 1) * SECOND_US + _FORCE_ORDER_DELAY_US
            if due_us >= from_us:
                yield due_us, _render_force_order(history, order, due_us)
        minute = traded + 1


def all_force_orders_feed(
    market: SimulatedMarket, from_us: int, *, seed: int
) -> Iterator[DueFrame]:
    """Yield `!forceOrder@arr`: liquidations of all symbols, one frame each."""
    feeds = [force_order_feed(market.history(symbol), from_us, seed=seed) for symbol in market]
    return heapq.merge(*feeds, key=lambda frame: frame[0])


def _marks(histories: list[History], time_us: int, seed: int) -> list[str]:
    return [
        mark_price_payload(
            history.instrument, mark_price(history, time_us, seed=seed), event_us=time_us
        )
        for history in histories
    ]


def _render_mark_arrays(parts: list[list[History]], time_us: int, seed: int) -> Render:
    return lambda _unit_us: [f"[{','.join(_marks(part, time_us, seed))}]" for part in parts]


def _render_mark(history: History, time_us: int, seed: int) -> Render:
    return lambda _unit_us: _marks([history], time_us, seed)


def _render_force_order(history: History, order: Liquidation, due_us: int) -> Render:
    return lambda _unit_us: [force_order_payload(history.instrument, order, event_us=due_us)]
