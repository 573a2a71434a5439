"""Who listens to which symbols' trades and best prices, in this process.

What is wanted is what somebody listens to: whatever brings trades and best prices here (the
streamer's feeds, or another process) is told when that changes. Nothing is kept of other symbols.

Call it from the event loop's own thread.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from streamer.hub.ticks import (
    BookTickerSubscription,
    BookTickerUpdate,
    MissedTrades,
    TradeSubscription,
    TradeTick,
)

MAX_QUOTED_SYMBOLS = 500
"""Symbols whose best prices are streamed for readers at once, on one connection a market."""
QUOTES_LINGER_S = 30.0
"""Best prices of a symbol go on for so long after the last reader left: another may come."""


class FullError(Exception):
    """More symbols than can be streamed for readers at once; the text says how many can."""


Watch = TypeVar("Watch", TradeSubscription, BookTickerSubscription)


class _TickHub(Generic[Watch]):
    """Watches by symbol, and what all of them together want.

    Attributes:
        on_wanted: told when the wanted symbols have changed.
    """

    def __init__(self, make: Callable[[Callable[[Any], None]], Watch]) -> None:
        self.on_wanted: Callable[[], None] = lambda: None
        self._make: Callable[[Callable[[Any], None]], Watch] = make
        self._watches: list[Watch] = []
        self._watching: dict[str, list[Watch]] = {}

    @property
    def wanted(self) -> frozenset[str]:
        """Symbols to be streamed."""
        return frozenset(self._watching)

    @property
    def watches(self) -> int:
        """Readers at present."""
        return len(self._watches)

    def watch(self, symbols: Iterable[str] = ()) -> Watch:
        """Begin to listen.

        Raises:
            FullError: more symbols than can be streamed at once.
        """
        watch = self._make(self._leave)
        self.extend(watch, symbols)
        self._watches.append(watch)
        return watch

    def extend(self, watch: Watch, symbols: Iterable[str]) -> None:
        """Listen to further symbols.

        Raises:
            FullError: more than can be streamed at once; then to none of them.
        """
        fresh = frozenset(symbols) - watch.symbols
        news = fresh - self._watching.keys()
        self._make_room(len(news), fresh)
        for symbol in sorted(fresh):
            watch.symbols.add(symbol)
            self._watching.setdefault(symbol, []).append(watch)
            self._begin(watch, symbol)
        if news:
            self.on_wanted()

    def reduce(self, watch: Watch, symbols: Iterable[str]) -> None:
        """Listen to these symbols no longer."""
        gone = watch.symbols & frozenset(symbols)
        for symbol in gone:
            watch.symbols.discard(symbol)
            watch.forget(symbol)
            self._watching[symbol].remove(watch)
        if free := [one for one in sorted(gone) if not self._watching[one]]:
            self._nobody_listens(free)

    def _leave(self, watch: Watch) -> None:
        if watch in self._watches:
            self._watches.remove(watch)
            self.reduce(watch, set(watch.symbols))

    def _make_room(self, news: int, fresh: frozenset[str]) -> None:
        """Whether further symbols can be streamed."""

    def _begin(self, watch: Watch, symbol: str) -> None:
        """Tell a watch what there is of a symbol."""

    def _nobody_listens(self, symbols: Iterable[str]) -> None:
        for symbol in symbols:
            del self._watching[symbol]
        self.on_wanted()


class TradeHub(_TickHub[TradeSubscription]):
    """Tells trades to all that listen to their symbols."""

    def __init__(self) -> None:
        super().__init__(TradeSubscription)

    def put(self, trade: TradeTick) -> None:
        """A trade came."""
        for watch in self._watching.get(trade.symbol, ()):
            watch.put(trade)

    def miss(self, missed: MissedTrades) -> None:
        """Trades did not come here."""
        for watch in self._watching.get(missed.symbol, ()):
            watch.miss(missed)


class BookTickerHub(_TickHub[BookTickerSubscription]):
    """Tells best prices to all that listen to their symbols, and knows the newest.

    Args:
        max_symbols: streamed at once.
        linger_s: how long those of a symbol go on after its last reader left.
    """

    def __init__(
        self, *, max_symbols: int = MAX_QUOTED_SYMBOLS, linger_s: float = QUOTES_LINGER_S
    ) -> None:
        super().__init__(BookTickerSubscription)
        self._max_symbols = max_symbols
        self._linger_s = linger_s
        self._newest: dict[str, BookTickerUpdate] = {}

    def newest(self, symbol: str) -> BookTickerUpdate | None:
        """The newest best prices; None where none came while the symbol was streamed."""
        return self._newest.get(symbol)

    def put(self, quote: BookTickerUpdate) -> None:
        """Best prices changed."""
        watching = self._watching.get(quote.symbol)
        if watching is None:
            return
        self._newest[quote.symbol] = quote
        for watch in watching:
            watch.put(quote)

    def drop(self, symbols: Iterable[str]) -> None:
        """Symbols are streamed no longer: their newest best prices are not the present ones."""
        for symbol in symbols:
            self._newest.pop(symbol, None)

    def _make_room(self, news: int, fresh: frozenset[str]) -> None:
        too_many = len(self._watching) + news - self._max_symbols
        if too_many <= 0:
            return
        idle = [one for one, by in self._watching.items() if not by and one not in fresh]
        if len(idle) < too_many:
            busy = len(self._watching) - len(idle)
            raise FullError(
                f"best prices of {busy} symbols are streamed for readers and {news} more are asked "
                f"for; should be {self._max_symbols} at most"
            )
        self._stop(idle[:too_many])

    def _begin(self, watch: BookTickerSubscription, symbol: str) -> None:
        if (newest := self._newest.get(symbol)) is not None:
            watch.put(newest)

    def _nobody_listens(self, symbols: Iterable[str]) -> None:
        asyncio.get_running_loop().call_later(self._linger_s, self._stop, list(symbols))

    def _stop(self, symbols: Iterable[str]) -> None:
        idle = [one for one in symbols if not self._watching.get(one, True)]
        for symbol in idle:
            del self._watching[symbol]
            self._newest.pop(symbol, None)
        if idle:
            self.on_wanted()


@dataclass(frozen=True, slots=True)
class TickHubs:
    """Trades and best prices of a process."""

    trades: TradeHub = field(default_factory=TradeHub)
    quotes: BookTickerHub = field(default_factory=BookTickerHub)
