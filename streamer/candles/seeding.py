"""Find where trades continue a kline, so that a candle joined in mid-minute becomes whole.

A kline covers the minute's trades up to its last trade id. If an aggTrade received since
connecting ends with that id, or the first one received starts right after it, every later aggTrade
is added to the kline. Klines often arrive before their aggTrades; the search then waits for the
trades. If the id lies inside an aggTrade, the search waits for the next kline.
"""

from __future__ import annotations

from collections import deque

from include.binance.streams.messages import AggTrade, Kline, Trade, microseconds
from include.domain.timeframes import minute_of

SEED_BUFFER = 4_096
"""Trades held while waiting for a kline: more than a busy symbol makes between two klines."""


class SeedSearch:
    """Collects trades and klines since connecting until a kline fits the trades.

    Args:
        since_us: exchange time since which all trades arrived. A kline without trades
            is usable only if it was sent at this time or later: trades between an earlier kline and
            this time may be missing.
    """

    def __init__(self, since_us: int = 0, *, buffer: int = SEED_BUFFER) -> None:
        self._since_us = since_us
        self.trades: deque[AggTrade | Trade] = deque(maxlen=buffer)
        self._kline: Kline | None = None

    def on_trade(self, trade: AggTrade | Trade) -> tuple[Kline, list[AggTrade | Trade]] | None:
        """Add a trade; return the seed and the trades that follow it once they are found."""
        self.trades.append(trade)
        return self._match()

    def on_kline(self, kline: Kline) -> tuple[Kline, list[AggTrade | Trade]] | None:
        """Try a kline of the open minute; return the same as ``on_trade``."""
        self._kline = kline
        return self._match()

    def covers(self, kline: Kline) -> bool:
        """Whether all trades of a closed kline have been collected."""
        return (
            bool(self.trades)
            and kline.body.trade_count > 0
            and self.trades[0].first_trade_id <= kline.body.first_trade_id
            and self.trades[-1].last_trade_id >= kline.body.last_trade_id
        )

    def joined_minute_is_over(self, trade_us: int) -> bool:
        """Whether a trade lies in a later minute than the first one collected."""
        return bool(self.trades) and minute_of(trade_us) > minute_of(
            microseconds(self.trades[0].trade_time)
        )

    def _match(self) -> tuple[Kline, list[AggTrade | Trade]] | None:
        kline = self._kline
        if kline is None or not self.trades:
            return None
        first = self.trades[0]
        last_id = kline.body.last_trade_id
        opens_without_trades = (
            kline.body.trade_count == 0
            and microseconds(kline.event_time) >= self._since_us
            and minute_of(microseconds(first.trade_time)) == microseconds(kline.body.open_time)
        )
        if opens_without_trades or first.first_trade_id == last_id + 1:
            return kline, list(self.trades)
        if last_id > self.trades[-1].last_trade_id:
            return None
        for index, trade in enumerate(self.trades):
            if trade.last_trade_id == last_id:
                return kline, list(self.trades)[index + 1 :]
        self._kline = None
        return None
