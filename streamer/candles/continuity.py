"""Trade ids of one symbol, in the order in which trades come: what follows, what is missing."""

from __future__ import annotations

import enum
from collections import deque

from include.binance.streams.messages import AggTrade, Trade
from include.domain.exact import ZERO
from include.domain.instruments import REUSED_AFTER_US

HELD_US = 250_000
"""Of the exchange: a trade that overtook others waits so long for them. Frames of one stream that
change places do so within milliseconds; the longer the wait, the later a true hole is mended."""
MAX_OVERTAKEN = 64
"""Ids of a hole that is larger are missing, not late."""
MAX_HELD = 256
"""Trades that wait."""
WAITING = -2
"""No trade's id."""
REMEMBERED = 256
"""Ids that are told apart one by one where they skip by design; older ones count as repeats."""


class IdOrder(enum.Enum):
    """What a trade is to those before it."""

    FIRST = enum.auto()
    FOLLOWS = enum.auto()
    SKIPS = enum.auto()
    """Ids lie between; on streams whose ids skip by design this says nothing."""
    REPEATS = enum.auto()
    VOID = enum.auto()
    """It never happened: no price or quantity, or marked so by its trade ids."""
    RESTARTS = enum.auto()
    WAITS = enum.auto()
    """Ids before it may be on their way: it is held until they are here, or held no longer."""
    OVERTAKEN = enum.auto()
    """It is what others wait for: to be taken once more, and those behind it."""
    PRECEDES = enum.auto()
    """It was overtaken by the first one that came, and is ``first_id`` now, or ids lie between."""


FOLLOWS = IdOrder.FOLLOWS  # a look into an enumeration costs more than the comparison
_SETS_NOTHING = frozenset({IdOrder.REPEATS, IdOrder.WAITS, IdOrder.OVERTAKEN, IdOrder.PRECEDES})
"""Where what comes next stays as it is: some of these are taken later, or once more."""


class TradeIds:
    """The ids seen so far.

    Attributes:
        next_id: what the next trade should bear; None before the first, ``WAITING`` while trades
            wait for others. No trade bears that: each is looked at then, and the usual case, in
            which none waits, pays nothing for it.
        first_id: from it on, each id that came is told.
        last_trade_us: the youngest trade's time.
        broken_at: `next_id` and `last_trade_us` before the last trade that did not follow.
        overtaken: trades that came behind others with larger ids.
        may_wait: whether trades wait for those that they may have overtaken.
    """

    __slots__ = (
        "_behind",
        "_expected_id",
        "_held",
        "_held_until_us",
        "_last_fill_id",
        "_void_until",
        "broken_at",
        "first_id",
        "last_trade_us",
        "may_wait",
        "next_id",
        "overtaken",
    )

    def __init__(self) -> None:
        self.next_id: int | None = None
        self.last_trade_us = 0
        self.broken_at: tuple[int | None, int] = (None, 0)
        self.overtaken = 0
        self.may_wait = True
        self.first_id = 0
        self._last_fill_id = 0
        self._void_until = -1
        self._expected_id = 0
        """The next id, while trades wait for it."""
        self._held: dict[int, AggTrade | Trade] = {}
        self._behind: list[AggTrade | Trade] = []
        """What comes behind those that are held, whatever its id."""
        self._held_until_us = 0

    def take(self, trade: AggTrade | Trade, trade_us: int) -> IdOrder:
        """Note a trade and say what it is.

        A void trade does not use up its id: the true one may come under the same.
        """
        trade_id = trade.id
        if trade.price <= ZERO or trade.quantity <= ZERO or trade.first_trade_id < 0:
            expected_id = self._expected_id if self.next_id == WAITING else self.next_id
            if trade_id in (expected_id, self._void_until):
                self._void_until = trade_id + 1
            return IdOrder.VOID
        step = FOLLOWS
        if trade_id != self.next_id:
            step = self._step_of(trade, trade_us)
            if step is IdOrder.SKIPS and self.may_wait:
                step = self._begin_to_wait(trade, trade_us)
            if step in _SETS_NOTHING:
                return step
            if step is IdOrder.FIRST or step is IdOrder.RESTARTS:
                self.first_id = trade_id
            self.broken_at = (self.next_id, self.last_trade_us)
        self.next_id = trade_id + 1
        self._last_fill_id = trade.last_trade_id
        if trade_us > self.last_trade_us:
            self.last_trade_us = trade_us
        return step

    @property
    def has_held(self) -> bool:
        """Whether trades wait for others."""
        return self.next_id == WAITING

    def is_over(self, now_us: int, *, known_to: int = -1) -> bool:
        """Whether trades have waited long enough.

        Args:
            now_us: the exchange's time.
            known_to: the last single trade of a kline: where it has those that wait, it can seed
                a fold that goes on from them.
        """
        if self.next_id != WAITING:
            return False
        held = self._held.values()
        return now_us >= self._held_until_us or all(one.last_trade_id <= known_to for one in held)

    def release(self) -> list[AggTrade | Trade]:
        """Trades that wait, in order, to be taken once more."""
        released = [*(trade for _, trade in sorted(self._held.items())), *self._behind]
        self._held.clear()
        self._behind.clear()
        if self.next_id == WAITING:
            self.next_id = self._expected_id
        return released

    def _step_of(self, trade: AggTrade | Trade, trade_us: int) -> IdOrder:
        """What a trade is whose id is not the next one."""
        if self.next_id is None:
            return IdOrder.FIRST
        if self.next_id == WAITING:
            return self._while_waiting(trade, trade_us)
        if trade.id < self.next_id:
            return self._before(trade, trade_us)
        if trade.id == self._void_until and trade.first_trade_id == self._last_fill_id + 1:
            return FOLLOWS  # only void ids lie between, and no trade of theirs
        return IdOrder.SKIPS

    def _before(self, trade: AggTrade | Trade, trade_us: int) -> IdOrder:
        """What a trade is whose id is smaller than the next one."""
        if trade_us >= self.last_trade_us + REUSED_AFTER_US:
            return IdOrder.RESTARTS
        if not self.first_id - MAX_OVERTAKEN <= trade.id < self.first_id or not self.may_wait:
            return IdOrder.REPEATS
        if trade.id == self.first_id - 1:
            self.first_id = trade.id
        self.overtaken += 1
        return IdOrder.PRECEDES

    def _begin_to_wait(self, trade: AggTrade | Trade, trade_us: int) -> IdOrder:
        if self.next_id is None or trade.id - self.next_id > MAX_OVERTAKEN:
            return IdOrder.SKIPS
        self._expected_id, self.next_id = self.next_id, WAITING
        self._held[trade.id] = trade
        self._held_until_us = trade_us + HELD_US
        return IdOrder.WAITS

    def _while_waiting(self, trade: AggTrade | Trade, trade_us: int) -> IdOrder:
        if trade.id == self._expected_id:
            self.next_id = self._expected_id
            self.overtaken += 1
            return IdOrder.OVERTAKEN
        if trade.id in self._held:
            return IdOrder.REPEATS
        if trade.id < self._expected_id:
            step = self._before(trade, trade_us)
            if step is not IdOrder.RESTARTS:
                return step
            self._behind.append(trade)
            self._held_until_us = 0
            return IdOrder.WAITS
        self.overtaken += trade.id < max(self._held)
        self._held[trade.id] = trade
        if trade.id - self._expected_id > MAX_OVERTAKEN or len(self._held) >= MAX_HELD:
            self._held_until_us = 0
        return IdOrder.WAITS


class SkippingTradeIds(TradeIds):
    """Of a stream whose ids skip by design (raw trades of USD-M).

    A smaller id says by itself neither that it was seen nor that it was not: the last ones are
    remembered. A trade that was overtaken on its way comes as one that skips, once.
    """

    __slots__ = ("_order", "_recent", "_until_id")

    def __init__(self) -> None:
        super().__init__()
        self.may_wait = False  # ids that are missing say nothing
        self._recent: set[int] = set()
        self._order: deque[int] = deque()
        self._until_id = -1
        """Up to here ids are forgotten."""

    def take(self, trade: AggTrade | Trade, trade_us: int) -> IdOrder:
        """Note a trade and say what it is; one that was overtaken skips."""
        step = super().take(trade, trade_us)
        if step is IdOrder.VOID:
            return step
        if step is IdOrder.RESTARTS:
            self._recent.clear()
            self._order.clear()
            self._until_id = -1
        elif step is IdOrder.REPEATS:
            if trade.id <= self._until_id or trade.id in self._recent:
                return step
            step = IdOrder.SKIPS
            self.broken_at = (self.next_id, self.last_trade_us)
        self._recent.add(trade.id)
        self._order.append(trade.id)
        if len(self._order) > REMEMBERED:
            forgotten = self._order.popleft()
            self._recent.discard(forgotten)
            self._until_id = max(self._until_id, forgotten)
        return step
