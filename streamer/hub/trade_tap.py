"""Pass trades from the candle feeds to readers while readers subscribe.

Without readers, the cost is one attribute look-up per batch of frames.
"""

from __future__ import annotations

from functools import partial

from include.binance.streams.messages import AggTrade, Trade, microseconds
from include.domain.instruments import Market, exchange_symbol_of, market_of
from streamer.candles.feed import TradeTap
from streamer.candles.trade_ids import IdOrder, SkippingTradeIds
from streamer.hub.ticks import MissedTrades, TradeTick
from streamer.hub.trade_hub import TradeHub

_NOT_PUBLISHED = frozenset({IdOrder.REPEATS, IdOrder.VOID, IdOrder.NOT_MARKET})


class TradeTaps:
    """Publishes the trades of subscribed symbols, each once by its id.

    Connections repeat trades in a handover, and single trades of futures skip ids by design. Of all
    other trades, ids that did not arrive are reported as missed.

    Attributes:
        taps: one for the feeds of each market.
    """

    def __init__(self, hub: TradeHub) -> None:
        self.taps = {market: TradeTap() for market in Market}
        self._hub = hub
        self._subscribed: dict[Market, dict[str, tuple[str, SkippingTradeIds]]] = {
            market: {} for market in Market
        }
        """Symbol and ids so far, by the exchange's name."""
        hub.on_wanted = self._subscribe

    def _subscribe(self) -> None:
        wanted = self._hub.wanted
        for market, subscribed in self._subscribed.items():
            names = {exchange_symbol_of(one): one for one in wanted if market_of(one) is market}
            for name in subscribed.keys() - names.keys():
                del subscribed[name]
            for name in names.keys() - subscribed.keys():
                subscribed[name] = (names[name], SkippingTradeIds())
            self.taps[market].on_trade = partial(self._on_trade, market) if subscribed else None

    def _on_trade(self, market: Market, trade: AggTrade | Trade) -> None:
        found = self._subscribed[market].get(trade.symbol)
        if found is None:
            return
        symbol, ids = found
        time_us = microseconds(trade.trade_time)
        order = ids.add(trade, time_us)
        if order in _NOT_PUBLISHED:
            return
        if order is IdOrder.SKIPS and not (market.is_futures and type(trade) is Trade):
            expected, before_us = ids.broken_at
            if expected is not None and expected < trade.id:
                self._hub.report_missed(
                    MissedTrades(symbol, expected, trade.id - 1, min(before_us, time_us), time_us)
                )
        self._hub.publish(
            TradeTick(
                symbol,
                trade.id,
                trade.price,
                trade.quantity,
                trade.first_trade_id,
                trade.last_trade_id,
                time_us,
                trade.is_buyer_maker,
            )
        )
