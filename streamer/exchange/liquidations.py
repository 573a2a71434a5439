"""Convert frames of liquidations to the values that are stored and sent to readers."""

from __future__ import annotations

from decimal import Decimal

from include.binance.streams.liquidations import ForceOrder
from include.binance.streams.messages import microseconds
from include.domain.instruments import Market, symbol_of
from include.store.trades.liquidations import Liquidation

HEARTBEATS = {Market.UM: "btcusdt@markPrice", Market.CM: "btcusd_perp@markPrice"}
"""A stream with a message every 3 s, for connections with liquidations, which may be quiet for
hours: silence then means that the connection is dead."""


def liquidation_of(market: Market, frame: ForceOrder, received_us: int) -> Liquidation:
    """Return the liquidation of a frame.

    Args:
        received_us: when the frame arrived (µs).
    """
    order = frame.order
    return Liquidation(
        symbol_of(market, order.symbol),
        microseconds(order.order_time),
        microseconds(frame.event_time),
        received_us,
        order.side,
        order.order_type,
        order.time_in_force,
        Decimal(order.price),
        Decimal(order.average_price),
        Decimal(order.quantity),
        Decimal(order.last_filled_quantity),
        Decimal(order.accumulated_quantity),
        order.order_status,
    )
