"""Order one symbol's trades by id: detect which trade follows, repeats, or shows missing ids."""

from __future__ import annotations

import enum
from collections import deque

from include.binance.streams.messages import AggTrade, Trade
from include.domain.exact import ZERO
from include.domain.instruments import REUSED_AFTER_US

HELD_US = 250_000
"""Exchange time for which a trade waits for smaller ids. Frames of one stream are reordered by
milliseconds only; a longer wait would delay the repair of trades that are really missing."""
MAX_OVERTAKEN = 64  # a larger skip of ids is missing trades, not reordering
MAX_HELD = 256  # maximum held trades; beyond this the wait ends
WAITING = -2
"""Value of ``next_id`` while trades wait. No trade has this id, so every trade takes the slow path
until the wait ends; the usual case, without waiting trades, needs no extra check."""
REMEMBERED = 256
"""Recent ids remembered if ids skip by design; an older id counts as a repeat."""


class IdOrder(enum.Enum):
    """Relation of a trade to the trades received before it."""

    FIRST = enum.auto()
    FOLLOWS = enum.auto()
    SKIPS = enum.auto()
    """Ids between the previous trade and this one are missing, except on streams that skip ids by
    design."""
    REPEATS = enum.auto()
    VOID = enum.auto()
    """Not a real trade: it has no price or quantity, or its trade ids mark it as void."""
    RESTARTS = enum.auto()
    WAITS = enum.auto()
    """Smaller ids may still arrive: the trade is held until they do or the wait times out."""
    OVERTAKEN = enum.auto()
    """Held trades waited for this one: add it again, then the released trades."""
    PRECEDES = enum.auto()
    """Older than the first trade received; becomes ``first_id`` unless ids lie between."""
    NOT_MARKET = enum.auto()
    """A fill that no candle counts (insurance fund, auto-deleveraging); it uses up its id."""


FOLLOWS = IdOrder.FOLLOWS  # alias: enum lookup is slow on this path
_LEAVE_NEXT_ID = frozenset({IdOrder.REPEATS, IdOrder.WAITS, IdOrder.OVERTAKEN, IdOrder.PRECEDES})
"""Relations that do not change ``next_id``; some of these trades are added again later."""


class TradeIds:
    """The ids received so far.

    Attributes:
        next_id: the id expected next; None before the first trade, ``WAITING`` while trades wait.
        first_id: every id from this one on was received or reported.
        last_trade_us: time of the newest trade.
        broken_at: ``next_id`` and ``last_trade_us`` before the last trade that did not follow.
        overtaken: number of trades that arrived after larger ids.
        may_wait: whether trades wait for smaller ids.
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
        self._expected_id = 0  # the expected id, while trades wait for it
        self._held: dict[int, AggTrade | Trade] = {}
        self._behind: list[AggTrade | Trade] = []  # trades of a new instrument during a wait
        self._held_until_us = 0

    def add(self, trade: AggTrade | Trade, trade_us: int) -> IdOrder:
        """Add a trade and classify it.

        A void trade does not use up its id: a real trade may follow with the same id.
        """
        trade_id = trade.id
        if trade.price <= ZERO or trade.quantity <= ZERO or trade.first_trade_id < 0:
            expected_id = self._expected_id if self.next_id == WAITING else self.next_id
            if trade_id in (expected_id, self._void_until):
                self._void_until = trade_id + 1
            return IdOrder.VOID
        order = FOLLOWS
        if trade_id != self.next_id:
            order = self._order_of(trade, trade_us)
            if order is IdOrder.SKIPS and self.may_wait:
                order = self._begin_to_wait(trade, trade_us)
            if order in _LEAVE_NEXT_ID:
                return order
            if order is IdOrder.FIRST or order is IdOrder.RESTARTS:
                self.first_id = trade_id
            self.broken_at = (self.next_id, self.last_trade_us)
        self.next_id = trade_id + 1
        self._last_fill_id = trade.last_trade_id
        if trade_us > self.last_trade_us:
            self.last_trade_us = trade_us
        return order

    @property
    def has_held(self) -> bool:
        """Whether trades wait for smaller ids."""
        return self.next_id == WAITING

    def wait_is_over(self, now_us: int, *, kline_last_id: int = -1) -> bool:
        """Whether held trades have waited long enough.

        Args:
            now_us: exchange time.
            kline_last_id: last trade id of a kline. If the kline includes the held trades, it can
                seed a candle that continues after them.
        """
        if self.next_id != WAITING:
            return False
        held = self._held.values()
        return now_us >= self._held_until_us or all(
            one.last_trade_id <= kline_last_id for one in held
        )

    def release(self) -> list[AggTrade | Trade]:
        """Stop waiting; return the held trades in order, to be added again."""
        released = [*(trade for _, trade in sorted(self._held.items())), *self._behind]
        self._held.clear()
        self._behind.clear()
        if self.next_id == WAITING:
            self.next_id = self._expected_id
        return released

    def _order_of(self, trade: AggTrade | Trade, trade_us: int) -> IdOrder:
        """Classify a trade whose id is not the next one."""
        if self.next_id is None:
            return IdOrder.FIRST
        if self.next_id == WAITING:
            return self._while_waiting(trade, trade_us)
        if trade.id < self.next_id:
            return self._before(trade, trade_us)
        if trade.id == self._void_until and trade.first_trade_id == self._last_fill_id + 1:
            return FOLLOWS  # only ids of void trades lie between
        return IdOrder.SKIPS

    def _before(self, trade: AggTrade | Trade, trade_us: int) -> IdOrder:
        """Classify a trade whose id is smaller than the next one."""
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
            order = self._before(trade, trade_us)
            if order is not IdOrder.RESTARTS:
                return order
            self._behind.append(trade)
            self._held_until_us = 0
            return IdOrder.WAITS
        self.overtaken += trade.id < max(self._held)
        self._held[trade.id] = trade
        if trade.id - self._expected_id > MAX_OVERTAKEN or len(self._held) >= MAX_HELD:
            self._held_until_us = 0
        return IdOrder.WAITS


class SkippingTradeIds(TradeIds):
    """Ids of a stream that skips ids by design (single trades of futures).

    Only this stream sends fills that are not trades of the market.
    A smaller id does not show whether the trade was received before, so recent ids are remembered.
    A trade that was overtaken is classified as ``SKIPS``, once.
    """

    __slots__ = ("_order", "_recent", "_until_id")

    def __init__(self) -> None:
        super().__init__()
        self.may_wait = False  # a skipped id proves nothing here
        self._recent: set[int] = set()
        self._order: deque[int] = deque()
        self._until_id = -1  # ids up to here are no longer remembered

    def add(self, trade: AggTrade | Trade, trade_us: int) -> IdOrder:
        """Add a trade and classify it; an overtaken trade is ``SKIPS``.

        A non-market fill never begins or restarts the ids: the next trade does.
        """
        if type(trade) is Trade and not trade.is_market:
            if trade.id == self.next_id:
                self.next_id = trade.id + 1
            return IdOrder.NOT_MARKET
        order = super().add(trade, trade_us)
        if order is IdOrder.VOID:
            return order
        if order is IdOrder.RESTARTS:
            self._recent.clear()
            self._order.clear()
            self._until_id = -1
        elif order is IdOrder.REPEATS:
            if trade.id <= self._until_id or trade.id in self._recent:
                return order
            order = IdOrder.SKIPS
            self.broken_at = (self.next_id, self.last_trade_us)
        self._recent.add(trade.id)
        self._order.append(trade.id)
        if len(self._order) > REMEMBERED:
            forgotten = self._order.popleft()
            self._recent.discard(forgotten)
            self._until_id = max(self._until_id, forgotten)
        return order
