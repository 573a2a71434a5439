"""Trades, book tickers and liquidations, and the subscriptions that deliver them to readers.

A reader receives every trade; trades evicted because the reader is too slow are reported by their
ids, and evicted liquidations by their number. Of book tickers, a reader receives the newest of each
symbol.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Generic, TypeVar

import msgspec

from include.domain.books.order_book import BookTop
from include.store.trades.liquidations import Liquidation
from streamer.hub.mailbox import Mailbox

BATCH_TICKS = 500
"""Maximum ticks of one batch; sending them blocks the event loop for a few ms."""
BOOK_LEVELS = 20
"""Levels of each side that a subscription to order books has by default."""
MAX_TRADES_WAITING = 5_000
"""Trades that may wait for a reader, over all its symbols."""
MAX_LIQUIDATIONS_WAITING = 1_000
"""Liquidations that may wait for a reader, over all its symbols."""


class TradeTick(msgspec.Struct, frozen=True, gc=False):
    """A trade as the exchange streams it.

    Attributes:
        id: of the aggTrade, or of the single trade if the streamer aggregates single trades.
        quantity: in the base asset.
        is_buyer_maker: the taker sold.
    """

    symbol: str
    id: int
    price: Decimal
    quantity: Decimal
    first_trade_id: int
    last_trade_id: int
    time_us: int
    is_buyer_maker: bool


class BookTickerUpdate(msgspec.Struct, frozen=True, gc=False):
    """The best bid and ask of a symbol. Numbers are the exchange's own text.

    Attributes:
        update_id: ascends for each symbol.
        event_us: the exchange's time; None for spot, where the exchange sends none.
        received_us: when the frame arrived, by the clock of the streaming machine.
    """

    symbol: str
    update_id: int
    bid_price: str
    bid_quantity: str
    ask_price: str
    ask_quantity: str
    event_us: int | None
    received_us: int


@dataclass(frozen=True, slots=True)
class MissedTrades:
    """Trades that a reader did not receive: ids and times (µs), both ends included.

    The reader may have received some between the ends.
    """

    symbol: str
    first_id: int
    last_id: int
    from_us: int
    to_us: int

    def union(self, other: MissedTrades) -> MissedTrades:
        """Cover both, and everything between them."""
        return MissedTrades(
            self.symbol,
            min(self.first_id, other.first_id),
            max(self.last_id, other.last_id),
            min(self.from_us, other.from_us),
            max(self.to_us, other.to_us),
        )


class BookUpdate(msgspec.Struct, frozen=True, gc=False):
    """The order book of a symbol at its last update.

    Attributes:
        event_us: event time of that update, by the exchange; 0 before the first.
        top: the best levels; None while the book is unknown: after a break, until a snapshot.
    """

    symbol: str
    event_us: int
    top: BookTop | None


@dataclass(frozen=True, slots=True)
class MissedLiquidations:
    """Liquidations that a reader did not receive, between two times (µs), both included.

    Attributes:
        count: None if nobody knows: messages of the exchange were lost.
    """

    symbol: str
    from_us: int
    to_us: int
    count: int | None

    def union(self, other: MissedLiquidations) -> MissedLiquidations:
        """Cover both, and everything between them."""
        is_known = self.count is not None and other.count is not None
        return MissedLiquidations(
            self.symbol,
            min(self.from_us, other.from_us),
            max(self.to_us, other.to_us),
            (self.count or 0) + (other.count or 0) if is_known else None,
        )


Tick = TypeVar("Tick", TradeTick, BookTickerUpdate, BookUpdate, Liquidation)
MissedTick = TypeVar("MissedTick", MissedTrades, MissedLiquidations)


@dataclass(frozen=True, slots=True)
class Ticks(Generic[Tick, MissedTick]):
    """Ticks since the previous batch, in order."""

    ticks: list[Tick]
    missed: list[MissedTick] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.ticks or self.missed)


class TickSubscription(Mailbox[tuple[str, int], Tick, str, MissedTick], Generic[Tick, MissedTick]):
    """Ticks for one reader; a hub makes it.

    Attributes:
        symbols: the subscribed symbols; only the hub changes them.
    """

    def __init__(
        self, capacity: Callable[[], int] | None, on_unsubscribe: Callable[[Any], None]
    ) -> None:
        super().__init__(capacity, on_unsubscribe=on_unsubscribe)
        self.symbols: set[str] = set()

    async def receive(self, limit: int = BATCH_TICKS) -> Ticks[Tick, MissedTick] | None:
        """Wait for ticks; None once everything was received and the subscription has ended."""
        while await self.ready():
            if found := self.drain(limit):
                return found
        return None

    def drain(self, limit: int = BATCH_TICKS) -> Ticks[Tick, MissedTick]:
        """Return the ticks so far, without waiting; empty if there are none."""
        ticks = [tick for _, tick in self.take(limit)]
        return Ticks(ticks, list(self.take_missed().values()))

    def remove(self, symbol: str) -> None:
        """Discard the waiting ticks of a symbol."""
        self.discard(lambda key: key[0] == symbol)
        self._missed.pop(symbol, None)


class TradeSubscription(TickSubscription[TradeTick, MissedTrades]):
    """Each trade, in order of arrival."""

    def __init__(self, on_unsubscribe: Callable[[Any], None]) -> None:
        super().__init__(lambda: MAX_TRADES_WAITING, on_unsubscribe)

    def publish(self, trade: TradeTick) -> None:
        """Add a trade; if the mailbox is full, the oldest one is missed."""
        self.enqueue((trade.symbol, trade.id), trade)

    def _missed_by_eviction(
        self, key: tuple[str, int], item: TradeTick
    ) -> tuple[str, MissedTrades]:
        return item.symbol, MissedTrades(item.symbol, item.id, item.id, item.time_us, item.time_us)


class BookTickerSubscription(TickSubscription[BookTickerUpdate, MissedTrades]):
    """The newest book ticker of each symbol."""

    def __init__(self, on_unsubscribe: Callable[[Any], None]) -> None:
        super().__init__(None, on_unsubscribe)

    def publish(self, book_ticker: BookTickerUpdate) -> None:
        """Add a book ticker; it replaces the symbol's waiting one."""
        self.enqueue((book_ticker.symbol, 0), book_ticker)


class BookSubscription(TickSubscription[BookUpdate, MissedTrades]):
    """The newest order book of each symbol; its levels are read when the reader receives them.

    Args:
        read: returns a symbol's book with this number of levels.

    Attributes:
        levels: levels of each side.
    """

    def __init__(
        self, read: Callable[[str, int], BookUpdate], on_unsubscribe: Callable[[Any], None]
    ) -> None:
        super().__init__(None, on_unsubscribe)
        self.levels = BOOK_LEVELS
        self._read = read

    def publish(self, symbol: str) -> None:
        """Note that a book has changed; costs the same for any number of levels."""
        self.enqueue((symbol, 0), _CHANGED)

    def drain(self, limit: int = BATCH_TICKS) -> Ticks[BookUpdate, MissedTrades]:
        """Return the changed books as they are now, without waiting."""
        return Ticks([self._read(symbol, self.levels) for (symbol, _), _ in self.take(limit)])


_CHANGED = BookUpdate("", 0, None)
"""Waits in the mailbox in place of a book."""


class LiquidationSubscription(TickSubscription[Liquidation, MissedLiquidations]):
    """Each liquidation, in order of arrival."""

    def __init__(self, on_unsubscribe: Callable[[Any], None]) -> None:
        super().__init__(lambda: MAX_LIQUIDATIONS_WAITING, on_unsubscribe)

    def publish(self, one: Liquidation) -> None:
        """Add a liquidation; if the mailbox is full, the oldest one is missed."""
        self.enqueue((one.symbol, one.id), one)

    def _missed_by_eviction(
        self, key: tuple[str, int], item: Liquidation
    ) -> tuple[str, MissedLiquidations]:
        return item.symbol, MissedLiquidations(item.symbol, item.order_us, item.order_us, 1)
