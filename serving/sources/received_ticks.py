"""Passes trades and book tickers that came from other processes to this process's readers.

Trade ids show which trades are missing.
"""

from __future__ import annotations

from collections.abc import Iterable

from include.domain.instruments import market_of
from serving.protobuf.generated.candelabra.v1 import market_data_pb2 as pb
from serving.protobuf.ticks import book_ticker_update_of, missed_range_of, trade_tick_of
from streamer.hub.ticks import MissedTrades, TradeTick
from streamer.hub.trade_hub import TickHubs


class ReceivedTicks:
    """Hubs that are fed by messages."""

    def __init__(self) -> None:
        self.hubs = TickHubs()
        self._last: dict[str, TradeTick] = {}
        """The last trade of each symbol with readers."""

    def trades(
        self,
        trades: Iterable[pb.Trade],
        missed: Iterable[pb.MissedTrades],
        *,
        is_broken: bool = False,
    ) -> None:
        """Publish received trades.

        Args:
            is_broken: messages before this one were lost.
        """
        hub = self.hubs.trades
        wanted = hub.wanted
        for symbol in self._last.keys() - wanted:
            del self._last[symbol]
        for one in missed:
            hub.report_missed(missed_range_of(one))
        for message in trades:
            if message.symbol not in wanted:
                continue
            trade = trade_tick_of(message)
            last = self._last.get(trade.symbol)
            if last is not None and _skips(last, trade, is_broken=is_broken):
                hub.report_missed(
                    MissedTrades(
                        trade.symbol, last.id + 1, trade.id - 1, last.time_us, trade.time_us
                    )
                )
            is_broken = False
            self._last[trade.symbol] = trade
            hub.publish(trade)

    def book_tickers(self, message: pb.StreamBookTickersResponse) -> None:
        """Publish received book tickers."""
        for one in message.book_tickers:
            self.hubs.book_tickers.publish(book_ticker_update_of(one))


def _skips(last: TradeTick, trade: TradeTick, *, is_broken: bool) -> bool:
    """Whether trades are missing between two; single trades of futures skip ids by design."""
    if trade.id <= last.id + 1:
        return False
    is_single = trade.id == trade.first_trade_id == trade.last_trade_id
    return is_broken or not (is_single and market_of(trade.symbol).is_futures)
