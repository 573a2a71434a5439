"""Hubs that pass trades, book tickers and liquidations to the readers of this process.

A symbol is streamed only while it has readers: the source of ticks (the streamer's feeds, or
another process) is notified when the set of wanted symbols changes.

Call them from the event loop's own thread.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from include.counts import counted
from include.store.trades.liquidations import Liquidation
from streamer.hub.ticks import (
    BookSubscription,
    BookTickerSubscription,
    BookTickerUpdate,
    LiquidationSubscription,
    MissedLiquidations,
    MissedTrades,
    TradeSubscription,
    TradeTick,
)

MAX_LIQUIDATION_SYMBOLS = 1_000
"""Symbols whose liquidations are streamed to readers, over one connection for each market."""
MAX_BOOK_TICKER_SYMBOLS = 500
"""Symbols whose book tickers are streamed to readers, over one connection for each market."""
LINGER_S = 30.0
"""Time for which a symbol's stream stays subscribed after its last reader has gone."""


class FullError(Exception):
    """More symbols than can be streamed to readers; the text states the limit."""


SubscriptionT = TypeVar(
    "SubscriptionT",
    TradeSubscription,
    BookTickerSubscription,
    BookSubscription,
    LiquidationSubscription,
)


class TickHub(Generic[SubscriptionT]):
    """Subscriptions by symbol.

    Attributes:
        on_wanted: called when the wanted symbols have changed.
    """

    def __init__(self, make: Callable[[Callable[[Any], None]], SubscriptionT]) -> None:
        self.on_wanted: Callable[[], None] = lambda: None
        self._make: Callable[[Callable[[Any], None]], SubscriptionT] = make
        self._subscriptions: list[SubscriptionT] = []
        self._by_symbol: dict[str, list[SubscriptionT]] = {}

    @property
    def wanted(self) -> frozenset[str]:
        """Symbols to be streamed."""
        return frozenset(self._by_symbol)

    @property
    def subscribers(self) -> int:
        """Current number of subscriptions."""
        return len(self._subscriptions)

    def subscribe(self, symbols: Iterable[str] = ()) -> SubscriptionT:
        """Subscribe to symbols; none, if they are to be added later.

        Raises:
            FullError: more symbols than can be streamed.
        """
        subscription = self._make(self._unsubscribe)
        self.add_symbols(subscription, symbols)
        self._subscriptions.append(subscription)
        return subscription

    def add_symbols(self, subscription: SubscriptionT, symbols: Iterable[str]) -> None:
        """Add symbols to a subscription.

        Raises:
            FullError: more symbols than can be streamed; then none of them is added.
        """
        added = frozenset(symbols) - subscription.symbols
        unwanted_before = added - self._by_symbol.keys()
        self._make_room(len(unwanted_before), added)
        for symbol in sorted(added):
            subscription.symbols.add(symbol)
            self._by_symbol.setdefault(symbol, []).append(subscription)
            self._publish_newest(subscription, symbol)
        if unwanted_before:
            self.on_wanted()

    def remove_symbols(self, subscription: SubscriptionT, symbols: Iterable[str]) -> None:
        """Remove symbols from a subscription."""
        removed = subscription.symbols & frozenset(symbols)
        for symbol in removed:
            subscription.symbols.discard(symbol)
            subscription.remove(symbol)
            self._by_symbol[symbol].remove(subscription)
        if idle := [one for one in sorted(removed) if not self._by_symbol[one]]:
            self._on_idle(idle)

    def _unsubscribe(self, subscription: SubscriptionT) -> None:
        if subscription in self._subscriptions:
            self._subscriptions.remove(subscription)
            self.remove_symbols(subscription, set(subscription.symbols))

    def _make_room(self, count: int, added: frozenset[str]) -> None:
        """Raise if this many further symbols cannot be streamed."""

    def _publish_newest(self, subscription: SubscriptionT, symbol: str) -> None:
        """Deliver the current state of a symbol to a new subscription."""

    def _on_idle(self, symbols: Iterable[str]) -> None:
        """Handle symbols that have lost their last reader."""
        for symbol in symbols:
            del self._by_symbol[symbol]
        self.on_wanted()


class TradeHub(TickHub[TradeSubscription]):
    """Passes trades to the subscriptions of their symbols."""

    def __init__(self) -> None:
        super().__init__(TradeSubscription)

    def publish(self, trade: TradeTick) -> None:
        """Pass a trade to its subscribers."""
        for subscription in self._by_symbol.get(trade.symbol, ()):
            subscription.publish(trade)

    def report_missed(self, missed: MissedTrades) -> None:
        """Report trades that did not reach this process."""
        for subscription in self._by_symbol.get(missed.symbol, ()):
            subscription.report_missed(missed.symbol, missed)


class OnDemandHub(TickHub[SubscriptionT]):
    """A hub whose symbols are streamed for its readers alone.

    Args:
        what: name of the ticks, for errors.
        max_symbols: maximum symbols streamed to readers.
        linger_s: how long a symbol stays wanted after its last reader has gone.
    """

    def __init__(
        self,
        make: Callable[[Callable[[Any], None]], Any],
        *,
        what: str,
        max_symbols: int,
        linger_s: float,
    ) -> None:
        super().__init__(make)
        self._what = what
        self._max_symbols = max_symbols
        self._linger_s = linger_s

    def forget(self, symbols: Iterable[str]) -> None:
        """Drop what is known of symbols that are no longer streamed."""

    def _make_room(self, count: int, added: frozenset[str]) -> None:
        excess = len(self._by_symbol) + count - self._max_symbols
        if excess <= 0:
            return
        idle = [name for name, by in self._by_symbol.items() if not by and name not in added]
        if len(idle) < excess:
            busy = len(self._by_symbol) - len(idle)
            raise FullError(
                f"{self._what} of {counted(busy, 'symbol')} are streamed to readers, and "
                f"{count:,} more requested; should be {self._max_symbols} at most"
            )
        self._stop(idle[:excess])

    def _on_idle(self, symbols: Iterable[str]) -> None:
        asyncio.get_running_loop().call_later(self._linger_s, self._stop, list(symbols))

    def _stop(self, symbols: Iterable[str]) -> None:
        idle = [one for one in symbols if not self._by_symbol.get(one, True)]
        for symbol in idle:
            del self._by_symbol[symbol]
        self.forget(idle)
        if idle:
            self.on_wanted()


class BookTickerHub(OnDemandHub[BookTickerSubscription]):
    """Passes book tickers to the subscriptions of their symbols, and remembers the newest."""

    def __init__(
        self, *, max_symbols: int = MAX_BOOK_TICKER_SYMBOLS, linger_s: float = LINGER_S
    ) -> None:
        super().__init__(
            BookTickerSubscription, what="book tickers", max_symbols=max_symbols, linger_s=linger_s
        )
        self._newest: dict[str, BookTickerUpdate] = {}

    def newest(self, symbol: str) -> BookTickerUpdate | None:
        """Return the newest book ticker; None if none arrived while the symbol was streamed."""
        return self._newest.get(symbol)

    def publish(self, book_ticker: BookTickerUpdate) -> None:
        """Pass a book ticker to its subscribers."""
        subscriptions = self._by_symbol.get(book_ticker.symbol)
        if subscriptions is None:
            return
        self._newest[book_ticker.symbol] = book_ticker
        for subscription in subscriptions:
            subscription.publish(book_ticker)

    def forget(self, symbols: Iterable[str]) -> None:
        """Drop the newest book tickers of symbols that are no longer streamed."""
        for symbol in symbols:
            self._newest.pop(symbol, None)

    def _publish_newest(self, subscription: BookTickerSubscription, symbol: str) -> None:
        if (newest := self._newest.get(symbol)) is not None:
            subscription.publish(newest)


class LiquidationHub(OnDemandHub[LiquidationSubscription]):
    """Passes liquidations to the subscriptions of their symbols. Symbols of spot have none."""

    def __init__(
        self, *, max_symbols: int = MAX_LIQUIDATION_SYMBOLS, linger_s: float = LINGER_S
    ) -> None:
        super().__init__(
            LiquidationSubscription, what="liquidations", max_symbols=max_symbols, linger_s=linger_s
        )

    def publish(self, one: Liquidation) -> None:
        """Pass a liquidation to its subscribers."""
        for subscription in self._by_symbol.get(one.symbol, ()):
            subscription.publish(one)

    def report_missed(self, missed: MissedLiquidations) -> None:
        """Report liquidations that did not reach this process."""
        for subscription in self._by_symbol.get(missed.symbol, ()):
            subscription.report_missed(missed.symbol, missed)


@dataclass(frozen=True, slots=True)
class TickHubs:
    """The ticks of a process.

    Attributes:
        liquidations: None where they are not served: a separate server has no source of them.
    """

    trades: TradeHub = field(default_factory=TradeHub)
    book_tickers: BookTickerHub = field(default_factory=BookTickerHub)
    liquidations: LiquidationHub | None = None
