"""Aggregate trades into the candle of one minute, row by row.

The columnar equivalent is ``columns.candles.aggregate_trades``; tests compare the two.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Protocol

from include.domain.candles import Candle
from include.domain.exact import ZERO, add, multiply_add, subtract, without_product_zeros


class Fill(Protocol):
    """The fields of a trade or aggTrade that aggregation needs.

    ``first_trade_id`` and ``last_trade_id`` are the ids of the single trades in it.
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

    The caller passes trades in the order of their ids, each once, and no void trades (price or
    quantity zero).
    """

    __slots__ = (
        "close",
        "first_trade_id",
        "high",
        "last_trade_id",
        "low",
        "open",
        "open_time_us",
        "symbol",
        "taker_buy_quote_volume",
        "taker_buy_volume",
        "taker_sell_quote_volume",
        "taker_sell_volume",
        "trade_count",
    )

    def __init__(self, symbol: str, open_time_us: int) -> None:
        self.symbol = symbol
        self.open_time_us = open_time_us
        self.open = self.high = self.low = self.close = ZERO
        # Each side is summed separately: a trade adds to one side, and totals are computed on
        # request.
        self.taker_buy_volume = self.taker_buy_quote_volume = ZERO
        self.taker_sell_volume = self.taker_sell_quote_volume = ZERO
        self.trade_count = 0
        self.first_trade_id = self.last_trade_id = -1

    @classmethod
    def from_candle(cls, candle: Candle) -> CandleBuilder:
        """Continue from a candle with the minute's trades up to its last id."""
        builder = cls(candle.symbol, candle.open_time_us)
        builder.open, builder.high = candle.open, candle.high
        builder.low, builder.close = candle.low, candle.close
        bought, bought_quote = candle.taker_buy_volume, candle.taker_buy_quote_volume
        builder.taker_buy_volume, builder.taker_buy_quote_volume = bought, bought_quote
        builder.taker_sell_volume = subtract(candle.volume, bought)
        builder.taker_sell_quote_volume = subtract(candle.quote_volume, bought_quote)
        builder.trade_count = candle.trade_count
        if candle.first_trade_id is not None and candle.last_trade_id is not None:
            builder.first_trade_id = candle.first_trade_id
            builder.last_trade_id = candle.last_trade_id
        elif candle.trade_count:
            raise ValueError(
                f"{candle.symbol}: cannot continue from a candle with trades but no ids"
            )
        return builder

    @property
    def volume(self) -> Decimal:
        """Total volume, in the base asset."""
        return add(self.taker_buy_volume, self.taker_sell_volume)

    @property
    def quote_volume(self) -> Decimal:
        """Total volume, in the quote asset."""
        return add(self.taker_buy_quote_volume, self.taker_sell_quote_volume)

    def add(self, fill: Fill) -> None:
        """Add one more trade or aggTrade, exactly.

        Raises:
            decimal.Inexact: a value needs more than sixty digits.
        """
        price = fill.price
        quantity = fill.quantity
        first_id, last_id = fill.first_trade_id, fill.last_trade_id
        if self.trade_count:
            if price > self.high:
                self.high = price
            elif price < self.low:
                self.low = price
        else:
            self.open = self.high = self.low = price
            self.first_trade_id = first_id
        self.close = price
        if fill.is_buyer_maker:
            self.taker_sell_volume = add(self.taker_sell_volume, quantity)
            self.taker_sell_quote_volume = multiply_add(
                price, quantity, self.taker_sell_quote_volume
            )
        else:
            self.taker_buy_volume = add(self.taker_buy_volume, quantity)
            self.taker_buy_quote_volume = multiply_add(price, quantity, self.taker_buy_quote_volume)
        self.trade_count += last_id - first_id + 1
        self.last_trade_id = last_id

    def add_anywhere(self, fill: Fill) -> None:
        """Add a trade that may arrive after newer ones: ids decide open and close."""
        had_trades, close, last_id = self.trade_count, self.close, self.last_trade_id
        self.add(fill)
        if not had_trades:
            return
        if fill.first_trade_id < self.first_trade_id:
            self.open, self.first_trade_id = fill.price, fill.first_trade_id
        if fill.last_trade_id < last_id:
            self.close, self.last_trade_id = close, last_id

    def candle(self) -> Candle:
        """Return the candle in its present state."""
        has_trades = self.trade_count > 0
        return Candle(
            self.symbol,
            self.open_time_us,
            self.open,
            self.high,
            self.low,
            self.close,
            self.volume,
            without_product_zeros(self.quote_volume),
            self.trade_count,
            self.taker_buy_volume,
            without_product_zeros(self.taker_buy_quote_volume),
            self.first_trade_id if has_trades else None,
            self.last_trade_id if has_trades else None,
        )
