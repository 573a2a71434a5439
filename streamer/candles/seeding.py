"""Finding where trades go on from a kline, so that a candle joined midway becomes whole.

A kline frame holds the minute's trades up to its last id ``L``. Where ``L`` ends an aggTrade
that came since connecting (or the first one follows it), every later aggTrade is folded onto
the kline. Frames often run ahead of their aggTrades, then one waits for them; where ``L``
lies inside an aggTrade, one waits for the next frame.
"""

from __future__ import annotations

from collections import deque

from include.binance.streams.messages import AggTrade, Kline, Trade, microseconds
from include.domain.timeframes import minute_of

SEED_BUFFER = 4_096
"""Trades kept while waiting for a kline: more than a busy symbol makes between two frames."""


class SeedSearch:
    """Trades since connecting, and the latest kline that may seed their minute.

    Args:
        since_us: the exchange's time from which on all trades came. That a kline of before has no
            trades says nothing of those that were made between, and are missing.
    """

    def __init__(self, since_us: int = 0, *, buffer: int = SEED_BUFFER) -> None:
        self._since_us = since_us
        self.trades: deque[AggTrade | Trade] = deque(maxlen=buffer)
        self._kline: Kline | None = None

    def on_trade(self, trade: AggTrade | Trade) -> tuple[Kline, list[AggTrade | Trade]] | None:
        """Keep a trade; returns the seed and the trades to fold onto it once it is found."""
        self.trades.append(trade)
        return self._match()

    def on_kline(self, kline: Kline) -> tuple[Kline, list[AggTrade | Trade]] | None:
        """Take a frame of the open minute as the candidate; returns as ``on_trade`` does."""
        self._kline = kline
        return self._match()

    def joined_minute_is_over(self, trade_us: int) -> bool:
        """Whether the trade lies in a later minute than the first one kept."""
        return bool(self.trades) and minute_of(trade_us) > minute_of(
            microseconds(self.trades[0].trade_time)
        )

    def _match(self) -> tuple[Kline, list[AggTrade | Trade]] | None:
        kline = self._kline
        if kline is None or not self.trades:
            return None
        first = self.trades[0]
        last_id = kline.body.last_trade_id
        opens_silently = (
            kline.body.trade_count == 0
            and microseconds(kline.event_time) >= self._since_us
            and minute_of(microseconds(first.trade_time)) == microseconds(kline.body.open_time)
        )
        if opens_silently or first.first_trade_id == last_id + 1:
            return kline, list(self.trades)
        if last_id > self.trades[-1].last_trade_id:
            return None
        for index, trade in enumerate(self.trades):
            if trade.last_trade_id == last_id:
                return kline, list(self.trades)[index + 1 :]
        self._kline = None
        return None
