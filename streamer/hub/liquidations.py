"""Stream liquidations of futures while readers subscribe to them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from include.binance.streams.liquidations import (
    FORCE_ORDER,
    ForceOrder,
    decode_with_liquidations,
)
from include.binance.streams.session import MAX_STREAMS
from include.config import Settings
from include.domain.instruments import FUTURES, Market, symbol_of
from include.jobs.exchange import endpoints_of
from streamer.exchange.liquidations import HEARTBEATS, liquidation_of
from streamer.hub.on_demand import Connect, OnDemandFeed, OnDemandStreams, connecting
from streamer.hub.ticks import MissedLiquidations
from streamer.hub.trade_hub import LiquidationHub


class LiquidationFeed(OnDemandFeed):
    """Passes the liquidations of one connection to the hub, each once.

    After a disconnect, its symbols are reported as missed for the time without messages.
    """

    def __init__(
        self,
        market: Market,
        hub: LiquidationHub,
        connect: Connect,
        *,
        names: Iterable[str] = (),
        now_us: Callable[[], int] = lambda: time.time_ns() // 1000,
    ) -> None:
        self._hub = hub
        self._last: dict[str, int] = {}
        self._received_us = now_us()
        self._disconnected_us: int | None = None
        # Hours without a liquidation are normal, and subscribing again might miss one.
        super().__init__(market, FORCE_ORDER, connect, names=names, quiet_s=None, now_us=now_us)

    def on_close(self) -> None:
        """Note since when messages may be missing."""
        if self._disconnected_us is None:
            self._disconnected_us = self._received_us

    def decode(self, data: bytes) -> object:
        """Decode a message."""
        return decode_with_liquidations(data)

    def on_frame(self, frame: object, received_us: int, *, is_held: bool) -> None:
        """Publish a liquidation unless it is repeated; other messages show that the connection
        lives."""
        if self._disconnected_us is not None:
            for name in sorted(self.names):
                symbol = symbol_of(self.market, name)
                self._hub.report_missed(
                    MissedLiquidations(symbol, self._disconnected_us, received_us, None)
                )
            self._disconnected_us = None
        self._received_us = max(received_us, self._received_us)
        if type(frame) is not ForceOrder or frame.order.symbol not in self.names:
            return
        one = liquidation_of(self.market, frame, received_us)
        if self._last.get(one.symbol) != one.id:
            self._last[one.symbol] = one.id
            self._hub.publish(one)


def connect_liquidations(
    settings: Settings, market: Market, hub: LiquidationHub, names: Iterable[str]
) -> LiquidationFeed:
    """Create a feed with a connection to the exchange configured in the settings."""
    # USD-M serves liquidations at the URL of aggTrades.
    url = endpoints_of(settings, market).stream_url_for("aggTrade")
    connect = connecting(
        settings, url, name=f"{market.value}-liquidations", streams=[HEARTBEATS[market]]
    )
    return LiquidationFeed(market, hub, connect, names=names)


def stream_liquidations(
    settings: Settings, hub: LiquidationHub
) -> OnDemandStreams[LiquidationFeed]:
    """Return the streams of the liquidations that readers have subscribed to."""
    return OnDemandStreams(
        hub,
        lambda market, names: connect_liquidations(settings, market, hub, names),
        name="liquidations",
        markets=FUTURES,
        max_symbols=MAX_STREAMS - 1,
    )
