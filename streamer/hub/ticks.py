"""Single trades and best prices, and what one reader is told of them at its own pace.

Every trade is told; those that a reader is too slow for are named by their ids. Of best prices the
newest of each symbol is told.

Call it from the event loop's own thread.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal
from itertools import islice
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

import msgspec

BATCH_TICKS = 500
"""Most of one batch: told in a few milliseconds, in which nothing else moves."""
MAX_TRADES_WAITING = 5_000
"""Trades that may wait for a reader, of all its symbols together."""


class TradeTick(msgspec.Struct, frozen=True, gc=False):
    """A trade as the exchange streams it.

    Attributes:
        id: of the aggregate trade, or of the single one where the streamer folds those.
        quantity: in base asset.
        time_us: when it was made.
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
        event_us: the exchange's time; None where it tells none (spot).
        received_us: when it came, by the clock of the machine that streams it.
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
    """Trades that a reader was not told of: ids and times (µs), both ends within.

    Some between the ends may have been told.
    """

    symbol: str
    first_id: int
    last_id: int
    from_us: int
    to_us: int

    def with_(self, other: MissedTrades) -> MissedTrades:
        """What holds both."""
        return MissedTrades(
            self.symbol,
            min(self.first_id, other.first_id),
            max(self.last_id, other.last_id),
            min(self.from_us, other.from_us),
            max(self.to_us, other.to_us),
        )


Tick = TypeVar("Tick", TradeTick, BookTickerUpdate)


@dataclass(frozen=True, slots=True)
class Ticks(Generic[Tick]):
    """What came since the last one, in order."""

    ticks: list[Tick]
    missed: list[MissedTrades] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.ticks or self.missed)


class TickSubscription(ABC, Generic[Tick]):
    """What one reader waits for; a fan makes it, and leaving the context ends it.

    Attributes:
        symbols: those it is told of; the fan alone changes them.
    """

    def __init__(self, on_leave: Callable[[Any], None]) -> None:
        self.symbols: set[str] = set()
        self._on_leave = on_leave
        self._wake = asyncio.Event()
        self._is_over = False

    @property
    @abstractmethod
    def waiting(self) -> int:
        """What came and was not taken yet."""

    @abstractmethod
    def put(self, tick: Tick) -> None:
        """Something came."""

    @abstractmethod
    def take(self, most: int = BATCH_TICKS) -> Ticks[Tick]:
        """What came so far, without waiting; empty where nothing did."""

    @abstractmethod
    def forget(self, symbol: str) -> None:
        """Nothing of a symbol is wanted any more."""

    async def next(self, most: int = BATCH_TICKS) -> Ticks[Tick] | None:
        """Wait until something comes; None once all is told and nothing will."""
        while not (found := self.take(most)):
            if self._is_over:
                return None
            await self.changed()
        return found

    async def changed(self) -> None:
        """Wait until something comes, or somebody wakes it."""
        self._wake.clear()
        await self._wake.wait()

    def wake(self) -> None:
        """Have the reader look, though nothing came."""
        self._wake.set()

    def leave(self) -> None:
        """End it; a reader that waits gets what is left, then None."""
        self._on_leave(self)
        self._is_over = True
        self._wake.set()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.leave()


class TradeSubscription(TickSubscription[TradeTick]):
    """Each trade, in the order in which they came."""

    def __init__(self, on_leave: Callable[[Any], None]) -> None:
        super().__init__(on_leave)
        self._waiting: deque[TradeTick] = deque()
        self._missed: dict[str, MissedTrades] = {}
        self.dropped = 0
        """Trades that had to leave before they were taken."""

    @property
    def waiting(self) -> int:
        """Trades that came and were not taken yet."""
        return len(self._waiting)

    def put(self, tick: TradeTick) -> None:
        """A trade came; beyond what may wait the oldest has to leave."""
        if len(self._waiting) >= MAX_TRADES_WAITING:
            one = self._waiting.popleft()
            self.dropped += 1
            self.miss(MissedTrades(one.symbol, one.id, one.id, one.time_us, one.time_us))
        self._waiting.append(tick)
        self._wake.set()

    def miss(self, missed: MissedTrades) -> None:
        """Trades will not be told."""
        known = self._missed.get(missed.symbol)
        self._missed[missed.symbol] = missed if known is None else known.with_(missed)
        self._wake.set()

    def take(self, most: int = BATCH_TICKS) -> Ticks[TradeTick]:
        """What came so far, without waiting; empty where nothing did."""
        missed, self._missed = list(self._missed.values()), {}
        taken = [self._waiting.popleft() for _ in range(min(most, len(self._waiting)))]
        return Ticks(taken, missed)

    def forget(self, symbol: str) -> None:
        """Nothing of a symbol is wanted any more."""
        self._waiting = deque(one for one in self._waiting if one.symbol != symbol)
        self._missed.pop(symbol, None)


class BookTickerSubscription(TickSubscription[BookTickerUpdate]):
    """The newest best prices of each symbol."""

    def __init__(self, on_leave: Callable[[Any], None]) -> None:
        super().__init__(on_leave)
        self._waiting: dict[str, BookTickerUpdate] = {}
        self.conflated = 0
        """Best prices that newer ones replaced before they were taken."""

    @property
    def waiting(self) -> int:
        """Symbols whose best prices changed and were not taken yet."""
        return len(self._waiting)

    def put(self, tick: BookTickerUpdate) -> None:
        """Best prices changed."""
        self.conflated += tick.symbol in self._waiting
        self._waiting[tick.symbol] = tick
        self._wake.set()

    def take(self, most: int = BATCH_TICKS) -> Ticks[BookTickerUpdate]:
        """What changed so far, without waiting; empty where nothing did."""
        names = list(islice(self._waiting, most))
        return Ticks([self._waiting.pop(name) for name in names])

    def forget(self, symbol: str) -> None:
        """Nothing of a symbol is wanted any more."""
        self._waiting.pop(symbol, None)
