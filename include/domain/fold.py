"""Folding trades into the candle of one minute, row by row.

The columnar twin is ``columnar.fold_trades``; tests hold the two equal.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Protocol

from include.domain.candles import Candle
from include.domain.exact import ZERO, add, multiply, multiply_add


class Fill(Protocol):
    """What the fold needs of a trade or aggTrade.

    ``first_trade_id`` and ``last_trade_id`` are those of the single trades inside.
    """

    @property
    def price(self) -> Decimal: ...
    @property
    def quantity(self) -> Decimal: ...
    @property
    def is_buyer_maker(self) -> bool: ...
    @property
    def first_trade_id(self) -> int: ...
    @property
    def last_trade_id(self) -> int: ...


class CandleBuilder:
    """The open candle of one symbol and minute.

    Trades are given in the order of their ids; whoever calls sees to it that each comes once.
    Void trades (price or quantity zero) must not be given.
    """

    __slots__ = (
        "close",
        "first_trade_id",
        "high",
        "last_trade_id",
        "low",
        "open",
        "open_time_us",
        "quote_volume",
        "symbol",
        "taker_buy_quote_volume",
        "taker_buy_volume",
        "trade_count",
        "volume",
    )

    def __init__(self, symbol: str, open_time_us: int) -> None:
        self.symbol = symbol
        self.open_time_us = open_time_us
        self.open = self.high = self.low = self.close = ZERO
        self.volume = self.quote_volume = ZERO
        self.taker_buy_volume = self.taker_buy_quote_volume = ZERO
        self.trade_count = 0
        self.first_trade_id = self.last_trade_id = -1

    @classmethod
    def from_candle(cls, candle: Candle) -> CandleBuilder:
        """Go on from a candle that holds the minute's trades up to its last id."""
        builder = cls(candle.symbol, candle.open_time_us)
        for name in cls.__slots__:
            setattr(builder, name, getattr(candle, name))
        if candle.first_trade_id is None or candle.last_trade_id is None:
            if candle.trade_count:
                raise ValueError(f"{candle.symbol}: a candle with trades but no ids seeds nothing")
            builder.first_trade_id = builder.last_trade_id = -1
        return builder

    def add(self, fill: Fill) -> None:
        """Fold one more trade or aggTrade, exactly.

        Raises:
            decimal.Inexact: a value needs more than sixty digits.
        """
        price = fill.price
        quantity = fill.quantity
        if self.trade_count:
            if price > self.high:
                self.high = price
            elif price < self.low:
                self.low = price
        else:
            self.open = self.high = self.low = price
            self.first_trade_id = fill.first_trade_id
        self.close = price
        self.volume = add(self.volume, quantity)
        if fill.is_buyer_maker:
            self.quote_volume = multiply_add(price, quantity, self.quote_volume)
        else:
            quote = multiply(price, quantity)
            self.quote_volume = add(self.quote_volume, quote)
            self.taker_buy_volume = add(self.taker_buy_volume, quantity)
            self.taker_buy_quote_volume = add(self.taker_buy_quote_volume, quote)
        self.trade_count += fill.last_trade_id - fill.first_trade_id + 1
        self.last_trade_id = fill.last_trade_id

    def candle(self) -> Candle:
        """The candle as it stands."""
        has_trades = self.trade_count > 0
        return Candle(
            self.symbol,
            self.open_time_us,
            self.open,
            self.high,
            self.low,
            self.close,
            self.volume,
            self.quote_volume,
            self.trade_count,
            self.taker_buy_volume,
            self.taker_buy_quote_volume,
            self.first_trade_id if has_trades else None,
            self.last_trade_id if has_trades else None,
        )
