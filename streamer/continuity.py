"""Trade ids of one symbol, in the order in which trades come: what follows, what is missing."""

from __future__ import annotations

import enum
from collections import deque

from include.binance.frames import AggTrade, Trade
from include.domain.exact import ZERO
from include.domain.timeframes import MINUTE_US

RESTARTED_AFTER_US = MINUTE_US
"""A smaller id is a repeat, unless its trade is this much younger than any before: then the
ticker was given to another instrument, whose ids begin anew."""
REMEMBERED = 256
"""Ids that are told apart one by one where they skip by design; older ones count as repeats."""


class Step(enum.Enum):
    """What a trade is to those before it."""

    FIRST = enum.auto()
    FOLLOWS = enum.auto()
    SKIPS = enum.auto()
    """Ids lie between; on streams whose ids skip by design this says nothing."""
    REPEATS = enum.auto()
    VOID = enum.auto()
    """It never happened: no price or quantity, or marked so by its trade ids."""
    RESTARTS = enum.auto()


FOLLOWS = Step.FOLLOWS  # a look into an enumeration costs more than the comparison


class TradeIds:
    """The ids seen so far.

    Attributes:
        next_id: what the next trade should bear; None before the first.
        last_trade_us: the youngest trade's time.
        broken_at: `next_id` and `last_trade_us` before the last trade that did not follow.
    """

    __slots__ = ("_last_fill_id", "_void_until", "broken_at", "last_trade_us", "next_id")

    def __init__(self) -> None:
        self.next_id: int | None = None
        self.last_trade_us = 0
        self.broken_at: tuple[int | None, int] = (None, 0)
        self._last_fill_id = 0
        self._void_until = -1

    def take(self, trade: AggTrade | Trade, trade_us: int) -> Step:
        """Note a trade and say what it is.

        A void trade does not use up its id: the true one may come under the same.
        """
        trade_id = trade.id
        if trade.price <= ZERO or trade.quantity <= ZERO or trade.first_trade_id < 0:
            if trade_id in (self.next_id, self._void_until):
                self._void_until = trade_id + 1
            return Step.VOID
        step = FOLLOWS
        if trade_id != self.next_id:
            step = self._step_of(trade, trade_us)
            if step is Step.REPEATS:
                return step
            self.broken_at = (self.next_id, self.last_trade_us)
        self.next_id = trade_id + 1
        self._last_fill_id = trade.last_trade_id
        if trade_us > self.last_trade_us:
            self.last_trade_us = trade_us
        return step

    def _step_of(self, trade: AggTrade | Trade, trade_us: int) -> Step:
        """What a trade is whose id is not the next one."""
        if self.next_id is None:
            return Step.FIRST
        if trade.id < self.next_id:
            is_old = trade_us < self.last_trade_us + RESTARTED_AFTER_US
            return Step.REPEATS if is_old else Step.RESTARTS
        if trade.id == self._void_until and trade.first_trade_id == self._last_fill_id + 1:
            return FOLLOWS  # only void ids lie between, and no trade of theirs
        return Step.SKIPS


class SkippingTradeIds(TradeIds):
    """Of a stream whose ids skip by design (raw trades of USD-M).

    A smaller id says by itself neither that it was seen nor that it was not: the last ones are
    remembered. A trade that was overtaken on its way comes as one that skips, once.
    """

    __slots__ = ("_order", "_recent", "_until_id")

    def __init__(self) -> None:
        super().__init__()
        self._recent: set[int] = set()
        self._order: deque[int] = deque()
        self._until_id = -1
        """Up to here ids are forgotten."""

    def take(self, trade: AggTrade | Trade, trade_us: int) -> Step:
        """Note a trade and say what it is; one that was overtaken skips."""
        step = super().take(trade, trade_us)
        if step is Step.VOID:
            return step
        if step is Step.RESTARTS:
            self._recent.clear()
            self._order.clear()
            self._until_id = -1
        elif step is Step.REPEATS:
            if trade.id <= self._until_id or trade.id in self._recent:
                return step
            step = Step.SKIPS
            self.broken_at = (self.next_id, self.last_trade_us)
        self._recent.add(trade.id)
        self._order.append(trade.id)
        if len(self._order) > REMEMBERED:
            forgotten = self._order.popleft()
            self._recent.discard(forgotten)
            self._until_id = max(self._until_id, forgotten)
        return step
