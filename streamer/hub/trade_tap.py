"""Trades on their way from the candle feeds to readers, while somebody listens.

A feed pays one look at an attribute for each batch of frames, and nothing else while nobody does.
"""

from __future__ import annotations

from functools import partial

from include.binance.streams.messages import AggTrade, Trade, microseconds
from include.domain.instruments import Market, exchange_symbol_of, market_of
from streamer.candles.continuity import IdOrder, SkippingTradeIds
from streamer.candles.feed import TradeTap
from streamer.hub.ticks import MissedTrades, TradeTick
from streamer.hub.trade_hub import TradeHub

_NOT_TOLD = frozenset({IdOrder.REPEATS, IdOrder.VOID})


class TradeTaps:
    """Takes the trades of the symbols that somebody listens to, each once by its id.

    Connections that succeed one another repeat trades, and single trades of USD-M skip ids by
    design; of all others, ids that did not come are told as missed.
    """

    def __init__(self, fan: TradeHub) -> None:
        self.ears = {market: TradeTap() for market in Market}
        """By market, for its feeds."""
        self._fan = fan
        self._known: dict[Market, dict[str, tuple[str, SkippingTradeIds]]] = {
            market: {} for market in Market
        }
        """Symbol and ids so far, by the exchange's name."""
        fan.on_wanted = self._listen

    def _listen(self) -> None:
        wanted = self._fan.wanted
        for market, known in self._known.items():
            names = {exchange_symbol_of(one): one for one in wanted if market_of(one) is market}
            for name in known.keys() - names.keys():
                del known[name]
            for name in names.keys() - known.keys():
                known[name] = (names[name], SkippingTradeIds())
            self.ears[market].hear = partial(self._heard, market) if known else None

    def _heard(self, market: Market, trade: AggTrade | Trade) -> None:
        found = self._known[market].get(trade.symbol)
        if found is None:
            return
        symbol, ids = found
        time_us = microseconds(trade.trade_time)
        step = ids.take(trade, time_us)
        if step in _NOT_TOLD:
            return
        if step is IdOrder.SKIPS and not (market is Market.UM and type(trade) is Trade):
            expected, before_us = ids.broken_at
            if expected is not None and expected < trade.id:
                self._fan.report_missed(
                    MissedTrades(symbol, expected, trade.id - 1, min(before_us, time_us), time_us)
                )
        self._fan.publish(
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
